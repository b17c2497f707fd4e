"""docs/structure.md names what there is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "agentflow"


def modules() -> set[str]:
    files = (path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.name != "__init__.py")
    names = (path.relative_to(SOURCE).as_posix() for path in files)
    return {name.removesuffix("__init__.py") for name in names}


def named() -> list[str]:
    return re.findall(r"^- `([\w/.]+)` \S", (ROOT / "docs" / "structure.md").read_text(), re.MULTILINE)


def test_every_module_has_its_line_and_every_line_its_module() -> None:
    assert (modules() - set(named()), set(named()) - modules()) == (set(), set())


def test_no_module_has_two_lines() -> None:
    assert len(named()) == len(set(named()))


def test_a_turn_takes_eight_lines() -> None:
    lines = (ROOT / "docs" / "structure.md").read_text().splitlines()
    assert [line[:2] for line in lines if line[:1].isdigit()] == [f"{number}." for number in range(1, 9)]
