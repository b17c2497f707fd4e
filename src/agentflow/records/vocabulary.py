"""Which words mean nearly the same, learnt in the background from what a collection holds.

A question for "hobbies" then finds "painting". Every new word is embedded once; its neighbours are kept with a
nearness between 0 and 1, so that a search looks them up like postings and needs no further vector. The mean of
words without content is taken off first: it is what all words have in common, and embedders differ in how much
that is. English only: other languages' words lie too close together in the default embedder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agentflow.protocols import Embedder, Vectors
from agentflow.records.connections import Connection, Connections, vector_text
from agentflow.retrieval.stopwords import STOP_WORDS
from agentflow.retrieval.terms import stems, term, words

LANGUAGE = "english"
NEIGHBOURS, FAR = (
    16,
    0.3,
)  # looked at per new word; the cosine, after the mean is off, at which nearness begins
READ = 8  # of each word's neighbours the nearest that a search asks for: farther ones are not written
SHORTEST, LONGEST = 3, 30

MEET = """
insert into word (tenant, collection_id, term, word)
select c.tenant, c.id, u.term, u.word
from unnest(%(collections)s::int[], %(terms)s::int[], %(words)s::text[]) u(collection, term, word)
     join collection c on c.id = u.collection
order by u.collection, u.term
on conflict (collection_id, term) do nothing
"""
OWED = """
select collection_id, term, word from word where embedding is null
order by collection_id, term for update skip locked limit %(limit)s
"""
FILL = """
update word w set embedding = u.vector::halfvec
from unnest(%(collections)s::int[], %(terms)s::int[], %(vectors)s::text[]) u(collection, term, vector)
where w.collection_id = u.collection and w.term = u.term
"""
RELATE = f"""
with r as (
  select n.tenant, n.collection_id, n.term, o.term as near, (o.cosine - {FAR}) / (1 - {FAR}) as nearness,
         row_number() over (partition by n.collection_id, n.term order by o.cosine desc) as place
  from unnest(%(collections)s::int[], %(terms)s::int[]) u(collection, term)
       join word n on n.collection_id = u.collection and n.term = u.term
       cross join lateral (
         select term, 1 - (embedding <=> n.embedding) as cosine from word
         where collection_id = n.collection_id and term <> n.term and embedding is not null
         order by embedding <=> n.embedding limit {NEIGHBOURS}) o
  where o.cosine > {FAR})
insert into related (tenant, collection_id, term, near, nearness)
select tenant, collection_id, term, near, nearness from r where place <= {READ}
union select tenant, collection_id, near, term, nearness from r
where (select count(*) from related k where k.collection_id = r.collection_id and k.term = r.near
         and k.nearness > r.nearness) < {READ}
on conflict (collection_id, term, near) do nothing
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
        """Embed and relate some of the words met; returns how many. Raises DatabaseDown, EmbedderError."""
        async with self.connections.background() as connection, connection.transaction():
            rows = await (await connection.execute(OWED, {"limit": limit})).fetchall()
            if rows:
                vectors = await self._vectors([word for _, _, word in rows])
                parameters = {
                    "collections": [collection for collection, _, _ in rows],
                    "terms": [number for _, number, _ in rows],
                    "vectors": [vector_text(vector) for vector in vectors],
                }
                await connection.execute(FILL, parameters)
                await connection.execute(RELATE, parameters)
            return len(rows)

    async def _vectors(self, found: Sequence[str]) -> Vectors:
        """Unit vectors without what all words have in common."""
        if not self.centre:
            common = await self.embedder.embed(sorted(STOP_WORDS[LANGUAGE]))
            self.centre.append(common.mean(axis=0))
        vectors = await self.embedder.embed(found) - self.centre[0]
        unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return unit


def _content(text: str) -> Mapping[int, str]:
    """Terms of words worth comparing, each with its first form."""
    kept = [word for word in words(text) if word.isalpha() and SHORTEST <= len(word) <= LONGEST]
    stop = STOP_WORDS[LANGUAGE]
    kept = [word for word in kept if word not in stop]
    found: dict[int, str] = {}
    for word, stem in zip(kept, stems(kept, LANGUAGE), strict=True):
        found.setdefault(term(stem), word)
    return found
