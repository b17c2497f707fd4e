"""Commands whose module is imported when they are called: a start costs what its command needs."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand


def later(app: typer.Typer, name: str, where: str, *, help: str) -> None:  # noqa: A002 - typer's own word
    """Add the command or the group `where` ("module:attribute") under its name; `help` stands in the list."""

    class Called(TyperCommand):
        def whole(self) -> Any:
            """The command itself, imported."""
            module, _, attribute = where.partition(":")
            return _command(getattr(import_module(module), attribute))

        def make_context(
            self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
        ) -> Any:
            return self.whole().make_context(info_name, args, parent, **extra)

    app.command(name, help=help, cls=Called)(_stands_for_it)


def _stands_for_it() -> None:
    """Never called: the context is the other command's."""


def _command(found: Any) -> Any:
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(found)
    return typer.main.get_command(alone)
