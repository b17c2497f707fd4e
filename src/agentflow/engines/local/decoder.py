"""The thread that owns the model: one loop of orders, joining, stepping and leaving.

Answers with different adapters share one batch. New ones join between two steps, finished and cancelled
ones leave, adapters come and go at the same seam: nothing here needs a lock but the inbox.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import structlog

from agentflow.engines.local.answer import Answer
from agentflow.engines.local.voices import Load, Unload, Voices, as_agentflow
from agentflow.errors import (
    AgentflowError,
    EngineDown,
    GenerationFailed,
    PromptRefused,
)

if TYPE_CHECKING:
    from agentflow.engines.local.cache import Rows
    from agentflow.engines.local.model import Model


@dataclass(frozen=True)
class Close:
    """Order: end the thread."""


Order = Answer | Load | Unload | Close


class Decoder(threading.Thread):
    """`opened` is done when the model is there, or has the error that kept it away."""

    def __init__(self, open_model: "Callable[[], Model]", batch: int) -> None:
        super().__init__(name="agentflow-decoder", daemon=True)
        self.opened: Future[None] = Future()
        self.voices = Voices()
        self._open_model = open_model
        self._batch = batch
        self._inbox: SimpleQueue[Order] = SimpleQueue()
        self._door = threading.Lock()
        self.ended: AgentflowError | None = None
        self._waiting: deque[Answer] = deque()
        self._active: list[Answer] = []
        self._rows: Rows | None = None

    @property
    def running(self) -> int:
        """Answers that wait or are being given."""
        return len(self._waiting) + len(self._active)

    def post(self, order: Order) -> None:
        """Raises what ended the thread."""
        with self._door:
            if self.ended:
                raise self.ended
            self._inbox.put(order)

    def run(self) -> None:
        try:
            self._model = self._open_model()
        except Exception as error:  # noqa: BLE001 - logged, and raised to all who wait
            structlog.get_logger().warning("engine.local.not_started", error=str(error))
            self._end(as_agentflow(error))
            self.opened.set_exception(as_agentflow(error))
            return
        self.opened.set_result(None)
        try:
            while self._take_orders():
                self._turn()
        except Exception:  # noqa: BLE001 - logged, and raised to all who wait
            structlog.get_logger().exception("engine.local.loop_failed")
            self._end(EngineDown("The local engine stopped after a fault of its own; see the log."))
        else:
            self._end(EngineDown("The local engine has been closed."))

    # --- orders

    def _take_orders(self) -> bool:
        """All that lie there; waits for one when there is nothing else to do. False: it is time to go."""
        while self._is_idle() or not self._inbox.empty():
            order = self._inbox.get()
            if isinstance(order, Close):
                return False
            self._accept(order)
        return True

    def _is_idle(self) -> bool:
        return not (self._active or self._waiting or self.voices.somebody_leaves)

    def _accept(self, order: Order) -> None:
        if isinstance(order, Answer):
            self._queue(order)
        elif isinstance(order, Load):
            self.voices.move(order, self._model)
        elif isinstance(order, Unload):
            self.voices.leave(order, self._model)

    def _queue(self, answer: Answer) -> None:
        voice = self.voices.of(answer.adapter)
        if voice:
            answer.voice = voice.name
            self._waiting.append(answer)
        else:
            answer.fail(_not_loaded(str(answer.adapter)))

    # --- one turn of the loop

    def _turn(self) -> None:
        self._leave()
        entering = self._entering()
        if entering:
            self._guarded(lambda: self._join(entering), entering)
        self._free()
        if self._rows:
            self._guarded(partial(self._step, self._rows), self._active)

    def _guarded(self, work: Callable[[], None], concerned: Sequence[Answer]) -> None:
        """A fault of the model fails the answers at hand, not the engine."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - logged, and raised to all concerned
            structlog.get_logger().exception("engine.local.step_failed")
            for answer in concerned:
                answer.fail(GenerationFailed(f"The local engine broke off the answer: {error}"))
            self._leave()

    def _leave(self) -> None:
        """Finished and cancelled answers go."""
        self._waiting = deque(answer for answer in self._waiting if _is_wanted(answer))
        staying = [index for index, answer in enumerate(self._active) if _is_wanted(answer)]
        if len(staying) < len(self._active):
            self._active = [self._active[index] for index in staying]
            self._rows = self._model.kept(self._rows, staying) if self._rows and staying else None

    def _entering(self) -> list[Answer]:
        """As many waiting answers as there is room for."""
        entering: list[Answer] = []
        while self._waiting and len(self._active) + len(entering) < self._batch:
            answer = self._waiting.popleft()
            if self._begin(answer):
                entering.append(answer)
        return entering

    def _join(self, entering: list[Answer]) -> None:
        """Their prompts are read in one batch, then their rows join the others'."""
        voices = [answer.voice for answer in entering]
        logits, rows = self._model.start([answer.tokens for answer in entering], voices)
        self._rows = rows if self._rows is None else self._model.joined(self._rows, rows)
        self._active += entering
        self._hear(entering, logits)

    def _begin(self, answer: Answer) -> bool:
        try:
            tokens = self._model.encode(answer.prompt.messages)
            answer.begin(tokens, self._limit(answer, len(tokens)), self._model.decode)
        except AgentflowError as error:
            answer.fail(error)
            return False
        return True

    def _limit(self, answer: Answer, length: int) -> int:
        limit = min(answer.prompt.max_tokens, self._model.context - length)
        if limit < 1:
            raise PromptRefused(
                f"max_tokens: {answer.prompt.max_tokens} are asked for after a prompt of {length} tokens and "
                f"the base model reads at most {self._model.context}. Shorten the prompt.",
                field="max_tokens",
                value=answer.prompt.max_tokens,
            )
        return limit

    def _step(self, rows: "Rows") -> None:
        tokens = [answer.last for answer in self._active]
        voices = [answer.voice for answer in self._active]
        self._hear(self._active, self._model.step(tokens, rows, voices))

    def _hear(self, answers: Sequence[Answer], logits: Any) -> None:
        tokens = logits.argmax(dim=-1).tolist()
        for index, answer in enumerate(answers):
            if answer.sampler:
                tokens[index] = answer.sampler.draw(logits[index].float().cpu().numpy())
            answer.hear(tokens[index], self._model.ends)

    def _free(self) -> None:
        self.voices.free({answer.voice for answer in (*self._active, *self._waiting)})

    def _end(self, reason: AgentflowError) -> None:
        with self._door:
            self.ended = reason
        for answer in (*self._active, *self._waiting):
            answer.fail(reason)
        self.voices.end()
        while not self._inbox.empty():
            order = self._inbox.get()
            if isinstance(order, Answer):
                order.fail(reason)
            elif isinstance(order, Load | Unload):
                order.done.set_exception(reason)


def _is_wanted(answer: Answer) -> bool:
    return not (answer.cancelled or answer.finished)


def _not_loaded(adapter: str) -> GenerationFailed:
    return GenerationFailed(
        f"adapter: '{adapter}' is not loaded in the local engine. Load it first.",
        field="adapter",
        value=adapter,
    )
