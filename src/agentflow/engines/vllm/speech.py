"""Chat completion events to pieces of an answer."""

from collections.abc import Iterator
from typing import Any

import structlog

from agentflow.errors import GenerationFailed
from agentflow.protocols import Piece
from agentflow.turn import Json, Usage


class Speech:
    """One answer as it comes in. Feed every event to `hear`, then ask for the `last` piece."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._finish: str | None = None
        self._usage: Usage = {"prompt_tokens": 0, "completion_tokens": 0}
        self._thoughts: list[str] = []
        self._spoke = False
        self._calls: list[Json] = []

    def hear(self, event: Json) -> Iterator[Piece]:
        """The event's text, if it has any. Raises GenerationFailed for an event of another form."""
        try:
            text = self._take(event)
        except (KeyError, TypeError, AttributeError) as error:
            raise GenerationFailed(
                f"The engine sent an event that is no chat completion: {error!r}"
            ) from error
        if text or self._calls:
            self._spoke = True
            yield Piece(text, tool_calls=tuple(self._calls))

    def last(self) -> Piece:
        """Finish and usage. Raises GenerationFailed when the answer has no end.

        A reasoning parser on a model that writes no think tags puts the whole answer into the
        reasoning field: that text is the answer then.
        """
        if self._finish is None or self._finish == "abort":
            raise GenerationFailed("The engine broke off the answer before its end.", retry_after=1)
        text = "" if self._spoke else "".join(self._thoughts)
        if text:
            structlog.get_logger().warning("engine.answer_in_reasoning", model=self._model)
        finish = self._finish if self._finish in ("length", "tool_calls") else "stop"
        return Piece(text, finish, self._usage)

    def _take(self, event: Json) -> str:
        if usage := event.get("usage"):
            self._usage = {key: int(usage[key]) for key in ("prompt_tokens", "completion_tokens")}  # type: ignore[assignment]
        self._calls = []
        if not event["choices"]:
            return ""
        choice: dict[str, Any] = event["choices"][0]
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        self._thoughts.append(delta.get("reasoning") or delta.get("reasoning_content") or "")
        self._calls = delta.get("tool_calls") or []
        return str(delta.get("content") or "")
