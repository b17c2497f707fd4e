"""What a client ordered, in either of OpenAI's forms, checked and in one shape."""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from agentflow.api.openai.functions import as_tools
from agentflow.api.openai.transcripts import Transcript, from_items, read
from agentflow.errors import BadInput
from agentflow.protocols import Capabilities
from agentflow.turn import Given, Json

MOST_MESSAGES = 1000
STOPS = 16
INT64 = 2**63


def _positive(value: Any) -> Any:
    """Some clients say "no limit" with 0 or -1."""
    return None if isinstance(value, int | float) and not isinstance(value, bool) and value < 1 else value


Limit = Annotated[int | None, BeforeValidator(_positive)]


class Sampled(BaseModel):
    """Fields of both forms. What is unknown is ignored."""

    model: str
    stream: bool | None = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    metadata: Json | None = None
    user: str | None = Field(None, max_length=512)


class ChatBody(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Json] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream_options: Json | None = None
    max_tokens: Limit = None
    max_completion_tokens: Limit = None
    n: int | None = 1
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    response_format: Json | None = None
    functions: list[Json] | None = None
    function_call: str | Json | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ResponsesBody(Sampled):
    """POST /v1/responses."""

    input: str | list[Any] = Field(max_length=10_000_000)
    instructions: str | None = None
    max_output_tokens: Limit = None
    text: Json | None = None
    top_logprobs: int | None = None
    previous_response_id: str | None = None
    conversation: str | Json | None = None


@dataclass(frozen=True)
class Order:
    """One generation that a client wants. `digest` is of the whole body; `thread` and `previous` name a place."""

    model: str
    sent: Transcript
    given: Given
    stream: bool
    user: str | None
    thread: str | None
    previous: str | None
    digest: bytes

    @property
    def may_call(self) -> bool:
        """Whether there are tools to be used at will: one that must be called is the form of the answer."""
        return self.given.get("tool_choice") in ("auto", "required")


def chat_order(body: ChatBody, able: Capabilities) -> Order:
    """Raises BadInput for what this engine, or agentflow, cannot do."""
    if (body.n or 1) != 1:
        raise BadInput(f"n is {body.n}; one answer is given per request.", field="n", value=body.n)
    if body.logprobs or body.top_logprobs:
        raise BadInput("logprobs are not told; leave logprobs and top_logprobs out.", field="logprobs")
    if body.functions and not body.tools:
        older = {"tools": as_tools(body.functions), "tool_choice": body.function_call}
        body = body.model_copy(update=older)
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    limit = body.max_completion_tokens or body.max_tokens
    sampling = {"max_tokens": limit, "seed": body.seed, "stop": tuple(filter(None, stops[:STOPS]))}
    return _order(body, read(body.messages), sampling, body.response_format, able)


def responses_order(body: ResponsesBody, able: Capabilities) -> Order:
    """Raises BadInput for what this engine, or agentflow, cannot do."""
    if isinstance(body.input, list) and len(body.input) > MOST_MESSAGES:
        raise BadInput(f"input has {len(body.input)} items; {MOST_MESSAGES} are read.", field="input")
    if body.top_logprobs:
        raise BadInput("logprobs are not told; leave top_logprobs out.", field="top_logprobs")
    sent = read(from_items(body.input, body.instructions))
    order = _order(body, sent, {"max_tokens": body.max_output_tokens}, _format(body.text), able)
    conversation = body.conversation.get("id") if isinstance(body.conversation, dict) else body.conversation
    thread = order.thread or (str(conversation) if conversation else None)
    previous = None if body.previous_response_id is None else run_of(body.previous_response_id)
    return Order(**{**order.__dict__, "thread": thread, "previous": previous})


def run_of(name: str) -> str:
    """The run behind `resp_...` or `chatcmpl-...`. Raises BadInput."""
    try:
        return str(UUID(name.removeprefix("resp_").removeprefix("chatcmpl-")))
    except ValueError:
        field = "previous_response_id"
        raise BadInput(
            f"{name!r} is no response of ours; they begin with resp_.", field=field, value=name
        ) from None


def _order(body: Sampled, sent: Transcript, sampling: Json, form: Json | None, able: Capabilities) -> Order:
    tools = [_nested(one) for one in body.tools or []]
    choice = _choice(body.tool_choice)
    _able(tools, choice, form, able)
    sampling |= {"temperature": body.temperature, "top_p": body.top_p}
    given: Given = {"sampling": {key: value for key, value in sampling.items() if value is not None}}
    if tools:
        given |= {"tools": tools, "tool_choice": choice or "auto"}
    if form is not None and form.get("type") != "text":
        given["response_format"] = form
    whole = body.model_dump()
    thread = (body.metadata or {}).get("thread_id")
    return Order(
        model=body.model,
        sent=sent,
        given=given,
        stream=bool(body.stream),
        user=(body.user or "").strip() or None,
        thread=str(thread) if thread else None,
        previous=None,
        digest=sha256(json.dumps(whole, sort_keys=True).encode()).digest(),
    )


def _nested(tool: Json) -> Json:
    """A function as chat completions write it; responses write it flat. Raises BadInput for tools that run here."""
    if tool.get("type") != "function":
        kind = tool.get("type")
        raise BadInput(
            f"tools holds one of type {kind!r}; functions are passed on.", field="tools", value=kind
        )
    function = tool.get("function") or {key: tool[key] for key in tool if key != "type"}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadInput("tools holds a function without a name.", field="tools")
    return {"type": "function", "function": function}


def _choice(choice: str | Json | None) -> str | Json | None:
    if isinstance(choice, dict) and "function" not in choice and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    if isinstance(choice, dict) and not isinstance(choice.get("function"), dict):
        raise BadInput("tool_choice is auto, none, required, or names a function.", field="tool_choice")
    return choice


def _format(text: Json | None) -> Json | None:
    """`text.format` of a response as `response_format` of a chat completion."""
    form = (text or {}).get("format")
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return form if isinstance(form, dict) else None
    return {"type": "json_schema", "json_schema": {key: form[key] for key in form if key != "type"}}


def _able(tools: list[Json], choice: str | Json | None, form: Json | None, able: Capabilities) -> None:
    """Tools that may go unused are left out silently; what must be obeyed, and cannot be, is refused."""
    if tools and not able.tools and choice not in (None, "auto", "none"):
        raise BadInput(
            "tool_choice demands a tool, and this engine knows none; use vllm, or tool_choice auto.",
            field="tool_choice",
        )
    if form is not None and form.get("type") not in (None, "text") and not able.structured:
        raise BadInput(
            f"response_format is {form.get('type')}, which this engine cannot hold to; use vllm, or ask in words.",
            field="response_format",
        )
