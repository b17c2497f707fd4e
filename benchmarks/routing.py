"""What a routing decision costs and how good it is, beside semantic-router with the same embeddings.

    python benchmarks/routing.py [--examples messages.jsonl] [--shots 10] [--peer PYTHON]

Without a file of {"text", "label"} lines it makes 150 intents of its own. The peer is a Python that has
semantic-router; it gets a virtual environment of its own and is never a dependency:

    python -m venv .venv-semantic-router
    .venv-semantic-router/bin/pip install semantic-router==1.1.1
    python benchmarks/routing.py --peer .venv-semantic-router/bin/python

Times are CPU time of one thread, so that a busy machine does not distort them; trust the ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TypedDict

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.plugins import Encoder, Router, own_embedder

DEFAULT_PEER = Path(".venv-semantic-router/bin/python")
QUERIES = 200
VERBS = (
    "find",
    "book",
    "cancel",
    "move",
    "rate",
    "share",
    "print",
    "translate",
    "repair",
    "sell",
    "rent",
    "clean",
    "paint",
    "lock",
    "weigh",
)
THINGS = [
    "flight",
    "guitar",
    "invoice",
    "garden",
    "bicycle",
    "recipe",
    "passport",
    "printer",
    "painting",
    "mortgage",
]
TRAINING = (
    "please {v} my {t}",
    "could you {v} the {t} for me",
    "I want to {v} a {t}",
    "how do I {v} this {t}",
    "{v} the {t} now",
    "is it possible to {v} a {t} today",
    "help me {v} my old {t}",
    "we need somebody to {v} the {t}",
    "what does it cost to {v} a {t}",
    "before noon, {v} that {t}",
)
ASKED = ("can you {v} my {t} by tomorrow", "who would {v} a {t}", "they told me to {v} the {t} first")
OUTSIDE = ("how tall is {t} mountain", "tell me a joke about a {t}", "who invented the {t}", "is {t} a noun")


class Measured(TypedDict):
    """One router's figures; times in CPU seconds and milliseconds."""

    accuracy: float
    auroc: float | None
    fit_s: float
    decide_ms: float


class Task(TypedDict):
    """Messages to learn from and to ask; `outside` are messages of no intent."""

    texts: list[str]
    labels: list[str]
    asked: list[str]
    truth: list[str]
    outside: list[str]


def own_task(shots: int) -> Task:
    """150 intents: every verb with every thing."""
    pairs = [(verb, thing) for verb in VERBS for thing in THINGS]
    task: Task = {"texts": [], "labels": [], "asked": [], "truth": [], "outside": []}
    for verb, thing in pairs:
        task["texts"] += [form.format(v=verb, t=thing) for form in TRAINING[:shots]]
        task["labels"] += [f"{verb} {thing}"] * len(TRAINING[:shots])
        task["asked"] += [form.format(v=verb, t=thing) for form in ASKED]
        task["truth"] += [f"{verb} {thing}"] * len(ASKED)
    task["outside"] = [form.format(t=thing) for form in OUTSIDE for thing in THINGS]
    return task


def task_of(file: Path, shots: int) -> Task:
    """The first `shots` messages of a label are learned from, the rest is asked; label "" is out of scope."""
    task: Task = {"texts": [], "labels": [], "asked": [], "truth": [], "outside": []}
    seen: dict[str, int] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        text, label = one["text"], one.get("label") or ""
        seen[label] = seen.get(label, 0) + 1
        if not label:
            task["outside"].append(text)
        elif seen[label] <= shots:
            task["texts"].append(text)
            task["labels"].append(label)
        else:
            task["asked"].append(text)
            task["truth"].append(label)
    return task


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def median_ms(work: Callable[[str], object], texts: Sequence[str]) -> float:
    """Median CPU milliseconds of one call per text, after a few to warm up."""
    for text in texts[:5]:
        work(text)
    return 1000 * median(cpu(lambda text=text: work(text)) for text in texts[:QUERIES])


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float | None:
    """Chance that an in-scope message scores higher than one of no intent."""
    if not len(inside) or not len(outside):
        return None
    a, b = np.asarray(inside)[:, None], np.asarray(outside)[None, :]
    return float(((a > b) + 0.5 * (a == b)).mean())


