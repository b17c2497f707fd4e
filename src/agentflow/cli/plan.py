"""agentflow plan: what fits, what moves and what it takes, before anything is started."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from agentflow.cli import house
from agentflow.cli.replay import replayed
from agentflow.cli.terminal import out
from agentflow.errors import ConfigError
from agentflow.residency.footprint import RESERVE, UTILISATION, OnGpus
from agentflow.residency.profiles import names, profile
from agentflow.settings import Settings, read_environment
from agentflow.settings.values import octets
from agentflow.wiring import Place
from agentflow.wiring.forecast import Forecast, Level, Machine, forecast
from agentflow.wiring.reach import reached
from agentflow.wiring.spots import Spot

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]
_EVERY_LINEAR = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
_UP = {"bring": "[green]+[/]", "drop": "[red]-[/]"}


def plan(  # noqa: PLR0913, PLR0917 - one parameter per option
    config: Config = None,
    base: Annotated[
        str | None,
        typer.Option("--profile", help=f"A shipped base without its weights: {', '.join(names())}."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=64, help="Reckon with one to so many GPUs.")] = 4,
    gpu_memory: Annotated[str, typer.Option(help="Memory of one GPU.")] = "80GB",
    context: Annotated[int, typer.Option(min=1, help="Tokens of one conversation.")] = 8192,
    look: Annotated[bool, typer.Option("--look", help="Ask the sources of remote adapters.")] = False,
    from_ledger: Annotated[
        bool,
        typer.Option(
            "--from-ledger", help="Replay the recorded turns and advise on tiers, pins and time-outs."
        ),
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="With --from-ledger: so many turns.")] = 20_000,
    picture: Annotated[Path | None, typer.Option(help="With --from-ledger: write the result as SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """What fits, what moves and what it takes. Nothing is started; exit status 1 if it cannot work."""
    place = _place(config, base)
    machine, shipped = Machine(gpus, _size(gpu_memory), context), profile(base) if base else None
    far = {} if shipped else asyncio.run(reached(place, look=look))
    found = forecast(place, machine, shipped, far)
    if from_ledger:
        replayed(place, found, last=last, picture=picture, as_json=as_json)
        return
    if as_json:
        out.print(json.dumps(_plain(found), indent=2), markup=False, highlight=False, soft_wrap=True)
    else:
        _show(found, context)
    if found.mistakes:
        raise ConfigError(f"This plan cannot work: {len(found.mistakes)} mistakes; each names its way out.")


def _place(config: Path | None, base: str | None) -> Place:
    """The configuration; a profile can be looked at without any."""
    environment = read_environment()
    if config is None and base is not None and not environment.config.exists():
        return Place(Settings(), environment, Path.cwd())
    return house.place(config, environment)


def _size(text: str) -> int:
    try:
        return int(octets(text))
    except ValueError as error:
        raise ConfigError(f"--gpu-memory: {error}.", field="gpu_memory", value=text) from error


def _plain(found: Forecast) -> dict[str, object]:
    whole = asdict(found)
    whole["gpus"] = [{**asdict(one), "fits": one.fits} for one in found.gpus]
    return whole


# --- what people see -------------------------------------------------------------------------


def _show(found: Forecast, context: int) -> None:
    out.print(f"[bold]{escape(found.base_name)}[/]")
    out.print(escape(_summary(found)), soft_wrap=True)
    if found.note:
        out.print(escape(found.note), style="dim")
    if found.gpus:
        out.print(_gpu_table(found.gpus, context))
        out.print(
            f"[dim]{UTILISATION:.0%} of each GPU, less {RESERVE / 1e9:.0f} GB for context, graphs and activations "
            "(supposed, not measured)[/]"
        )
    out.print(_adapter_table(found.spots))
    out.print(_tier_table(found.levels))
    _moves(found)
    for text in found.warnings:
        out.print(f"[yellow]warning[/]  {escape(text)}", soft_wrap=True)
    for text in found.mistakes:
        out.print(f"[red]mistake[/]  {escape(text)}", soft_wrap=True)


def _summary(found: Forecast) -> str:
    base = found.base
    if base is None:
        return "its shapes are not at hand"
    slots = f"{found.slots} adapters at once, of their own size: nothing is reserved"
    if found.reserves:
        slots = f"{found.slots} slots of rank {found.max_rank}, {found.slot / 1e6:,.1f} MB each, reserved at the start"
    experts = (
        f" (with experts {found.experts_slot / 1e9:,.1f} GB)" if found.reserves and found.experts_slot else ""
    )
    return (
        f"{_parameters(base.parameters)} parameters, {_bytes(base.octets)} · KV cache "
        f"{base.per_token() / 1024:.0f} KiB per token\n{slots}{experts}"
    )


def _parameters(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 10**8 else f"{count / 1e6:.2f} million"


def _gpu_table(gpus: Sequence[OnGpus], context: int) -> Table:
    grid = _grid(
        f"GPUs of {gpus[0].memory / 1e9:.0f} GB", "split", "weights", "slots", "KV", "tokens", "talks", ""
    )
    for one in gpus:
        mark = "[green]fits[/]" if one.fits else "[red]no[/]"
        kv = _bytes(one.kv) if one.kv > 0 else f"-{_bytes(-one.kv)}"
        split = one.divided if one.gpus > 1 else ""
        grid.add_row(
            str(one.gpus), split, _bytes(one.weights), _bytes(one.slots), kv, f"{one.tokens:,}",
            f"{one.conversations:,.0f}", mark,
        )  # fmt: skip
    grid.caption = f"bytes per GPU; KV cache for all tokens at once; talks of {context:,} tokens"
    grid.caption_justify = "left"
    return grid


def _adapter_table(spots: Sequence[Spot]) -> Table:
    grid = _grid("role", "rests", "warm", "pin", "rank", "size", "cold", "modules")
    for one in spots:
        size = ("" if one.exact else "~") + _bytes(one.octets)
        grid.add_row(
            escape(one.role), one.location, one.warm, one.pin or "", str(one.rank), size, f"{one.cold:.2f} s",
            "[red]cannot be used[/]" if one.trouble else escape(_modules(one.modules)),
        )  # fmt: skip
    return grid


def _modules(modules: Sequence[str]) -> str:
    return "every linear layer" if set(modules) >= _EVERY_LINEAR else ", ".join(modules)


def _tier_table(levels: Sequence[Level]) -> Table:
    grid = _grid("tier", "rests there", "holds")
    for one in levels:
        tell = str if one.tier == "vram" else _bytes
        unit = " slots" if one.tier == "vram" else ""
        grid.add_row(one.tier, tell(one.used), "no limit" if one.limit is None else tell(one.limit) + unit)
    return grid


def _moves(found: Forecast) -> None:
    if not found.moves:
        out.print("Nothing moves at the start.")
    for one in found.moves:
        into = "into" if one.do == "bring" else "out of"
        out.print(f"  {_UP[one.do]} {escape(one.name)} {into} {one.tier} ({one.why})")


def _grid(*headings: str) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        grid.add_column(heading, overflow="fold", no_wrap=heading != "modules")
    return grid


def _bytes(size: float) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size:.0f} B"
