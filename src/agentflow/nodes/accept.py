"""Accept: the turn is in the ledger before anything else happens."""

from langchain_core.messages import convert_to_messages
from langchain_core.runnables import RunnableConfig

from agentflow.errors import BadInput, Conflict
from agentflow.protocols import Keeper, Lease, Ledger, Request
from agentflow.turn import Accepted, Turn


async def accept(
    turn: Turn, config: RunnableConfig, *, ledger: Ledger, keeper: Keeper, messages: int
) -> Accepted:
    """Take over the turn that a door has accepted, or accept it here when the graph was entered directly.

    Entered directly (LangGraph Studio, another graph), thread and run ids are LangGraph's own. `messages`
    bounds the history. The adapter of a thread that goes on comes nearer at once. Raises BadInput for an empty
    text, Conflict while the thread is busy.
    """
    given = turn.get("lease")
    lease = Lease(**given) if given else await _accepted_here(turn, config, ledger)
    context = await ledger.context(lease.run_id, tenant=lease.tenant, messages=messages)
    if context["role"] is not None:
        keeper.resume(context["role"])
    return {
        "run_id": lease.run_id,
        "thread_id": lease.thread_id,
        "attempt": lease.attempt,
        "tenant": lease.tenant,
        "user": lease.user,
        "context": context,
    }


async def _accepted_here(turn: Turn, config: RunnableConfig, ledger: Ledger) -> Lease:
    text = turn.get("text") or _asked(turn)
    if not text.strip():
        raise BadInput("text is empty; say something.", field="text", value=text)
    outside = config.get("configurable", {})
    request = Request(
        text=text,
        thread_id=outside.get("thread_id"),
        run_id=outside.get("run_id"),
        wanted_role=turn.get("wanted_role"),
    )
    acceptance = await ledger.accept(request)
    lease = acceptance.lease or await ledger.claim(acceptance.record.run_id)
    if lease is None:
        raise Conflict("An earlier turn of this thread is still open; wait for it.", retry_after=1)
    return lease


def _asked(turn: Turn) -> str:
    """The words of the last message of a user."""
    messages = convert_to_messages(turn.get("messages") or [])
    return next((one.text for one in reversed(messages) if one.type == "human"), "")