def ours(task: Task, encoder: Encoder) -> Measured:
    """The product's router."""
    router = Router(encoder)
    fit_s = cpu(lambda: router.fit(task["texts"], task["labels"]))
    said, scope = router.predict(task["asked"])
    outside = router.predict(task["outside"])[1] if task["outside"] else []
    right = [one == truth for one, truth in zip(said, task["truth"], strict=True)]
    return {
        "accuracy": sum(right) / len(right),
        "auroc": auroc(scope, outside),
        "fit_s": fit_s,
        "decide_ms": median_ms(router.one, task["asked"]),
    }


def theirs(task: Task, encoder: Encoder, peer: Path) -> Measured:
    """semantic-router in its own process and environment, given the same vectors."""
    with tempfile.TemporaryDirectory() as folder:
        texts = sorted({*task["texts"], *task["asked"], *task["outside"]})
        np.savez(Path(folder) / "vectors.npz", vectors=encoder(texts))
        (Path(folder) / "task.json").write_text(json.dumps({**task, "all": texts}))
        script = Path(__file__).with_name("routing_peer.py")
        quiet = {**os.environ, "SEMANTIC_ROUTER_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([peer, script, folder], check=True, capture_output=True, text=True, env=quiet)
    found = json.loads(done.stdout.splitlines()[-1])
    scores = found["scope"], found["outside"]
    return {
        "accuracy": found["accuracy"],
        "auroc": auroc(*scores),
        "fit_s": found["fit_s"],
        "decide_ms": found["decide_ms"],
    }


def shown(name: str, found: Measured) -> None:
    """One line."""
    scope = "-" if found["auroc"] is None else f"{found['auroc']:.4f}"
    print(
        f"{name:28s} accuracy {found['accuracy']:.4f}   AUROC {scope}   "
        f"fit {found['fit_s']:.2f} s   decide {found['decide_ms']:.2f} ms"
    )


def thousands() -> None:
    """2,000 roles with 5 examples each, on random vectors."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(2000, 384))
    texts = [f"example {at} of role {role}" for role in range(2000) for at in range(5)]
    noisy = np.repeat(centres, 5, axis=0) + 1.2 * random.normal(size=(10000, 384))
    vectors = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    known = dict(zip(texts, vectors, strict=True))
    router = Router(lambda some: np.stack([known[one] for one in some]))
    fit_s = cpu(lambda: router.fit(texts, [text.split()[-1] for text in texts]))
    print(f"{'2,000 roles x 5':28s} fit {fit_s:.2f} s   decide {median_ms(router.one, texts):.2f} ms")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--examples", type=Path)
    options.add_argument("--shots", type=int, default=10)
    options.add_argument("--peer", type=Path, default=DEFAULT_PEER)
    asked = options.parse_args()
    task = task_of(asked.examples, asked.shots) if asked.examples else own_task(asked.shots)
    embed = own_embedder()
    known: dict[str, np.ndarray] = {}

    def remembered(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in texts if text not in known]
        known.update(zip(new, embed(new), strict=True) if new else ())
        return np.stack([known[text] for text in texts])

    remembered([*task["texts"], *task["asked"], *task["outside"]])
    print(f"{len(task['texts'])} examples, {len(set(task['labels']))} intents, {len(task['asked'])} asked")
    product = ours(task, remembered)
    shown("agentflow", product)
    whole = Router(embed)
    whole.fit(task["texts"], task["labels"])
    print(
        f"{'agentflow, int8 embedder':28s} message to decision {median_ms(whole.one, task['asked']):.2f} ms"
    )
    thousands()
    if not asked.peer.exists():
        print(f"no {asked.peer}: semantic-router not measured (see the top of this file)")
        return
    peer = theirs(task, remembered, asked.peer)
    shown("semantic-router 1.1.1", peer)
    print(
        f"ratios: accuracy {product['accuracy'] - peer['accuracy']:+.3f}, "
        f"decide {peer['decide_ms'] / product['decide_ms']:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
