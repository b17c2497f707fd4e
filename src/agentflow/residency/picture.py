"""Advice as a picture: bars of the milliseconds that each set-up adds, as an SVG text. Pure."""

from xml.sax.saxutils import escape

from agentflow.residency.advice import Advice, Line

WIDTH, LEFT, ROW, TOP = 720, 190, 44, 64
LONGEST = WIDTH - LEFT - 190
COLOURS = {"advised": "#2f7d4f", "optimum": "#9aa5b1"}
OTHERS = "#4a6fa5"


def bars(advice: Advice) -> str:
    """One bar per line of the advice, with its mean, its 99th percentile and its share of the optimum."""
    longest = max((line.outcome.mean for line in advice.lines), default=0.0) or 1.0
    height = TOP + ROW * len(advice.lines) + 16
    rows = "\n".join(_bar(place, line, longest) for place, line in enumerate(advice.lines))
    title = f"{advice.visits:,} turns replayed: milliseconds added before an answer can begin"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="16" y="30" font-size="15" font-weight="600">{escape(title)}</text>\n{rows}\n</svg>\n'
    )


def _bar(place: int, line: Line, longest: float) -> str:
    top = TOP + place * ROW
    width = max(1.0, LONGEST * line.outcome.mean / longest)
    told = f"{line.outcome.mean:,.1f} ms, p99 {line.outcome.p99:,.0f}, {line.share:.0%} of the optimum"
    return (
        f'<text x="{LEFT - 10}" y="{top + 18}" text-anchor="end">{escape(line.name)}</text>\n'
        f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="26" rx="3" '
        f'fill="{COLOURS.get(line.name, OTHERS)}"/>\n'
        f'<text x="{LEFT}" y="{top + 39}" font-size="11" fill="#55606e">{escape(told)}</text>'
    )
