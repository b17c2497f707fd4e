"""mem0 on the vectors it is given: milliseconds per added text and per search. Run by memory.py in its own environment.

    python memory_peers.py TEXTS.npz   ->   {"add": ms, "search": ms}

As plain as it goes: no model extracts facts (`infer=False`), Qdrant in this process, nothing is sent anywhere.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ["MEM0_TELEMETRY"] = "False"

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import FakeListChatModel
from mem0 import Memory


class Given(Embeddings):
    """Vectors by text."""

    def __init__(self, known: dict[str, list[float]]) -> None:
        self._known = known

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._known[text]


def main(file: str) -> None:
    with np.load(file) as given:
        texts, questions = given["texts"].tolist(), given["questions"].tolist()
        vectors = np.concatenate([given["vectors"], given["asked"]])
    known = dict(zip(texts + questions, vectors.tolist(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory.from_config(settings(folder, Given(known), vectors.shape[1]))
        added = [timed(lambda one=one: memory.add(one, user_id="me", infer=False)) for one in texts]
        searched = [timed(lambda one=one: find(memory, one)) for one in questions]
    print(json.dumps({"add": statistics.median(added), "search": statistics.median(searched)}))


def settings(folder: str, embedder: Embeddings, dim: int) -> dict[str, Any]:
    """mem0's configuration: our vectors, a model that is never asked, Qdrant in a folder."""
    return {
        "llm": {"provider": "langchain", "config": {"model": FakeListChatModel(responses=["{}"])}},
        "embedder": {"provider": "langchain", "config": {"model": embedder}},
        "vector_store": {
            "provider": "qdrant",
            "config": {"path": f"{folder}/qdrant", "embedding_model_dims": dim},
        },
        "history_db_path": f"{folder}/history.db",
    }


def find(memory: Memory, question: str) -> object:
    return memory.search(question, filters={"user_id": "me"}, top_k=10)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main(sys.argv[1])
