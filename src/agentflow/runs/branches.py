"""A thread whose questions were edited or asked again: which turns lead to a turn, and which checkpoint is whose. Pure.

Clients see a tree of checkpoints: the thread's beginning, and for every turn its question and then its answer. The
beginning has the thread's id, a question the id of its turn; only answers have checkpoints of LangGraph. Once those are
removed, an answer has an id that follows from its turn's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from agentflow.errors import BadInput


@dataclass(frozen=True)
class Told:
    """A turn of a thread at place `seq`.

    `follows` is the place it goes on from, None for the one before; `again` the place of the turn whose question it
    answers once more; `at` is when it began, ISO 8601; `shown` says that its messages are shown, `answered` that it is
    done.
    """

    run_id: str
    seq: int
    at: str
    follows: int | None = None
    again: int | None = None
    shown: bool = True
    answered: bool = False


@dataclass(frozen=True)
class Fork:
    """Where a new turn goes on from (None: from the last turn), and whose question it answers once more."""

    follows: int | None = None
    again: int | None = None


@dataclass(frozen=True)
class Branches:
    """The turns of a thread by place, in order, and the places of LangGraph's checkpoints, oldest first."""

    thread_id: str
    turns: Mapping[int, Told] = field(default_factory=dict)
    checkpoints: Mapping[str, int] = field(default_factory=dict)

    @property
    def head(self) -> int:
        """The place of the last turn, which says what the thread is now; 0 where there is none."""
        return max(self.turns, default=0)

    def before(self, seq: int) -> int:
        """The place that a turn goes on from; 0 for the beginning."""
        follows = self.turns[seq].follows
        return max((one for one in self.turns if one < seq), default=0) if follows is None else follows

    def path(self, seq: int) -> frozenset[int]:
        """The places of a turn and of all that lead to it."""
        found = set()
        while seq in self.turns:
            found.add(seq)
            seq = self.before(seq)
        return frozenset(found)

    def question(self, checkpoint_id: str) -> int | None:
        """The place of the turn whose question has this checkpoint; 0 for the thread's beginning."""
        if checkpoint_id == self.thread_id:
            return 0
        return next((seq for seq, one in self.turns.items() if one.run_id == checkpoint_id), None)

    def answer(self, checkpoint_id: str) -> int | None:
        """The place of the turn whose answer has this checkpoint, though its own may be removed."""
        if checkpoint_id in self.checkpoints:
            return self.checkpoints[checkpoint_id]
        done = (seq for seq, one in self.turns.items() if one.answered)
        return next((seq for seq in done if answered_at(self.turns[seq].run_id) == checkpoint_id), None)

    def lost(self, seq: int) -> bool:
        """Whether a turn's checkpoints are removed, though it was answered."""
        return self.turns[seq].answered and seq not in self.checkpoints.values()

    def asked_at(self, seq: int) -> int:
        """The place where a turn's question was asked first."""
        again = self.turns[seq].again
        return seq if again is None or again not in self.turns else again

    def last_checkpoint(self, seq: int) -> str:
        """The id under which clients know a place."""
        if seq == 0 or seq not in self.turns:
            return self.thread_id
        own = [one for one, place in self.checkpoints.items() if place == seq]
        if own:
            return own[-1]
        turn = self.turns[seq]
        return answered_at(turn.run_id) if turn.answered else turn.run_id

    def fork(self, checkpoint_id: str | None, *, asks: bool) -> Fork:
        """Where a run at a checkpoint goes on: with a message behind it, without one its answer is given again.

        Raises BadInput for a checkpoint of another thread, and where there is nothing to be answered again.
        """
        seq, of_question = self._place(checkpoint_id)
        if asks:
            follows = self.before(seq) if of_question and seq else seq
            return Fork(None if follows == self.head else follows)
        if seq == 0:
            raise BadInput("There is no message to answer again; send input.messages.", field="input")
        asked = self.asked_at(seq)
        return Fork(self.before(asked), asked)

    def _place(self, checkpoint_id: str | None) -> tuple[int, bool]:
        if checkpoint_id is None:
            return self.head, False
        answered = self.answer(checkpoint_id)
        if answered is not None:
            return answered, False
        seq = self.question(checkpoint_id)
        if seq is None:
            message = f"This thread has no checkpoint {checkpoint_id[:80]}."
            raise BadInput(message, field="checkpoint", value=checkpoint_id)
        return seq, True


def answered_at(run_id: str) -> str:
    """The id of an answer whose checkpoints are removed."""
    return str(uuid5(UUID(run_id), "checkpoint"))
