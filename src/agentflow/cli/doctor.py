"""agentflow doctor: one screen of what is reachable and what would fail."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agentflow.cli.terminal import out, steps
from agentflow.errors import ConfigError
from agentflow.settings import Settings, inspect, read_environment
from agentflow.settings.document import read as read_document
from agentflow.wiring import Place
from agentflow.wiring.checkup import Row, checkup

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "mistake": "[red]mistake[/]"}


def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at everything agentflow needs; say what would fail and what to do. Status 1: something would."""
    rows = asyncio.run(_looked(config))
    mistakes = sum(row.verdict == "mistake" for row in rows)
    if as_json:
        out.print_json(json.dumps({"ok": not mistakes, "rows": [asdict(row) for row in rows]}))
    else:
        out.print(_table(rows))
        out.print(f"{mistakes} would fail" if mistakes else "nothing would fail")
    if mistakes:
        raise typer.Exit(1)


async def _looked(config: Path | None) -> list[Row]:
    environment = read_environment()
    file = config or environment.config
    if config is None and not file.exists():
        rows, place = (
            [Row("configuration", "ok", "no file: the defaults")],
            Place(Settings(), environment, Path.cwd()),
        )
    else:
        rows, found = _file(file)
        if found is None:
            return rows
        place = Place(found, environment, file.resolve().parent, file.resolve())
    with steps("looking") as progress:
        async for row in checkup(place):
            rows.append(row)
            progress(row.what)
    return rows


def _file(file: Path) -> tuple[list[Row], Settings | None]:
    try:
        settings, findings = inspect(read_document(file), read_environment(), folder=file.resolve().parent)
    except ConfigError as error:
        return [Row("configuration", "mistake", error.message)], None
    rows = [Row("configuration", "mistake" if one.serious else "warning", str(one)) for one in findings]
    if settings is None or any(row.verdict == "mistake" for row in rows):
        return rows, None
    return [*rows, Row("configuration", "ok", f"{file}: {len(settings.roles)} roles")], settings


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("verdict", "what", "found"):
        table.add_column(name, overflow="fold", no_wrap=name != "found")
    for row in rows:
        remedy = f"\n→ {row.remedy}" if row.remedy else ""
        table.add_row(MARKS[row.verdict], row.what, escape(row.found + remedy))
    return table
