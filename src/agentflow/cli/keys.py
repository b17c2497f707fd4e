"""agentflow keys: who may use this server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from agentflow.cli import house
from agentflow.cli.terminal import err, out, steps
from agentflow.errors import BadInput
from agentflow.records.keys import SCOPES, Keys
from agentflow.settings.values import seconds
from agentflow.wiring.storage import storage

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]
Name = Annotated[str, typer.Argument(help="What the key is for, such as laptop or n8n.")]
Tenant = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Whose key: a whole number.")]
Whose = Annotated[int | None, typer.Option(help="Whose key, where several tenants have one of that name.")]

LONGEST_NAME = 512
LONGEST = 100 * 365 * 86400.0

keys_app = typer.Typer(help="API keys: make, list, rotate, disable.", no_args_is_help=True)


@keys_app.command()
def create(
    name: Name,
    config: Config = None,
    tenant: Tenant = 0,
    user: Annotated[str, typer.Option(help="The user that the key speaks for.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"May be given several times: {', '.join(SCOPES)}. Default: chat, threads, memory."
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="For how long it is good, such as 90d.")] = None,
) -> None:
    """Make a key and print it. It is shown this once; the database holds its sha256 only."""
    scopes = _scopes(scope)
    good_for = None if expires is None else _duration(expires)
    _named(name=name, user=user)
    key = _on_keys(
        config, lambda keys: keys.create(name, tenant=tenant, user=user, scopes=scopes, seconds=good_for)
    )
    _show(key)


@keys_app.command(name="list")
def listed(config: Config = None) -> None:
    """Every key: whose, what it may do, when it was used last."""
    table = Table("name", "tenant", "user", "scopes", "status", "expires", "last used")
    for one in _on_keys(config, lambda keys: keys.listed()):
        table.add_row(
            one["name"],
            str(one["tenant"]),
            one["user"],
            " ".join(one["scopes"]),
            one["status"],
            one["expires_at"] or "never",
            one["last_used_at"] or "never",
        )
    out.print(table)


@keys_app.command()
def rotate(
    name: Name,
    config: Config = None,
    tenant: Whose = None,
    grace: Annotated[str, typer.Option(help="For how long the former key still works, such as 1h.")] = "0s",
) -> None:
    """A new key with the same rights, good for as long; the former one ends."""
    former = _duration(grace)
    _show(_on_keys(config, lambda keys: keys.rotate(name, tenant=tenant, grace=former)))


@keys_app.command()
def disable(name: Name, config: Config = None, tenant: Whose = None) -> None:
    """The key opens nothing any more; servers that run know within seconds."""
    _on_keys(config, lambda keys: keys.disable(name, tenant=tenant))
    out.print(f"the key {name} is disabled", markup=False)


def _on_keys(config: Path | None, work: Callable[[Keys], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        with steps("opening the database") as progress:
            async with storage(house.place(config), progress) as connections:
                return await work(Keys(connections))

    return asyncio.run(run())


def _show(key: str) -> None:
    """The key alone on stdout, so that a script can take it."""
    out.print(key, markup=False, soft_wrap=True)
    err.print("Keep it now: it is not shown again.")


def _scopes(given: list[str] | None) -> list[str]:
    wrong = [one for one in given or () if one not in SCOPES]
    if wrong:
        raise BadInput(
            f"There is no scope {wrong[0]!r}; choose of {', '.join(SCOPES)}.", field="scope", value=wrong[0]
        )
    return given or ["chat", "threads", "memory"]


def _named(**given: str) -> None:
    for field, value in given.items():
        if not value.strip() or len(value) > LONGEST_NAME:
            raise BadInput(f"The {field} of a key has 1 to {LONGEST_NAME} characters.", field=field)


def _duration(text: str) -> float:
    try:
        found = float(seconds(text))
    except ValueError as error:
        raise BadInput(f"{error}.", field="duration", value=text) from error
    if found > LONGEST:
        raise BadInput(
            f"{text!r} is over a hundred years; leave it out for a key that does not end.", field="duration"
        )
    return found
