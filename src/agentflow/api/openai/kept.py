"""Responses that were given before: looked at again, their input, and forgotten. The ledger keeps them as turns."""

from fastapi import APIRouter, Request

from agentflow.api.bodies import DoorRoute
from agentflow.api.keys import caller
from agentflow.api.memory import forgotten
from agentflow.api.openai.order import ResponsesBody, run_of
from agentflow.api.openai.response_events import finished, opened
from agentflow.errors import BadInput, Conflict, NotFound
from agentflow.protocols import Owner, Piece, RunRecord, Said
from agentflow.records.conversations import Kept
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.rights import Owner as Rightful
from agentflow.routing.select import BASE, MODEL
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)
STATUS = {"queued": "queued", "running": "in_progress", "failed": "failed", "cancelled": "cancelled"}


@router.get("/responses/{response_id}", summary="A response that was given before")
async def again(response_id: str, request: Request, *, stream: bool = False) -> Json:
    """As the ledger has it: who answered is its `model`. Raises NotFound, and BadInput for a stream."""
    if stream:
        raise BadInput("A response is streamed while it is given; ask for it without stream.", field="stream")
    return _shown(await _record(response_id, request))


@router.get("/responses/{response_id}/input_items", summary="What a response answered")
async def asked(response_id: str, request: Request) -> Json:
    """The user's message; what came before it was input of earlier responses. Raises NotFound."""
    services: Services = request.app.state.services
    record, who = await _record(response_id, request), caller(request)
    kept = await _kept(record, services, Owner(who.tenant, who.user))
    name = f"msg_{_id(record)}_input"
    content = [{"type": "input_text", "text": kept.asked}]
    item = {"id": name, "type": "message", "role": "user", "status": "completed", "content": content}
    return {"object": "list", "data": [item], "first_id": name, "last_id": name, "has_more": False}


@router.delete("/responses/{response_id}", summary="Forget a response")
async def forget(response_id: str, request: Request) -> Json:
    """Its words and what was remembered of them; with the thread where it is the only turn of one.

    Raises NotFound, and Conflict for a turn in the middle of a thread of which nothing was remembered.
    """
    services: Services = request.app.state.services
    record, who = await _record(response_id, request), caller(request)
    kept = await _kept(record, services, Owner(who.tenant, who.user))
    if not kept.alone and not kept.memories:
        message = (
            f"Nothing was remembered of this turn; DELETE /threads/{record.thread_id} forgets its words."
        )
        raise Conflict(message, field="response_id", value=response_id)
    chosen = Selector("thread", record.thread_id) if kept.alone else Selector("ids", kept.memories)
    await forgotten(services, Rightful(who.tenant, who.user), chosen, preview=False)
    return {"id": f"resp_{_id(record)}", "object": "response", "deleted": True}


async def _record(response_id: str, request: Request) -> RunRecord:
    services: Services = request.app.state.services
    who = caller(request)
    try:
        return await services.ledger.find(run_of(response_id), tenant=who.tenant, user=who.user)
    except (BadInput, NotFound):
        message = f"There is no response {response_id[:80]!r}."
        raise NotFound(message, field="response_id", value=response_id) from None


async def _kept(record: RunRecord, services: Services, owner: Owner) -> Kept:
    kept = await services.conversations.kept(record.run_id, owner)
    if kept is None:
        raise NotFound(f"There is no response {record.run_id}.", field="response_id", value=record.run_id)
    return kept


def _shown(record: RunRecord) -> Json:
    result = record.result or {}
    model = f"{MODEL}/{result.get('role') or BASE}" if result else MODEL
    begun = opened(_id(record), ResponsesBody(model=model, input=""), int(record.started_at.timestamp()))
    if record.status == "done":
        said = Said()
        calls = [{**one, "index": place} for place, one in enumerate(result.get("tool_calls") or [])]
        said.hear(Piece(result["output"], result["finish"], result["usage"], calls))
        return finished(begun, said)
    reason = record.error
    failure = None if reason is None else {"code": "server_error", "message": reason["message"]}
    return {**begun, "status": STATUS[record.status], "error": failure}


def _id(record: RunRecord) -> str:
    return record.run_id.replace("-", "")
