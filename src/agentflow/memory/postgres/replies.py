"""What a search's one packed row says: candidates in their order, as memories that say why they are there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from agentflow.memory.postgres.statements import RELATED, Reach, Sought
from agentflow.protocols import Scope, Vectors
from agentflow.retrieval.bm25 import contributions, counts, idf
from agentflow.retrieval.candidates import candidates
from agentflow.retrieval.codes import cosines
from agentflow.retrieval.fusion import Pool, Ranked, Related, ranked
from agentflow.retrieval.terms import Question
from agentflow.turn import Recollection, Why

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A candidate's header; `code`, `bag`, `speaker`, `content` and `cited` are sizes in bytes, `said_at`
    microseconds since 2000.
    """

    id: int
    session: int
    seq: int
    code: int
    question: int
    length: int
    bag: int
    said_at: int
    thread: bytes
    speaker: int
    content: int
    cited: int


ROW = np.dtype(
    list(
        zip(
            Row._fields,
            (">i8", ">i8", ">i4", ">i4", ">i4", ">i4", ">i4", ">i8", "V16", ">i4", ">i4", ">i4"),
            strict=True,
        )
    )
)


class Reply(NamedTuple):
    """The one row of a search; `posted`: the scope has postings, and Postgres chose the rows with them."""

    documents: float
    mean: float
    posted: bool
    terms: list[int] | None
    origins: list[int] | None
    shares: list[float] | None
    weights: list[float] | None
    rows: bytes | None
    bags: bytes | None
    codes: bytes | None
    texts: bytes | None


@dataclass(frozen=True)
class Terms:
    """The terms looked for, one column each: how near to the question's term `origins` (1: it is one), and the idf.

    `found` counts them in every row.
    """

    numbers: NDArray[np.int64]
    origins: NDArray[np.int64]
    shares: NDArray[np.float64]
    weights: NDArray[np.float64]
    found: NDArray[np.float64]

    def of(self, columns: NDArray[np.bool_]) -> "Terms":
        """Some of them."""
        return Terms(
            self.numbers[columns],
            self.origins[columns],
            self.shares[columns],
            self.weights[columns],
            self.found[:, columns],
        )


def recollections(reply: Reply, asked: Question, scope: Scope, k: int, sought: Sought) -> list[Recollection]:
    """The best `k`. Of a scope read whole, candidates are chosen here as Postgres does with postings: the best by words
    and by meaning (as another place knows it where one does), and what stands around them.
    """
    rows = np.frombuffer(reply.rows or b"", ROW)
    terms = _terms(reply, rows)
    near = _cosines(reply, rows, sought.vector)
    if reply.posted:
        kept = np.unique(rows["id"], return_index=True)[1]  # a row between two hits comes with both
    else:
        scores = _by_words(reply, rows, terms, sought.reach)
        kept = candidates(
            rows["id"], rows["session"], rows["seq"], scores, near, sought.reach.width, sought.nearest
        )
    best = ranked(_pool(reply, rows[kept], near[kept], terms.found[kept], terms, asked), k)
    places = [int(kept[one.row]) for one in best]
    ends = np.cumsum(rows["speaker"] + rows["content"] + rows["cited"])[places].tolist()
    words = asked.under(asked.languages)
    shown = [words[term] for term in terms.numbers[terms.shares == 1].tolist()]
    return [
        _recollection(Row(*row), (reply.texts or b"")[:end], one, scope, _matched(one, shown, asked))
        for row, end, one in zip(rows[places].tolist(), ends, best, strict=True)
    ]


def _terms(reply: Reply, rows: NDArray[np.void]) -> Terms:
    """Of a scope read whole, its rows tell in how many memories a term is."""
    numbers = np.array(reply.terms or [], np.int64)
    distinct, column = np.unique(numbers, return_inverse=True)
    found = counts(reply.bags or b"", rows["bag"], distinct.tolist())
    weights = np.array(reply.weights or [], np.float64)
    if not reply.posted:
        weights = idf(reply.documents, (found > 0).sum(axis=0))[column]
    shares = np.array(reply.shares or [], np.float64)
    terms = Terms(numbers, np.array(reply.origins or [], np.int64), shares, weights, found[:, column])
    return terms if reply.posted else terms.of(np.any(terms.found, axis=0))


