"""How much of the evidence for a question the memory finds, without any model but the embedder, beside peers.

    curl -LO https://raw.githubusercontent.com/snap-research/locomo/main/data/locomo10.json    (CC BY-NC 4.0)
    OMP_NUM_THREADS=1 python benchmarks/recall.py locomo10.json [--memory Memory FaissMemory ...] [--peers PYTHON]

LoCoMo: long conversations, and questions with the turns that answer them. Printed is the share of those turns among
the first k found, over all questions. Everybody gets the same vectors, of the embedder that agentflow has by default.
Peers: vectors alone (what a bare vector store gives), and LangGraph's Postgres store, which LangMem searches; with the
interpreter that --peers names (requirements/peers.txt) also mem0, Haystack and LlamaIndex (recall_peers.py).
"""

import argparse
import asyncio
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from langgraph.store.postgres.aio import AsyncPostgresStore, PostgresIndexConfig
from numpy.typing import NDArray

import plugins
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres

KS = (5, 10, 20, 50)
SEVERAL = 1
"""LoCoMo's category of questions that need several turns."""
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Conversation:
    """Turns in order, and questions with the ids of the turns that answer them."""

    turns: list[dict[str, Any]]
    questions: list[tuple[str, int, set[str]]]


@dataclass
class Embedder:
    """Embeds every text once."""

    encode: Callable[[Sequence[str]], Vectors]
    known: dict[str, Vectors] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for start in range(0, len(new), 64):
            batch = new[start : start + 64]
            self.known |= zip(batch, self.encode(batch), strict=True)
        return np.array([self.known[text] for text in texts], np.float32)


def read(file: Path) -> list[Conversation]:
    return [_conversation(one) for one in json.loads(file.read_text(encoding="utf-8"))]


def _conversation(one: dict[str, Any]) -> Conversation:
    said = one["conversation"]
    numbers = sorted(int(key[8:]) for key in said if re.fullmatch(r"session_\d+", key))
    turns = [
        {
            "id": turn["dia_id"],
            "session": number,
            "date": said.get(f"session_{number}_date_time", ""),
            "speaker": turn["speaker"],
            "text": turn.get("text", ""),
            "caption": turn.get("blip_caption", ""),
        }
        for number in numbers
        for turn in said[f"session_{number}"] or []
    ]
    known = {turn["id"] for turn in turns}
    questions = []
    for asked in one["qa"]:
        pairs = re.findall(r"D:?(\d+):(\d+)", " ".join(map(str, asked.get("evidence") or [])))
        evidence = {f"D{int(session)}:{int(turn)}" for session, turn in pairs} & known
        if evidence:
            questions.append((asked["question"], asked["category"], evidence))
    return Conversation(turns, questions)


class VectorsAlone:
    """The nearest turns by cosine; exact."""

    def __init__(self, embed: Embedder) -> None:
        self._embed = embed

    def add(self, turns: Sequence[dict[str, Any]]) -> None:
        self._ids = [turn["id"] for turn in turns]
        self._vectors = self._embed([f"{turn['speaker']}: {plugins.said(turn)}" for turn in turns])

    def search(self, question: str, k: int) -> list[str]:
        scores = self._vectors @ self._embed([question])[0]
        return [self._ids[place] for place in np.argsort(-scores)[:k]]


class LangGraphStore(VectorsAlone):
    """AsyncPostgresStore with its own vector search."""

    dsn = ""

    def add(self, turns: Sequence[dict[str, Any]]) -> None:
        self._turns = {str(place): turn for place, turn in enumerate(turns)}
        texts = [f"{turn['speaker']}: {plugins.said(turn)}" for turn in turns]
        self._embed(texts)
        asyncio.run(self._filled(texts))

    def search(self, question: str, k: int) -> list[str]:
        return asyncio.run(self._found(question, k))

    async def _filled(self, texts: Sequence[str]) -> None:
        async with self._store() as store:
            await store.setup()
            for place, text in enumerate(texts):
                await store.aput((str(id(self)),), str(place), {"text": text})

    async def _found(self, question: str, k: int) -> list[str]:
        async with self._store() as store:
            found = await store.asearch((str(id(self)),), query=question, limit=k)
        return [self._turns[one.key]["id"] for one in found]

    def _store(self) -> Any:
        dim = self._embed(["hello"]).shape[1]
        index: PostgresIndexConfig = {
            "dims": dim,
            "embed": lambda texts: self._embed(texts).tolist(),
            "fields": ["text"],
        }
        return AsyncPostgresStore.from_conn_string(self.dsn, index=index)


