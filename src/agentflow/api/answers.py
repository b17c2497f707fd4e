"""The headers of every door that say who answered, and why."""

from contextlib import aclosing

from agentflow.errors import AgentflowError
from agentflow.routing.select import BASE
from agentflow.runs.feed import Feed
from agentflow.turn import Json


def headers(result: Json) -> dict[str, str]:
    """Of a finished turn."""
    return {
        **speaker(result["run_id"], result["thread_id"], result),
        "X-Agentflow-Tier": result["tier"],
        "X-Agentflow-Reason": result["reason"],
        "X-Agentflow-Decision": _decision(result),
    }


def chosen(run_id: str, thread_id: str, event: Json) -> dict[str, str]:
    """Of a turn whose role is chosen: `event` is its "select", or the "done" of an earlier answer."""
    tier = event["tier"] if event["event"] == "done" else event["selection"]["tier"]
    return {**speaker(run_id, thread_id, event), "X-Agentflow-Tier": tier}


def speaker(run_id: str, thread_id: str, told: Json) -> dict[str, str]:
    """Run, thread, role and adapter; and what was done because the role's adapter was too cold."""
    cold = told["selection"].get("cold")
    without = "none (cold)" if cold is not None and cold["do"] == "base" else "none"
    wait = (
        {}
        if cold is None
        else {"X-Agentflow-Cold": f"{cold['do']}; role={cold['role']}; eta={cold['eta']:g}"}
    )
    return {
        **wait,
        "X-Agentflow-Run": run_id,
        "X-Agentflow-Thread": thread_id,
        "X-Agentflow-Role": told["role"] or BASE,
        "X-Agentflow-Adapter": told["adapter"] or without,
        "X-Agentflow-Kind": "turn",
    }


def of_run(feed: Feed) -> dict[str, str]:
    """Of a run of the LangGraph protocol, as far as is known of it here: a turn of ours also says who answered."""
    named = {"X-Agentflow-Run": feed.run_id, "X-Agentflow-Thread": feed.thread_id}
    meter = feed.meter
    if meter is None or meter.tier == "none":
        return named
    said = {"Role": meter.role, "Adapter": meter.adapter, "Tier": meter.tier, "Kind": "turn"}
    return {**named, **{f"X-Agentflow-{name}": value for name, value in said.items()}}


async def selection(feed: Feed) -> Json:
    """The event that says who answers; of an earlier answer its end. Raises what ended the run before."""
    async with aclosing(feed.follow()) as events:
        async for event in events:
            if event["event"] in ("select", "done"):
                return event
    raise feed.error or AgentflowError("The turn ended without a result.")


def _decision(result: Json) -> str:
    """The turn under whose id the decision is stored, and the figures that decided, where meaning did."""
    intent = result["intent"]
    figures = ("router", "confidence", "margin", "margin_threshold", "scope_score", "scope_threshold")
    shown = [f"{name}={intent[name]}" for name in figures if intent.get(name) is not None]
    return "; ".join([result["run_id"], *shown])
