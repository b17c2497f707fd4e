"""A response as an object, and as the events that build it up."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from agentflow.api.openai.answering import Answer
from agentflow.api.openai.errors import in_stream
from agentflow.api.openai.order import ResponsesBody
from agentflow.errors import AgentflowError
from agentflow.protocols import Said
from agentflow.turn import Json, Usage


def opened(name: str, body: ResponsesBody, created: int) -> Json:
    """The response before its first word; `name` is the run's id."""
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": body.temperature,
        "text": body.text or {"format": {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }


def finished(begun: Json, said: Said) -> Json:
    """The response once all is said."""
    name = begun["id"].removeprefix("resp_")
    items = [_call(name, index, call, "completed") for index, call in enumerate(said.calls())]
    text = "".join(said.texts)
    if text or not items:
        items.insert(0, _message(name, "completed", [_text(text)]))
    cut = said.finish == "length"
    return {
        **begun,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": items,
        "usage": _usage(said.usage),
    }


async def events(answer: Answer, begun: Json) -> AsyncGenerator[str, None]:
    """The whole stream: created, items and their parts as they grow, completed (or incomplete, or failed)."""
    told = _Told(answer.id)
    yield told.frame("response.created", response=begun)
    yield told.frame("response.in_progress", response=begun)
    async with aclosing(answer.pieces) as pieces:
        try:
            async for piece in pieces:
                for frame in told.heard(piece.text, piece.tool_calls):
                    yield frame
                told.said.hear(piece)
        except AgentflowError as error:
            reason = in_stream(error)["error"]
            failure = {"code": reason["code"], "message": reason["message"]}
            yield told.frame("response.failed", response={**begun, "status": "failed", "error": failure})
            return
    for frame in told.ended():
        yield frame
    whole = finished(begun, told.said)
    yield told.frame(f"response.{whole['status']}", response=whole)


@dataclass
class _Told:
    """What the stream has said so far. Items: the message first, if there is text, then the calls."""

    name: str
    said: Said = field(default_factory=Said)
    count: int = 0
    speaking: bool = False
    calls: dict[int, int] = field(default_factory=dict)

    def frame(self, kind: str, **fields: Any) -> str:
        data = {"type": kind, "sequence_number": self.count, **fields}
        self.count += 1
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"

    def heard(self, text: str, deltas: Any) -> Iterator[str]:
        """Frames for one piece."""
        if text:
            if not self.speaking:
                yield from self._message_begins()
            yield self.frame("response.output_text.delta", **self._part(), delta=text, logprobs=[])
        for delta in deltas:
            yield from self._call_grows(delta)

    def ended(self) -> Iterator[str]:
        """Frames that close what is open; an answer without a word is still a message."""
        if not self.speaking and not self.calls:
            yield from self._message_begins()
        if self.speaking:
            text = "".join(self.said.texts)
            yield self.frame("response.output_text.done", **self._part(), text=text, logprobs=[])
            yield self.frame("response.content_part.done", **self._part(), part=_text(text))
            item = _message(self.name, "completed", [_text(text)])
            yield self.frame("response.output_item.done", output_index=0, item=item)
        for index, call in enumerate(self.said.calls()):
            item = _call(self.name, index, call, "completed")
            place = {"item_id": item["id"], "output_index": index + self.speaking}
            yield self.frame(
                "response.function_call_arguments.done",
                **place,
                name=item["name"],
                arguments=item["arguments"],
            )
            yield self.frame("response.output_item.done", output_index=place["output_index"], item=item)

    def _message_begins(self) -> Iterator[str]:
        self.speaking = True
        item = _message(self.name, "in_progress", [])
        yield self.frame("response.output_item.added", output_index=0, item=item)
        yield self.frame("response.content_part.added", **self._part(), part=_text(""))

    def _call_grows(self, delta: Json) -> Iterator[str]:
        index, function = delta.get("index", 0), delta.get("function") or {}
        place = {"item_id": f"fc_{self.name}_{index}", "output_index": index + self.speaking}
        if index not in self.calls:
            self.calls[index] = index
            call = {"id": delta.get("id"), "function": {"name": function.get("name"), "arguments": ""}}
            item = _call(self.name, index, call, "in_progress")
            yield self.frame("response.output_item.added", output_index=place["output_index"], item=item)
        if function.get("arguments"):
            yield self.frame("response.function_call_arguments.delta", **place, delta=function["arguments"])

    def _part(self) -> Json:
        return {"item_id": f"msg_{self.name}", "output_index": 0, "content_index": 0}


def _message(name: str, status: str, content: list[Json]) -> Json:
    return {"id": f"msg_{name}", "type": "message", "status": status, "role": "assistant", "content": content}


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(name: str, index: int, call: Json, status: str) -> Json:
    return {
        "id": f"fc_{name}_{index}",
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        **call["function"],
    }


def _usage(spent: Usage | None) -> Json:
    asked, said = (spent["prompt_tokens"], spent["completion_tokens"]) if spent else (0, 0)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + said,
    }
