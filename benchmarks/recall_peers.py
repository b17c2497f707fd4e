"""What peers find on the vectors they are given. Run by recall.py in an environment of their own.

That environment holds requirements/peers.txt.

    python recall_peers.py CONVERSATIONS.npz FOUND.json

Each as its own pages advise for the best search without a language model: Haystack and LlamaIndex with BM25 and vectors
joined by reciprocal ranks; mem0 with what was said kept as it is (`infer=False`) on Qdrant, its keyword arm on if
its models can be downloaded. The answer holds, for each peer, the places of the turns found for every question.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ |= {"MEM0_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False"}

import numpy as np
from haystack import Document
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.retrievers.bm25 import BM25Retriever
from mem0 import Memory

from memory_peers import Given, settings

MOST = 50
Search = Callable[[str], list[int]]
Known = dict[str, list[float]]


def haystack(texts: list[str], known: Known, _folder: str) -> Search:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(
        [Document(id=str(place), content=text, embedding=known[text]) for place, text in enumerate(texts)]
    )
    words = InMemoryBM25Retriever(store, top_k=MOST)
    meaning = InMemoryEmbeddingRetriever(store, top_k=MOST)

    def search(question: str) -> list[int]:
        arms = [
            words.run(query=question)["documents"],
            meaning.run(query_embedding=known[question])["documents"],
        ]
        joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=MOST)
        return [int(one.id) for one in joiner.run(documents=arms)["documents"]]

    return search


def llamaindex(texts: list[str], known: Known, _folder: str) -> Search:
    nodes = [TextNode(id_=str(place), text=text, embedding=known[text]) for place, text in enumerate(texts)]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=len(known[texts[0]])))
    arms = [
        index.as_retriever(similarity_top_k=MOST),
        BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=MOST),
    ]
    both = QueryFusionRetriever(
        arms,
        llm=MockLLM(),
        mode="reciprocal_rerank",
        num_queries=1,
        similarity_top_k=MOST,
        use_async=False,
    )

    def search(question: str) -> list[int]:
        asked = QueryBundle(question, embedding=known[question])
        return [int(one.node.node_id) for one in both.retrieve(asked)]

    return search


def mem0(texts: list[str], known: Known, folder: str) -> Search:
    memory = Memory.from_config(settings(folder, Given(known), len(known[texts[0]])))
    for place, text in enumerate(texts):
        memory.add(text, user_id="me", infer=False, metadata={"place": place})

    def search(question: str) -> list[int]:
        found: Any = memory.search(question, filters={"user_id": "me"}, top_k=MOST, threshold=0.0)
        return [one["metadata"]["place"] for one in found["results"]]

    return search


PEERS = {"Haystack (hybrid)": haystack, "LlamaIndex (hybrid)": llamaindex, "mem0 (infer=False)": mem0}


def main(given: Path, answer: Path) -> None:
    found = {name: [answered(make, *one) for one in conversations(given)] for name, make in PEERS.items()}
    answer.write_text(json.dumps(found))


def answered(
    make: Callable[..., Search], texts: list[str], questions: list[str], known: Known
) -> list[list[int]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        search = make(texts, known, folder)
        return [search(question) for question in questions]


def conversations(file: Path) -> Iterator[tuple[list[str], list[str], Known]]:
    """Texts, questions and the vectors of both, for each conversation."""
    with np.load(file) as given:
        texts, questions, vectors, asked = (
            given[name] for name in ("texts", "questions", "vectors", "asked")
        )
        spans = [pairwise(np.cumsum([0, *given[name]]).tolist()) for name in ("turns", "asks")]
    for (start, end), (first, last) in zip(*spans, strict=True):
        own, wanted = texts[start:end].tolist(), questions[first:last].tolist()
        both = zip(own + wanted, [*vectors[start:end].tolist(), *asked[first:last].tolist()], strict=True)
        known = {
            name: vector for text, vector in both for name in (text, text.strip())
        }  # mem0 strips questions
        yield own, wanted, known


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
