"""The confusion matrix for people: as a table of text and as a picture (SVG)."""

import numpy as np

from agentflow.routing.report import Report

CELL, MARGIN = 28, 130
"""Pixels of a cell of the picture, and of the names beside it."""


def table(report: Report, width: int = 12) -> str:
    """The confusion matrix as text: rows are the truth, columns what was said; zeros are dots."""
    names = [*report.roles, "none"]
    head = " " * width + "".join(f" {name[: width - 1]:>{width - 1}}" for name in names)
    lines = [head]
    for name, row in zip(names, report.matrix.tolist(), strict=True):
        cells = "".join(f" {number or '.':>{width - 1}}" for number in row)
        lines.append(f"{name[: width - 1]:<{width}}{cells}")
    return "\n".join(lines)


def picture(report: Report) -> str:
    """The confusion matrix as SVG: rows are the truth; the darker, the larger its share of the row."""
    names = [*report.roles, "none"]
    size = MARGIN + CELL * len(names) + 10
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" font-size="11">'
    parts = [opening, f'<rect width="{size}" height="{size}" fill="#fff"/>']
    for place, name in enumerate(names):
        middle = MARGIN + CELL * place + CELL / 2
        label = _escaped(name[:20])
        parts.append(f'<text x="{MARGIN - 6}" y="{middle + 4}" text-anchor="end">{label}</text>')
        turned = f'transform="rotate(-60 {middle} {MARGIN - 6})"'
        parts.append(f'<text x="{middle}" y="{MARGIN - 6}" {turned}>{label}</text>')
    totals = np.maximum(report.matrix.sum(axis=1), 1).tolist()
    for row, counts in enumerate(report.matrix.tolist()):
        for column, number in enumerate(counts):
            corner = (MARGIN + CELL * column, MARGIN + CELL * row)
            parts.append(_cell(corner, CELL, number, number / totals[row], right=row == column))
    return "\n".join([*parts, "</svg>\n"])


def _cell(corner: tuple[int, int], size: int, number: int, share: float, *, right: bool) -> str:
    """A square, green on the diagonal and red beside it, with its number."""
    x, y = corner
    hue = "34,139,87" if right else "200,60,40"
    place = f'x="{x}" y="{y}" width="{size - 1}" height="{size - 1}"'
    square = f'<rect {place} fill="rgba({hue},{share:.3f})" stroke="#ddd"/>'
    if not number:
        return square
    ink = "#fff" if share > 0.55 else "#222"
    at = f'x="{x + size / 2 - 0.5}" y="{y + size / 2 + 3.5}"'
    return f'{square}<text {at} text-anchor="middle" fill="{ink}">{number}</text>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