def _by_words(reply: Reply, rows: NDArray[np.void], terms: Terms, reach: Reach) -> NDArray[np.float64]:
    own = terms.shares == 1
    asked = _rarest(terms, own, reach.own_postings, least=1) | _rarest(
        terms, ~own, reach.near_postings, least=0
    )
    worth = terms.weights * np.where(own, 1.0, RELATED * terms.shares) * asked
    scores: NDArray[np.float64] = contributions(terms.found, rows["length"], worth, reply.mean).sum(axis=1)
    return scores


def _rarest(terms: Terms, which: NDArray[np.bool_], budget: int, *, least: int) -> NDArray[np.bool_]:
    """Those of some terms that a search asks for: rarest first, until they occur in more memories than its budget."""
    some = np.flatnonzero(which)
    frequencies = np.count_nonzero(terms.found[:, some], axis=0)
    order = np.lexsort((terms.numbers[some], frequencies))
    within = np.cumsum(frequencies[order]) <= budget
    within[:least] = True
    rarest = np.zeros(len(which), np.bool_)
    rarest[some[order[within]]] = True
    return rarest


def _cosines(reply: Reply, rows: NDArray[np.void], vector: Vectors | None) -> NDArray[np.float64]:
    """How near each row is to the question; NaN where one of them has no vector."""
    found = np.full(len(rows), np.nan)
    if vector is not None:
        known = rows["code"] > 0
        found[known] = cosines(reply.codes or b"", int(known.sum()), vector)
    return found


def _pool(
    reply: Reply,
    rows: NDArray[np.void],
    near: NDArray[np.float64],
    found: NDArray[np.float64],
    terms: Terms,
    asked: Question,
) -> Pool:
    own, related = terms.shares == 1, terms.shares < 1
    known = set(terms.numbers[own].tolist())
    met = {place for term, place in zip(asked.terms, asked.places, strict=True) if term in known}
    unmet = len(asked.own - met) * float(idf(reply.documents, np.zeros(1))[0])
    return Pool(
        ids=rows["id"].astype(np.int64),
        sessions=rows["session"].astype(np.int64),
        positions=rows["seq"].astype(np.int64),
        cosines=near,
        questions=rows["question"] > 0,
        lengths=rows["length"].astype(np.int64),
        found=found[:, own],
        weights=terms.weights[own],
        mean_length=reply.mean,
        owed=float(terms.weights[own].sum()) + unmet,
        related=Related(
            found[:, related], terms.weights[related], terms.shares[related], terms.origins[related]
        ),
    )


def _matched(one: Ranked, shown: Sequence[int], asked: Question) -> list[str]:
    """The question's words that the memory has, in their order; `shown` are the places of its terms."""
    return [asked.words[place] for place in sorted({shown[column] for column in one.parts["matched"]})]


def _recollection(row: Row, texts: bytes, one: Ranked, scope: Scope, matched: list[str]) -> Recollection:
    """`texts` ends with the row's speaker, content and citation."""
    why: Why = {**one.parts, "matched": matched}
    end = len(texts) - row.cited
    found: Recollection = {
        "id": row.id,
        "collection": scope.collection,
        "speaker": texts[end - row.content - row.speaker : end - row.content].decode(),
        "said_at": (EPOCH + timedelta(microseconds=row.said_at)).isoformat(timespec="seconds"),
        "content": texts[end - row.content : end].decode(),
        "score": one.relevance,
        "thread_id": str(UUID(bytes=row.thread)) if any(row.thread) else None,
        "session": row.session,
        "why": why,
    }
    if row.cited:
        found["cited"] = json.loads(texts[end:])
    return found
