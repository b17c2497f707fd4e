"""What people see: progress, turns, complaints."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from agentflow.errors import AgentflowError
from agentflow.prompt import Json

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def complain(message: str) -> None:
    """An error as one paragraph on stderr."""
    err.print(f"[red]agentflow:[/red] {escape(message)}", soft_wrap=True)


class Steps:
    """Shows the step that runs: a spinner on a terminal, one line each elsewhere."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def __call__(self, step: str) -> None:
        if self._status is None:
            err.print(f"[dim]{escape(step)} ...[/dim]")
        else:
            self._status.update(f"{escape(step)} ...")


@contextmanager
def steps(first: str) -> Iterator[Steps]:
    """Progress of something that may take over a second."""
    if not err.is_terminal:
        yield Steps(None)
        return
    with err.status(f"{first} ...") as status:
        yield Steps(status)


class Screen:
    """Prints the events of turns as they come: the decision, memories, tokens, and the time of each step."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    def show(self, event: Json) -> None:
        """Print one event. Raises AgentflowError for an `error`, so that it is told once."""
        kind = event["event"]
        if "ms" in event:
            self._spent[kind] = event["ms"]
        match kind:
            case "select":
                self._decision(event)
            case "recall":
                self._memories(event["memories"])
            case "token":
                out.print(escape(event["text"]), end="", style="green", soft_wrap=True)
            case "done":
                out.print()
            case "remember":
                spent = " · ".join(f"{step} {ms:.0f}" for step, ms in self._spent.items())
                out.print(f"  [dim]{spent} ms[/]\n", soft_wrap=True)
                self._spent.clear()
            case "error":
                out.print()
                raise AgentflowError(event["message"])
            case _:
                return

    def _decision(self, event: Json) -> None:
        role, selection = event["role"] or "base model", event["selection"]
        adapter = f" · {event['adapter']}" if event["adapter"] else ""
        line = f"  [bold magenta]{escape(role)}[/]{adapter} · {selection['tier']} · {selection['reason']}"
        out.print(line, soft_wrap=True)

    def _memories(self, memories: list[Json]) -> None:
        for one in memories[:3]:
            quote = escape(" ".join(one["content"].split())[:70])
            out.print(f'  [cyan]remembers[/] {one["score"]:.2f} {one["speaker"]}: "{quote}"', soft_wrap=True)
        out.print("  ", end="")
