"""An order carried out: as a turn of a thread, or by the bare base model. Both speak in pieces."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import uuid_utils
from fastapi import Request

from agentflow import protocols
from agentflow.api import answers
from agentflow.api.keys import Caller, caller
from agentflow.api.openai.models import target
from agentflow.api.openai.order import Order
from agentflow.api.openai.threads import Placed, placed, spoken_for
from agentflow.api.openai.utility import HEADER, is_utility
from agentflow.brief import brief
from agentflow.errors import AgentflowError, BadInput, TooLarge
from agentflow.prompt import ChatMessage
from agentflow.protocols import Piece
from agentflow.routing.select import BASE
from agentflow.runs.feed import Feed
from agentflow.settings import Role
from agentflow.turn import Given, Json
from agentflow.wiring import Services

LONGEST_BARE = 4096


@dataclass(frozen=True)
class Answer:
    """What is being said. `headers` tell who says it; the last of `pieces` has finish and usage."""

    id: str
    model: str
    headers: dict[str, str]
    pieces: AsyncGenerator[Piece]


async def answered(order: Order, request: Request, *, key: str | None) -> Answer:
    """Begin: the message is in the ledger, and the role is chosen, when this returns.

    Raises NotFound, BadInput, Conflict, EngineError, EmbedderError and DatabaseError.
    """
    services: Services = request.app.state.services
    kind = bare_kind(order, request)
    if kind is not None:
        return await _bare(order, services, kind)
    chosen = target(order.model, services.settings)
    who = caller(request).named(spoken_for(order, request.headers, services.settings.openai))
    place = await _place(order, request, who, services, key)
    _checked(place.sent.text, services)
    feed = await services.worker.start(_request(order, place, who, chosen.role, key))
    return await _turn(order, feed, services)


def bare_kind(order: Order, request: Request) -> str | None:
    """What the bare base model is called for; None: it is a turn. Raises NotFound."""
    services: Services = request.app.state.services
    chosen = target(order.model, services.settings)
    chore = request.headers.get(HEADER, "").lower() == "utility" or is_utility(
        order.sent, stream=order.stream, tools=order.may_call
    )
    if chore:
        return "utility"
    return "bare" if chosen.bare else None


async def _place(order: Order, request: Request, who: Caller, services: Services, key: str | None) -> Placed:
    """A repeated request is not placed again: its first time may have changed the thread."""
    if key is not None:
        known = await services.ledger.with_key(key, tenant=who.tenant, user=who.user)
        if known is not None:
            return Placed(known.thread_id, memory=True, sent=order.sent)
    return await placed(
        order,
        request.headers,
        protocols.Owner(who.tenant, who.user),
        conversations=services.conversations,
        settings=services.settings.openai,
    )


def _request(
    order: Order, place: Placed, who: Caller, role: str | None, key: str | None
) -> protocols.Request:
    sent = place.sent
    given: Given = {**order.given, "memory": place.memory}
    if sent.system:
        given["system"] = sent.system
    if sent.before:
        given["history"] = sent.before
    if sent.after:
        given["after"] = sent.after
    return protocols.Request(
        text=sent.text,
        tenant=who.tenant,
        user=who.user,
        thread_id=place.thread_id,
        wanted_role=role,
        idempotency_key=key,
        given=given,
        stands_for=order.digest,
    )


async def _turn(order: Order, feed: Feed, services: Services) -> Answer:
    headers = answers.chosen(feed.run_id, feed.thread_id, await answers.selection(feed))
    return Answer(feed.run_id.replace("-", ""), order.model, headers, _heard(feed, services))


async def _heard(feed: Feed, services: Services) -> AsyncGenerator[Piece, None]:
    """The run's words; a run that was done before says all at once. Who stops listening stops the run."""
    spoke = False
    try:
        async with aclosing(feed.follow()) as events:
            async for event in events:
                piece = _piece(event, spoke=spoke)
                if piece is not None:
                    spoke = True
                    yield piece
                if piece is not None and piece.finish:
                    return
    finally:
        services.worker.left(feed)
    raise feed.error or AgentflowError("The turn ended without a result.")


def _piece(event: Json, *, spoke: bool) -> Piece | None:
    match event["event"]:
        case "token":
            return Piece(event["text"])
        case "tool_calls":
            return Piece("", tool_calls=event["deltas"])
        case "done" if spoke:
            return Piece("", event["finish"], event["usage"])
        case "done":
            calls = [{**one, "index": index} for index, one in enumerate(event.get("tool_calls", []))]
            return Piece(event["output"], event["finish"], event["usage"], calls)
        case _:
            return None


async def _bare(order: Order, services: Services, kind: str) -> Answer:
    """The base model, without role, memory and ledger."""
    if not order.sent.text.strip() and not order.sent.after:
        raise BadInput("There is no message of a user to answer.", field="messages")
    sent = order.sent
    closing: list[ChatMessage] = [{"role": "user", "content": sent.closing}] if sent.closing else []
    after = [*sent.after, *closing] if kind == "utility" else sent.after
    given: Given = {**order.given, "system": sent.system, "history": sent.before, "after": after}
    role = Role(generation={"max_tokens": LONGEST_BARE})
    prompt = brief(sent.text, role=role, able=services.engine.capabilities, given=given)
    pieces = services.engine.generate(prompt, adapter=None)
    headers = {
        "X-Agentflow-Role": BASE,
        "X-Agentflow-Adapter": "none",
        "X-Agentflow-Tier": BASE,
        "X-Agentflow-Kind": kind,
    }
    try:
        first = await anext(pieces, None)
    except BaseException:
        await pieces.aclose()
        raise
    return Answer(uuid_utils.uuid7().hex, order.model, headers, _after(first, pieces))


async def _after(first: Piece | None, rest: AsyncGenerator[Piece]) -> AsyncGenerator[Piece, None]:
    async with aclosing(rest):
        if first is not None:
            yield first
        async for piece in rest:
            yield piece


def _checked(text: str, services: Services) -> None:
    limit = services.settings.server.message_chars
    if len(text) > limit:
        raise TooLarge(
            f"The message has {len(text)} characters; server.message_chars allows {limit}.", field="messages"
        )
