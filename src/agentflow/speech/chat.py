"""OpenAI chat completions: what is asked, what comes in, and what a refusal means."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import structlog

from agentflow.errors import GenerationFailed, PromptRefused
from agentflow.protocols import Piece, Prompt
from agentflow.speech.wire import Refused, Wire
from agentflow.turn import Json, Usage

PATH = "/v1/chat/completions"
ONE_TOKEN = Prompt([{"role": "user", "content": "Hello"}], max_tokens=1)
"""What an adapter must answer before it counts as loaded."""


def body(prompt: Prompt, model: str) -> Json:
    """A streamed chat completion that tells its usage."""
    asked: Json = {
        "model": model,
        "messages": list(prompt.messages),
        "max_tokens": prompt.max_tokens,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prompt.seed is not None:
        asked["seed"] = prompt.seed
    if prompt.stop:
        asked["stop"] = list(prompt.stop)
    if prompt.tools:
        asked |= {"tools": list(prompt.tools), "tool_choice": prompt.tool_choice or "auto"}
    if prompt.response_format is not None:
        asked["response_format"] = prompt.response_format
    return asked


async def answer(wire: Wire, asked: Json, path: str = PATH) -> AsyncGenerator[Piece, None]:
    """The pieces of an answer. Raises as Wire.events does, and GenerationFailed for one without an end."""
    speech = Speech(str(asked.get("model", "")))
    async with aclosing(wire.events(path, asked)) as events:
        async for event in events:
            for piece in speech.hear(event):
                yield piece
    yield speech.last()


async def generation(wire: Wire, asked: Json, adapter: str | None) -> AsyncGenerator[Piece, None]:
    """An answer whose refusals are told as GenerationFailed, as Engine.generate promises."""
    try:
        async with aclosing(answer(wire, asked)) as pieces:
            async for piece in pieces:
                yield piece
    except Refused as refusal:
        raise refused(wire.url, refusal, adapter) from refusal


async def listened(pieces: AsyncGenerator[Piece, None]) -> None:
    """Hear an answer to its end and forget it: what a load ends with."""
    async with aclosing(pieces):
        async for _ in pieces:
            pass


def refused(url: str, refusal: Refused, adapter: str | None) -> GenerationFailed:
    """What a server that says no to a generation means."""
    if refusal.status == 404 and adapter:
        return not_loaded(url, adapter)
    kind = PromptRefused if refusal.status in (400, 413, 422) else GenerationFailed
    return kind(
        f"The engine at {url} refused: {refusal.message} (HTTP {refusal.status}).", field=refusal.param
    )


def not_loaded(url: str, adapter: str) -> GenerationFailed:
    return GenerationFailed(
        f"adapter: '{adapter}' is not loaded in the engine at {url}. Load it first.",
        field="adapter",
        value=adapter,
    )


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
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
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
