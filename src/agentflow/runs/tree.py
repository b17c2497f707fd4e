"""The states of a thread of our own graph as chat clients read them: a tree of questions and answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from agentflow.runs.branches import Branches, answered_at
from agentflow.runs.conversation import shown
from agentflow.turn import Json


@dataclass(frozen=True)
class Tree:
    """`said`: the messages of all branches, each with the place of its turn, in order. `going`: the last turn runs."""

    branches: Branches
    said: Sequence[tuple[int, Json]]
    going: bool = False

    def now(self, state: Json) -> Json:
        """The thread's state now: that of its last turn, though it may have no checkpoint yet."""
        if self.going and self._unwritten(self.branches.head):
            asked = self._asked(self.branches.head)
            return {**asked, "values": {**shown(state["values"] or {}), **asked["values"]}}
        filled = self.then(state)
        filled["values"]["messages"] = self._messages(self.branches.head)
        return filled

    def then(self, state: Json) -> Json:
        """A state from a checkpoint, with its messages, behind its question."""
        seq = self._seq(state)
        parent = self._parent(state, seq)
        messages = self._messages(self.branches.head if seq is None else seq)
        return {**state, "values": {**shown(state["values"] or {}), "messages": messages}, **parent}

    def virtual(self, checkpoint_id: str | None) -> Json | None:
        """A state that no checkpoint holds, if the id is of one: a question's, a lost answer's, the beginning's."""
        if checkpoint_id is None or checkpoint_id in self.branches.checkpoints:
            return None
        seq = self.branches.question(checkpoint_id)
        if seq is not None:
            return self._begun() if seq == 0 else self._asked(seq)
        lost = self.branches.answer(checkpoint_id)
        return None if lost is None else self._answered(lost)

    def woven(self, states: Sequence[Json], limit: int | None) -> list[Json]:
        """States from checkpoints, newest first, with those between them that none holds; None: these are all."""
        whole = limit is None or len(states) < limit
        woven: list[tuple[int, Json]] = []
        for state, older_one, at in zip_longest(states, states[1:], self._places(states)):
            woven.append((at, self.then(state)))
            seq = self._seq(state)
            cut = older_one is None and not whole
            if seq is None or cut or (older_one is not None and self._seq(older_one) == seq):
                continue
            if self.branches.asked_at(seq) == seq:
                woven.append((seq, self._asked(seq)))
        last = 0 if whole else min((at for at, _ in woven), default=0)
        woven += [(seq, one) for seq in self.branches.turns if seq > last for one in self._unheld(seq)]
        found = [one for _, one in sorted(woven, key=lambda found: -found[0])]
        return [*found, self._begun()] if whole and found else found

    def _places(self, states: Sequence[Json]) -> list[int]:
        """Each state's turn; what was written by hand stands with the turn before it."""
        places, at = [], 0
        for state in reversed(states):
            at = self._seq(state) or at
            places.append(at)
        return places[::-1]

    def _unheld(self, seq: int) -> list[Json]:
        """The states of a turn without checkpoints, newest first."""
        if self.branches.lost(seq):
            return [self._answered(seq), *([self._asked(seq)] if self.branches.asked_at(seq) == seq else [])]
        return [self._asked(seq)] if self._unwritten(seq) else []

    def _unwritten(self, seq: int) -> bool:
        """Whether a turn shows messages, and no answer with a checkpoint of its own: it runs, or was stopped."""
        known = self.branches.turns.get(seq)
        if known is None or known.answered:
            return False
        return known.shown and seq not in self.branches.checkpoints.values()

    def _seq(self, state: Json) -> int | None:
        return self.branches.checkpoints.get(state["checkpoint_id"] or "")

    def _parent(self, state: Json, seq: int | None) -> Json:
        """A turn's first checkpoint hangs on its question, which only clients see."""
        if seq is None or self.branches.checkpoints.get(state["parent_checkpoint_id"] or "") == seq:
            return {}
        asked = self.branches.asked_at(seq)
        return self._behind(self.branches.turns[asked].run_id)

    def _asked(self, seq: int) -> Json:
        turn = self.branches.turns[seq]
        before = self.branches.before(seq)
        messages = [one for at, one in self.said if at == seq]
        if not self._unwritten(seq):
            messages = messages[:1]
        return {
            **self._state(turn.run_id, [*self._messages(before), *messages], turn.at),
            "next": ["generate"] if self.going and seq == self.branches.head else [],
            "metadata": {"source": "input", "step": -1, "run_id": turn.run_id, "parents": {}},
            **self._behind(self.branches.last_checkpoint(before)),
        }

    def _answered(self, seq: int) -> Json:
        turn = self.branches.turns[seq]
        asked = self.branches.turns[self.branches.asked_at(seq)]
        return {
            **self._state(answered_at(turn.run_id), self._messages(seq), turn.at),
            "metadata": {"source": "loop", "step": 0, "run_id": turn.run_id, "parents": {}},
            **self._behind(asked.run_id),
        }

    def _begun(self) -> Json:
        first = min(self.branches.turns, default=None)
        at = None if first is None else self.branches.turns[first].at
        return self._state(self.branches.thread_id, [], at)

    def _messages(self, seq: int) -> list[Json]:
        path = self.branches.path(seq)
        return [one for at, one in self.said if at in path]

    def _state(self, checkpoint_id: str, messages: list[Json], at: str | None) -> Json:
        return {
            "values": {"messages": messages},
            "next": [],
            "tasks": [],
            "metadata": {"source": "input", "step": -2, "parents": {}},
            "created_at": at,
            "checkpoint": self._place(checkpoint_id),
            "parent_checkpoint": None,
            "interrupts": [],
            "checkpoint_id": checkpoint_id,
            "parent_checkpoint_id": None,
        }

    def _behind(self, checkpoint_id: str) -> Json:
        return {"parent_checkpoint": self._place(checkpoint_id), "parent_checkpoint_id": checkpoint_id}

    def _place(self, checkpoint_id: str) -> Json:
        return {
            "checkpoint_id": checkpoint_id,
            "thread_id": self.branches.thread_id,
            "checkpoint_ns": "",
        }


def older(states: Sequence[Json], checkpoint_id: str | None) -> list[Json]:
    """Those behind a checkpoint, of states with the newest first."""
    found = next(
        (place for place, one in enumerate(states) if one["checkpoint_id"] == checkpoint_id), len(states)
    )
    return list(states[found + 1 :])
