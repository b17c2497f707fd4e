"""Decisions, reports and suggestions as people see them."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from agentflow.cli.terminal import out
from agentflow.routing.curate import Finding, MarginSetting, Setting
from agentflow.routing.matrix import table
from agentflow.routing.report import Report
from agentflow.turn import Json

COLOURS = {"error": "red", "warning": "yellow", "hint": "cyan"}
READABLE = 20
WORST = 10


def decision(found: Json) -> None:
    """Which role, which rule or figures decided, the alternatives, and the nearest examples."""
    selection, intent = found["selection"], found["intent"]
    out.print(f"[bold magenta]{escape(found['role'] or 'base model')}[/] · {found['reason']}")
    if found["question"]:
        out.print(f"  says: {found['question']}", markup=False)
    told = {key: value for key, value in selection.items() if key not in ("reason", "role", "alternatives")}
    for name, value in told.items():
        out.print(f"  {name}: {value}", markup=False, soft_wrap=True)
    if intent["ranking"]:
        _meaning(intent)


def residency_table(found: Json) -> Table:
    """Every adapter: where it is, who holds it, and what happens next."""
    engine, tiers = found["engine"], found["tiers"]
    state = "ok" if engine["ok"] else f"down: {engine['detail']}"
    title = (
        f"{engine['name']} {state} · VRAM {tiers['vram']['used']}/{tiers['vram']['slots']} slots · "
        f"RAM {_size(tiers['ram']['used'])} of {_size(tiers['ram']['max'])} · disk {_size(tiers['disk']['used'])}"
    )
    grid = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("role", "adapter", "tier", "size", "holds", "last used", "next"):
        grid.add_column(heading, justify="right" if heading in ("size", "holds") else "left")
    for one in found["adapters"]:
        used = "never" if one["idle_seconds"] is None else f"{one['idle_seconds']:.0f} s ago"
        digest = (one["adapter"] or "not fetched").rpartition("@")[2]
        tier = one["tier"] if one["exact"] else f"{one['tier']} (assumed)"
        told = one["next"] if one["error"] is None else f"{one['next']}: {one['error']}"
        cells = (one["role"], digest, tier, _size(one["bytes"]), str(one["holds"]), used, told)
        grid.add_row(*map(escape, cells))
    for role, reason in found["unusable"].items():
        grid.add_row(escape(role), "", "[red]unusable[/]", "", "", "", escape(reason))
    return grid


def _size(octets: int | None) -> str:
    if octets is None:
        return "-"
    return f"{octets / 1e9:.1f} GB" if octets >= 1e9 else f"{octets / 1e6:.1f} MB"


def _meaning(intent: Json) -> None:
    fits = "in scope" if intent["in_scope"] else "out of scope"
    scope, limit = intent["scope_score"], intent["scope_threshold"]
    out.print(f"  {fits}: {scope} (threshold {limit}) · looked at {intent['looked_at']}", markup=False)
    grid = Table(box=None, pad_edge=False, padding=(0, 2))
    for heading in ("  role", "chance", "nearest example"):
        grid.add_column(heading, style="dim" if heading == "nearest example" else None)
    nearest: dict[str | None, str] = {}
    for one in intent["nearest"]:
        nearest.setdefault(one["role"], f"{one['similarity']:.2f} {one['text']}")
    for one in intent["ranking"]:
        grid.add_row(f"  {one['role']}", f"{one['score']:.3f}", escape(nearest.get(one["role"], "")))
    out.print(grid)
    times = " · ".join(f"{name} {intent[name]} ms" for name in ("embed_ms", "decide_ms"))
    out.print(f"  [dim]{times} · router {intent['router']} · calibration {intent['calibration']}[/]")


def report(found: Report) -> None:
    """Figures, the confusion matrix where it fits a screen, and the worst confusions with examples."""
    out.print(f"accuracy {found.accuracy:.3f} · kept by the scope threshold {found.kept:.3f}")
    if found.outside_caught is not None:
        out.print(f"out of scope caught {found.outside_caught:.3f} · AUROC {found.auroc}")
    out.print(f"chances are off by {found.calibration_error:.3f} on average\n")
    if len(found.roles) <= READABLE:
        out.print(table(found), markup=False, soft_wrap=True)
    for one in found.worst[:WORST]:
        out.print(f"\n{one.count} x {one.truth} taken for {one.said}", markup=False)
        for mistake in one.examples:
            out.print(f"   {mistake.chance:.2f}  {mistake.text}", markup=False, soft_wrap=True)


def findings(found: Sequence[Finding]) -> None:
    """One line each, errors first."""
    for one in found:
        out.print(f"[{COLOURS[one.severity]}]{one.severity}[/]  ", end="")
        out.print(f"{one.role or 'out_of_scope'}: {one.message}", markup=False, soft_wrap=True)
    if not found:
        out.print("nothing to suggest: the examples look fine")


def limits(found: Sequence[Setting]) -> None:
    """What each reject_rate would mean."""
    grid = Table("reject_rate", "scope threshold", "kept", "right of those", "out of scope caught", box=None)
    for one in found:
        caught = "-" if one.outside_caught is None else f"{one.outside_caught:.3f}"
        right, kept = f"{one.kept_right:.3f}", f"{one.in_scope_kept:.3f}"
        grid.add_row(f"{one.rate:g}", f"{one.threshold:.3f}", kept, right, caught)
    out.print(grid)


def margins(found: Sequence[MarginSetting]) -> None:
    """What each ask_rate would mean."""
    grid = Table("ask_rate", "margin threshold", "asked", "errors asked about", "right of the rest", box=None)
    for one in found:
        asked, errors = f"{one.asked:.3f}", f"{one.errors_asked:.3f}"
        grid.add_row(f"{one.rate:g}", f"{one.threshold:.3f}", asked, errors, f"{one.rest_right:.3f}")
    out.print(grid)


def waiting(found: Sequence[Json]) -> None:
    """Feedback that nobody has looked at yet."""
    for one in found:
        change = f"{one['said_role'] or 'base'} -> {one['role'] or 'no role'}"
        out.print(f"{one['id']:>6}  {change}: {one['text'][:70]!r}", markup=False, soft_wrap=True)
    out.print("nothing waits" if not found else "agentflow routes review --accept NUMBER | --reject NUMBER")
