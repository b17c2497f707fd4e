"""What people see: progress, turns, complaints."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from agentflow.turn import Json

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


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


def show(event: Json) -> None:
    """One event of a turn, as the demo and the chat print it."""
    match event["event"]:
        case "select":
            role, selection = event["role"] or "base model", event["selection"]
            adapter = f" · {event['adapter']}" if event["adapter"] else ""
            out.print(
                f"  [bold magenta]{escape(role)}[/]{adapter} · {selection['tier']} · {selection['reason']}"
            )
        case "recall" if event["memories"]:
            for one in event["memories"][:3]:
                quote = escape(one["content"][:70])
                line = f'  [cyan]remembers[/] {one["score"]:.2f} {one["speaker"]}: "{quote}"'
                out.print(line.replace("\n", " "), soft_wrap=True)
            out.print("  ", end="")
        case "recall":
            out.print("  ", end="")
        case "token":
            out.print(escape(event["text"]), end="", style="green", soft_wrap=True)
        case "done":
            spent = " · ".join(f"{step} {ms:.0f}" for step, ms in event["timings"].items())
            out.print(f"\n  [dim]{spent} ms[/]\n", soft_wrap=True)
        case "error":
            out.print()
            complain(event["message"])
        case _:
            return
