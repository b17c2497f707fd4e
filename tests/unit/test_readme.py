"""What the documents say is so: their configurations load, their commands and links exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from agentflow.cli.commands import app
from agentflow.settings import Environment, inspect
from agentflow.settings.document import parse

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [content for named, content in BLOCK.findall(text) if named == language]


def commands(text: str, program: str) -> list[list[str]]:
    """The words after `program` in shell blocks and inline code, comments left out."""
    shell = [line for block in blocks(text, "sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    found = [re.sub(r"\s#.*", "", line).strip() for line in [*shell, *inline]]
    found = [re.sub(r"^\.venv/bin/", "", line) for line in found]
    return [line.split()[1:] for line in found if re.match(rf"{program} [a-z]", line)]


def every(program: str) -> list[tuple[str, list[str]]]:
    return [(one.name, words) for one in DOCUMENTS for words in commands(one.read_text(), program)]


def command(words: list[str]) -> Any:
    """The command that the words name; fails with the word that it does not know."""
    found: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(found, "commands"):
            break
        assert word in found.commands, f"there is no command {word} in agentflow {' '.join(words)}"
        found = found.commands[word]
        found = found.whole() if hasattr(found, "whole") else found
    return found


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_first_answer_stands_on_the_first_screen() -> None:
    assert '{"output": ' in "\n".join(README.splitlines()[:30])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_configuration_loads(document: Path) -> None:
    nothing = Environment({}, Path("agentflow.yaml"), Path("cache"), None)
    for text in blocks(document.read_text(), "yaml"):
        settings, findings = inspect(parse(text), nothing, folder=ROOT)
        assert (settings is not None, [str(one) for one in findings]) == (True, [])


def test_the_readme_shows_a_configuration() -> None:
    assert len(blocks(README, "yaml")) == 1


@pytest.mark.parametrize(("document", "words"), every("agentflow"))
def test_every_command_exists_with_its_options(document: str, words: list[str]) -> None:
    options = {name for parameter in command(words).params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize(("document", "words"), every("make"))
def test_every_word_of_make_exists(document: str, words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert [word for word in words if not re.search(rf"^{word}:", makefile, re.MULTILINE)] == []


def test_the_words_of_make_are_all_explained() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    explained = re.findall(r"^\| `make ([\w-]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(phony[1].split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_into_the_repository_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    inner = [link.partition("#")[0] for link in links if "://" not in link]
    assert [link for link in inner if not (document.parent / link).exists()] == []


def test_commands_are_found_where_people_read_them() -> None:
    text = "Use `agentflow config check` or:\n```sh\n.venv/bin/agentflow init   # writes\n```\n`make demo`\n"
    assert commands(text, "agentflow") == [["init"], ["config", "check"]]
    assert commands(text, "make") == [["demo"]]


def test_an_unknown_command_is_found_out() -> None:
    with pytest.raises(AssertionError, match="there is no command chek"):
        command(["config", "chek"])
