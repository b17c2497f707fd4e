"""Which words mean nearly the same, learnt in the background from what a collection holds.

A question for "hobbies" then finds "painting". Every new word is embedded once and compared with all others; of its
neighbours the nearest are kept in its row, with a nearness between 0 and 1, so that a search reads them with one look
and needs no further vector. The vector stays, in two bits a dimension, for the words to come. The mean of words without
content is taken off first: it is what all words have in common, and embedders differ in how much that is. English only:
other languages' words lie too close together in the default embedder.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentflow.protocols import Embedder, Vectors
from agentflow.records.connections import Connection, Connections
from agentflow.retrieval.sketch import packed, unpacked
from agentflow.retrieval.stopwords import STOP_WORDS
from agentflow.retrieval.terms import stems, term, words

LANGUAGE = "english"
NEIGHBOURS, FAR = 16, 0.3
"""Looked at per new word; the cosine, once the mean is off, at which nearness begins."""
READ = 8
"""Of each word's neighbours the nearest that a search asks for: farther ones are not kept."""
SHORTEST, LONGEST = 3, 30
CHUNK = 8192
"""Known words that are unpacked at once."""

NEAR = "((({entry}) & 4294967295) - 2147483648)::int"
NEARNESS = "least((({entry}) >> 32) / 65535.0, 0.999)"

MEET = """
insert into word (tenant, collection_id, term, word)
select c.tenant, c.id, u.term, u.word
from unnest(%(collections)s::int[], %(terms)s::int[], %(words)s::text[]) u(collection, term, word)
     join collection c on c.id = u.collection
order by u.collection, u.term
on conflict (collection_id, term) do nothing
"""
TURN = "select pg_try_advisory_xact_lock(hashtextextended('agentflow.vocabulary', 0))"
OWED = """
select collection_id, term, word from word where embedding is null
order by collection_id, term for update limit %(limit)s
"""
KNOWN = "select term, embedding from word where collection_id = %(collection)s and embedding is not null"
# The sketches of new words, and the nearest of all whom they concern: a row is rewritten once, and only if it changes.
LEARN = f"""
update word w
set embedding = coalesce(u.sketch, w.embedding),
    nearest = array(select max(e) from unnest(w.nearest || u.entries) e group by {NEAR.format(entry="e")}
                    order by 1 desc limit {READ})
from (select term, s.sketch, n.entries, n.best
      from unnest(%(terms)s::int[], %(sketches)s::bytea[]) s(term, sketch)
           full join (select term, array_agg(entry) as entries, max(entry) as best
                      from unnest(%(near)s::int[], %(entries)s::bigint[]) x(term, entry) group by term) n using (term)
     ) u
where w.collection_id = %(collection)s and w.term = u.term
  and (u.sketch is not null or cardinality(w.nearest) < {READ} or u.best > w.nearest[{READ}])
"""  # noqa: S608 - constants above


@dataclass(frozen=True)
class Vocabulary:
    """Learns a few words at a time; safe in several processes at once."""

    connections: Connections
    embedder: Embedder
    centre: list[Vectors] = field(default_factory=list)

    async def meet(self, connection: Connection, texts: Sequence[tuple[int, str]]) -> None:
        """Note the words of English texts, given with their collections, that were not met before."""
        met: dict[tuple[int, int], str] = {}
        for collection, text in texts:
            for number, word in _content(text).items():
                met.setdefault((collection, number), word)
        parameters = {
            "collections": [collection for collection, _ in met],
            "terms": [number for _, number in met],
            "words": list(met.values()),
        }
        await connection.execute(MEET, parameters)

    async def learn(self, *, limit: int = 64) -> int:
        """Embed and relate some of the words met; returns how many: none while another process does.

        Raises DatabaseDown, EmbedderError.
        """
        async with self.connections.background() as connection, connection.transaction():
            turn = await (await connection.execute(TURN)).fetchone()
            if not (turn and turn[0]):
                return 0
            rows = await (await connection.execute(OWED, {"limit": limit})).fetchall()
            if rows:
                vectors = await self._vectors([word for _, _, word in rows])
                owners = np.array([collection for collection, _, _ in rows])
                terms = np.array([number for _, number, _ in rows], np.int64)
                for collection in np.unique(owners).tolist():
                    mine = owners == collection
                    await self._learn(connection, collection, terms[mine], vectors[mine])
            return len(rows)

    async def _learn(
        self, connection: Connection, collection: int, terms: NDArray[np.int64], vectors: Vectors
    ) -> None:
        at = {"collection": collection}
        rows = await (await connection.execute(KNOWN, at)).fetchall()
        known = np.array([term for term, _ in rows], np.int64)
        sketches = [sketch for _, sketch in rows]
        found = await asyncio.to_thread(relations, terms, vectors, known, sketches)
        new = {"terms": terms.tolist(), "sketches": packed(vectors)}
        near = {"near": found.terms.tolist(), "entries": found.entries.tolist()}
        await connection.execute(LEARN.encode(), {**at, **new, **near})

    async def _vectors(self, found: Sequence[str]) -> Vectors:
        """Unit vectors without what all words have in common."""
        if not self.centre:
            common = await self.embedder.embed(sorted(STOP_WORDS[LANGUAGE]))
            self.centre.append(common.mean(axis=0))
        vectors = await self.embedder.embed(found) - self.centre[0]
        unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return unit


class Relations(NamedTuple):
    """For `terms`, one each time, a word that is near: an entry as NEAR and NEARNESS read it, nearest above all."""

    terms: NDArray[np.int64]
    entries: NDArray[np.int64]


def relations(
    terms: NDArray[np.int64], vectors: Vectors, known: NDArray[np.int64], sketches: Sequence[bytes]
) -> Relations:
    """Which words are near the new `terms` (unit `vectors`), each way: among them, and among those `known`."""
    cosines = np.concatenate([vectors @ vectors.T, *_products(vectors, sketches)], axis=1)
    np.fill_diagonal(cosines, -1)
    others = np.concatenate([terms, known])
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    shares = (np.take_along_axis(cosines, best, axis=1) - FAR) / (1 - FAR)
    rows, places = np.nonzero(shares > 0)
    mine, theirs = terms[rows], others[best[rows, places]]
    nearness = np.rint(np.minimum(shares[rows, places], 1) * 65535).astype(np.int64) << 32
    return Relations(
        np.concatenate([mine, theirs]), np.concatenate([nearness + theirs + 2**31, nearness + mine + 2**31])
    )


def _products(vectors: Vectors, sketches: Sequence[bytes]) -> Iterator[Vectors]:
    for start in range(0, len(sketches), CHUNK):
        yield vectors @ unpacked(sketches[start : start + CHUNK], vectors.shape[1]).T


def _content(text: str) -> Mapping[int, str]:
    """Terms of words worth comparing, each with its first form."""
    kept = [word for word in words(text) if word.isalpha() and SHORTEST <= len(word) <= LONGEST]
    stop = STOP_WORDS[LANGUAGE]
    kept = [word for word in kept if word not in stop]
    found: dict[int, str] = {}
    for word, stem in zip(kept, stems(kept, LANGUAGE), strict=True):
        found.setdefault(term(stem), word)
    return found
