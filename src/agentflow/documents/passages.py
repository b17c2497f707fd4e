"""A file's text as passages that know where they stand: heading, page or line.

The name's ending says how to read a file, never what a request claims it to be. PDF, DOCX and HTML need the extra
`documents`; libraries are imported when a file needs them.
"""

import csv
import io
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import PurePath

from agentflow.documents.encodings import foreign, unicode
from agentflow.errors import BadInput, StartError

ROWS = 20  # of a table in one passage, each with its column names
CODE = {
    ".c": "c", ".cc": "cpp", ".cjs": "js", ".cpp": "cpp", ".cs": "csharp", ".ex": "elixir", ".go": "go", ".h": "c",
    ".hpp": "cpp", ".hs": "haskell", ".java": "java", ".js": "js", ".jsx": "js", ".kt": "kotlin", ".lua": "lua",
    ".mjs": "js", ".mts": "ts", ".php": "php", ".pl": "perl", ".proto": "proto", ".ps1": "powershell", ".py": "python",
    ".r": "r", ".rb": "ruby", ".rs": "rust", ".scala": "scala", ".sol": "sol", ".swift": "swift", ".tex": "latex",
    ".ts": "ts", ".tsx": "ts",
}  # fmt: skip
TEXT = (
    ".adoc", ".bash", ".bat", ".bib", ".cfg", ".clj", ".conf", ".css", ".dart", ".diff", ".erl", ".gradle", ".graphql",
    ".groovy", ".ini", ".jl", ".json", ".jsonl", ".less", ".log", ".org", ".patch", ".properties", ".rst", ".scss",
    ".sh", ".sql", ".srt", ".svelte", ".text", ".tf", ".toml", ".txt", ".vtt", ".vue", ".xml", ".yaml", ".yml", ".zig",
    ".zsh", "",
)  # fmt: skip
UNPACKED = 64 * 1024**2
"""Bytes of text that a Word file may unpack to: parsers take ten times as much."""
ABOVE = " > "
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_UNDERLINE = re.compile(r"^ {0,3}(=+|-{2,})\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_BESIDE = 'nav, aside, footer, form, button, dialog, body > header, [role="navigation"], [hidden], [aria-hidden="true"]'


@dataclass(frozen=True)
class Passage:
    """A piece of a file. `line` is that of its first line, from 1; `language` is set for code."""

    text: str
    heading: str = ""
    page: int | None = None
    line: int | None = None
    language: str | None = None


def passages(name: str, data: bytes) -> list[Passage]:
    """The passages of a file. Raises BadInput for one that cannot be read, StartError without the extra."""
    ending = PurePath(name).suffix.lower()
    if ending in CODE:
        return [Passage(_decoded(name, data), line=1, language=CODE[ending])]
    if ending in TEXT:
        return [Passage(_decoded(name, data), line=1)]
    if ending not in READERS:
        known = ", ".join(sorted(one for one in (*READERS, *CODE, *TEXT) if one))
        raise BadInput(f"{name} is of no kind that can be read; kinds: {known}.", field="file", value=name)
    found = list(READERS[ending](name, data))
    return [one for one in found if one.text.strip()] or [_heading(one) for one in found if one.heading]


def _heading(passage: Passage) -> Passage:
    """Of a document that has nothing else, the heading is the text."""
    above, _, own = passage.heading.rpartition(ABOVE)
    line = None if passage.line is None else passage.line - 1
    return replace(passage, text=own, heading=above, line=line)


def _decoded(name: str, data: bytes) -> str:
    text = unicode(data)
    if text is None:
        text = foreign(data)
    if text is None:
        raise BadInput(f"{name} is not text in UTF-8; save it as UTF-8.", field="file", value=name)
    return text


def _markdown(name: str, data: bytes) -> Iterator[Passage]:
    return _sections(_decoded(name, data), lines=True)


def _sections(text: str, *, lines: bool) -> Iterator[Passage]:
    """A passage per heading; `heading` is the path of headings above it. Headings within code are none."""
    path: list[tuple[int, str]] = []
    begun, kept, fence = 1, list[str](), ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _fence(line, fence)
        found = None if fence else _title(line, kept)
        if found:
            yield Passage("\n".join(kept), _path(path), line=begun if lines else None)
            path = [one for one in path if one[0] < found[0]] + [found]
            begun, kept = number + 1, []
        else:
            kept.append(line)
    yield Passage("\n".join(kept), _path(path), line=begun if lines else None)


def _fence(line: str, open_: str) -> str:
    """The fence of the code that the line is in: only its own kind ends it."""
    found = _FENCE.match(line)
    if found is None:
        return open_
    return "" if found[1] == open_ else open_ or found[1]


def _title(line: str, above: list[str]) -> tuple[int, str] | None:
    """Level and text of a heading that ends with this line. One that is underlined is taken from the lines above."""
    found = _HEADING.match(line)
    if found:
        return len(found[1]), found[2]
    under = _UNDERLINE.match(line)
    alone = above and above[-1][:1].isalnum() and (len(above) == 1 or not above[-2].strip())
    return (1 if under[1][0] == "=" else 2, above.pop().strip()) if under and alone else None


def _path(path: list[tuple[int, str]]) -> str:
    return ABOVE.join(heading for _, heading in path)


def _html(name: str, data: bytes) -> Iterator[Passage]:
    try:
        from bs4 import BeautifulSoup  # noqa: PLC0415 - an extra
        from markdownify import MarkdownConverter  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(name) from error
    soup = BeautifulSoup(data, "html.parser")
    for unseen in soup(["script", "style", "template", "noscript", "head"]):
        unseen.decompose()
    told = soup.select_one('main, [role="main"]') or soup
    for beside in told.select(_BESIDE):
        beside.decompose()
    return _sections(
        MarkdownConverter(heading_style="ATX", escape_misc=False).convert_soup(told), lines=False
    )


def _docx(name: str, data: bytes) -> Iterator[Passage]:
    try:
        import mammoth  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing(name) from error
    if zipfile.is_zipfile(io.BytesIO(data)):
        unpacked = sum(
            one.file_size for one in zipfile.ZipFile(io.BytesIO(data)).infolist() if ".xml" in one.filename
        )
        if unpacked > UNPACKED:
            told = f"{name} unpacks to {unpacked >> 20} MiB of text, more than {UNPACKED >> 20}; split it."
            raise BadInput(told, field="file", value=name)
    # No picture is taken along, and no file that the document points to is opened.
    no_picture = mammoth.images.img_element(lambda _image: {"src": ""})
    return _html(name, mammoth.convert_to_html(io.BytesIO(data), convert_image=no_picture).value.encode())


def _pdf(name: str, data: bytes) -> Iterator[Passage]:
    try:
        import pypdf  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing(name) from error
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise BadInput(f"{name} is locked with a password; save it without one.", field="file", value=name)
    for number, page in enumerate(reader.pages, start=1):
        yield Passage(page.extract_text(), page=number)


def _table(name: str, data: bytes) -> Iterator[Passage]:
    """Every row names its columns, so that a chunk is understood without the first line."""
    csv.field_size_limit(sys.maxsize)
    text = _decoded(name, data)
    rows = csv.reader(io.StringIO(text), delimiter=_delimiter(text.partition("\n")[0]))
    columns = next(rows, [])
    kept, begun = list[str](), 2
    for row in rows:
        named = zip_longest(columns, row[: len(columns)], fillvalue="")
        cells = [f"{column}: {cell}" for column, cell in named if cell.strip()]
        kept.append("; ".join(cells + [cell for cell in row[len(columns) :] if cell.strip()]))
        if len(kept) == ROWS:
            yield Passage("\n".join(kept), line=begun)
            kept, begun = [], rows.line_num + 1
    yield Passage("\n".join(kept), line=begun)


def _delimiter(columns: str) -> str:
    """What stands between the columns' names most often; a comma where nothing does."""
    return max(",;\t|", key=columns.count)


def _missing(name: str) -> StartError:
    return StartError(
        f"{name} needs the extra `documents`: pip install 'agentflow[documents]'.", field="file"
    )


READERS: dict[str, Callable[[str, bytes], Iterator[Passage]]] = {
    ".csv": _table, ".tsv": _table, ".docx": _docx, ".htm": _html, ".html": _html,
    ".markdown": _markdown, ".md": _markdown, ".pdf": _pdf,
}  # fmt: skip