def measured(
    make: Callable[[Embedder], Any], embed: Embedder, conversations: Sequence[Conversation]
) -> Vectors:
    """Recall at each of KS for every question, with the question's category in the last column."""
    rows = []
    for conversation in conversations:
        memory = make(embed)
        memory.add(conversation.turns)
        if hasattr(memory, "flush"):
            memory.flush()
        for question, category, evidence in conversation.questions:
            found = memory.search(question, KS[-1])
            rows.append([*(len(evidence & set(found[:k])) / len(evidence) for k in KS), category])
    return np.array(rows, np.float32)


def of_peers(python: str, embed: Embedder, conversations: Sequence[Conversation]) -> dict[str, Vectors]:
    """The same as `measured` for every peer that lives in an environment of its own. Ends the program if they fail."""
    texts = [[f"{turn['speaker']}: {plugins.said(turn)}" for turn in one.turns] for one in conversations]
    asked = [[question for question, _, _ in one.questions] for one in conversations]
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "given.npz", Path(folder) / "found.json"
        flat, questions = list(chain(*texts)), list(chain(*asked))
        np.savez(
            given,
            texts=flat, questions=questions, vectors=embed(flat), asked=embed(questions),
            turns=list(map(len, texts)), asks=list(map(len, asked)),
        )  # fmt: skip
        command = [python, str(Path(__file__).with_name("recall_peers.py")), str(given), str(answer)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"The peers have failed: {ended.stderr.strip()[-2000:]}")
        found = json.loads(answer.read_text())
    return {name: _shares(places, conversations) for name, places in found.items()}


def _shares(found: Sequence[Sequence[Sequence[int]]], conversations: Sequence[Conversation]) -> Vectors:
    rows = []
    for conversation, answers in zip(conversations, found, strict=True):
        for (_, category, evidence), places in zip(conversation.questions, answers, strict=True):
            ids = [conversation.turns[place]["id"] for place in places]
            rows.append([*(len(evidence & set(ids[:k])) / len(evidence) for k in KS), category])
    return np.array(rows, np.float32)


def show(name: str, rows: Vectors) -> None:
    shares = "".join(f"{share:7.1%}" for share in rows[:, :-1].mean(axis=0))
    several = rows[rows[:, -1] == SEVERAL][:, KS.index(10)].mean()
    print(f"{name:<28}{shares}   over several turns @10 {several:6.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--memory", nargs="*", default=["Memory"], help="classes of plugins.py")
    parser.add_argument("--peers", help="an interpreter that has requirements/peers.txt")
    arguments = parser.parse_args()
    conversations, embed = read(arguments.file), Embedder(plugins.own_embedder())
    questions = sum(len(one.questions) for one in conversations)
    turns = sum(len(one.turns) for one in conversations)
    print(f"{len(conversations)} conversations, {turns} turns, {questions} questions")
    print(f"{'recall of evidence':<28}" + "".join(f"{f'@{k}':>7}" for k in KS))
    for name in arguments.memory:
        show(f"agentflow ({name})", measured(getattr(plugins, name), embed, conversations))
    show("vectors alone", measured(VectorsAlone, embed, conversations))
    with tempfile.TemporaryDirectory(prefix="agentflow-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(EmbeddedOptions(Path(folder) / "postgres", sync=False))
        LangGraphStore.dsn = server.start()
        show("LangGraph store", measured(LangGraphStore, embed, conversations))
        server.stop()
    for name, rows in (of_peers(arguments.peers, embed, conversations) if arguments.peers else {}).items():
        show(name, rows)


if __name__ == "__main__":
    main()
