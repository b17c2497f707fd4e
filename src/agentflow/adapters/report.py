"""Everything that validation knows of one adapter folder, as rows for people; `check` in slow motion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from agentflow.adapters.config import CONFIG, check_config, read_config
from agentflow.adapters.folder import check_no_code, check_root, check_size, digest, files, pickles
from agentflow.adapters.header import Header, read_header
from agentflow.adapters.shapes import BaseShape
from agentflow.adapters.tensors import check_tensors, check_values
from agentflow.errors import InvalidAdapter

Verdict = Literal["ok", "warning", "mistake", "unknown"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Row:
    """One question and its answer. `unknown`: an earlier mistake, or no base at hand, left it open."""

    what: str
    verdict: Verdict
    found: str


@dataclass(frozen=True)
class Expected:
    """What an adapter is judged by. `base` None: the base model's shapes are not at hand."""

    base: BaseShape | None
    base_name: str
    max_rank: int
    roots: Sequence[Path] = ()


def examine(folder: Path, expected: Expected) -> list[Row]:
    """Every question in the order in which they are asked; one mistake does not hide those after it."""
    report = _Report(folder, expected)
    found = report.ask("files", lambda: files(folder), lambda one: " and ".join(path.name for path in one))
    report.ask("roots", report.roots, str)
    report.ask("no code", lambda: check_no_code(folder), lambda _none: "none beside the weights")
    report.beside()
    config = report.ask("configuration", lambda: read_config(found[0]), _kind) if found else None
    report.configuration(config)
    report.weights(found[1] if found else None, config)
    report.ask("digest", lambda: digest(folder), lambda one: one[:12]) if found else report.open("digest")
    return report.rows


@dataclass
class _Report:
    folder: Path
    expected: Expected
    rows: list[Row] = field(default_factory=list)

    def ask(self, what: str, look: Callable[[], Found], tell: Callable[[Found], str]) -> Found | None:
        try:
            found = look()
        except InvalidAdapter as error:
            self.rows.append(Row(what, "mistake", error.message))
            return None
        except OSError as error:
            self.rows.append(Row(what, "mistake", f"cannot be read ({error})"))
            return None
        self.rows.append(Row(what, "ok", tell(found)))
        return found

    def open(self, *questions: str, why: str = "not looked at: see above") -> None:
        self.rows += [Row(what, "unknown", why) for what in questions]

    def roots(self) -> str:
        check_root(self.folder, self.folder.resolve(), self.expected.roots)
        return "inside the allowed folders" if self.expected.roots else "any folder is allowed (model.roots)"

    def beside(self) -> None:
        """Pickles beside good weights are what trainers leave behind; nobody opens them."""
        left = pickles(self.folder) if self.folder.is_dir() else []
        verdict: Verdict = "warning" if left else "ok"
        told = f"{', '.join(left[:3])}: never opened, better removed" if left else "none"
        self.rows.append(Row("pickles", verdict, told))

    def configuration(self, config: dict[str, Any] | None) -> None:
        if config is None:
            self.open("settings and rank", "base model")
            return
        limit = self.expected.max_rank
        self.ask(
            "settings and rank", lambda: check_config(config, limit), lambda rank: _rank(config, rank, limit)
        )
        name, wanted = str(config.get("base_model_name_or_path") or ""), self.expected.base_name
        same = name.rstrip("/").rpartition("/")[2].lower() == wanted.rstrip("/").rpartition("/")[2].lower()
        told = name if same else f"{name or 'none'} is named, model.base is {wanted}: the shapes decide"
        self.rows.append(Row("base model", "ok" if same else "warning", told))

    def weights(self, path: Path | None, config: dict[str, Any] | None) -> None:
        header = self.ask("header", lambda: _header(path), _contents) if path else None
        if header is None or path is None:
            self.open(*(() if path else ("header",)), "matrices", "base's shapes", "values")
            return
        if config is None or not _has_ranks(config):
            self.open("matrices", "base's shapes")
        else:
            self._matrices(header, config)
        self.ask("values", lambda: _values(path, header), lambda _none: "finite, and not all zero")

    def _matrices(self, header: Header, config: dict[str, Any]) -> None:
        found = self.ask(
            "matrices",
            lambda: check_tensors(header.tensors, config, None),
            lambda facts: f"{facts.dtype} for {', '.join(facts.modules)}",
        )
        base = self.expected.base
        if found is None:
            self.open("base's shapes")
        elif base is None:
            self.open("base's shapes", why="the base's config.json is not at hand: the engine will judge")
        else:
            self.ask(
                "base's shapes",
                lambda: check_tensors(header.tensors, config, base),
                lambda _facts: f"fit its {base.layers} layers",
            )


def _has_ranks(config: dict[str, Any]) -> bool:
    pattern = config.get("rank_pattern") or {}
    return isinstance(pattern, dict) and all(
        type(rank) is int for rank in (config.get("r"), *pattern.values())
    )


def _kind(config: dict[str, Any]) -> str:
    return f"{CONFIG} of PEFT {config.get('peft_version', '(version not named)')}"


def _rank(config: dict[str, Any], rank: int, limit: int) -> str:
    return f"plain LoRA, rank {rank} of at most {limit}, alpha {config['lora_alpha']:g}"


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)
    check_size(header)
    return header


def _contents(header: Header) -> str:
    return f"{len(header.tensors)} tensors, {header.octets / 1e6:,.1f} MB"


def _values(path: Path, header: Header) -> None:
    with path.open("rb") as file:
        check_values(file, header)
