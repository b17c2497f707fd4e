"""Passages to chunks that an embedder reads whole: along paragraphs, sentences or the borders of code, overlapping."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

from agentflow.documents.passages import Passage
from agentflow.retrieval.pieces import PIECE_TOKENS, tokens

OVERLAP = 30  # tokens that a chunk repeats of the one before
HEADING = 40  # tokens of the chunk's own heading, which is embedded with it
PROSE = ["\n\n", "\n", ". ", "? ", "! ", "。", "; ", ", ", " ", ""]


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `part` counts from 1; heading, page and line say where it stands."""

    content: str
    part: int
    heading: str = ""
    page: int | None = None
    line: int | None = None


def chunks(found: Sequence[Passage]) -> list[Chunk]:
    """The chunks of a document, in order."""
    cut: list[Chunk] = []
    for passage in found:
        line, counted = passage.line, 0
        for document in _splitter(passage.language).create_documents([passage.text]):
            start = max(document.metadata["start_index"], counted)
            if line is not None:
                line += passage.text.count("\n", counted, start)
            counted = start
            heading = passage.heading[: HEADING * 4]
            cut.append(Chunk(document.page_content, len(cut) + 1, heading, passage.page, line))
    return cut


@cache
def _splitter(language: str | None) -> RecursiveCharacterTextSplitter:
    separators = (
        PROSE
        if language is None
        else RecursiveCharacterTextSplitter.get_separators_for_language(Language(language))
    )
    return RecursiveCharacterTextSplitter(
        separators=separators,
        keep_separator="end" if language is None else "start",
        chunk_size=PIECE_TOKENS - HEADING,
        chunk_overlap=OVERLAP,
        length_function=tokens,
        add_start_index=True,
    )
