"""semantic-router on a task that benchmarks/routing.py wrote into a folder. Runs in an environment of its own."""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from semantic_router import Route
from semantic_router.encoders import DenseEncoder
from semantic_router.routers import IndexedRouter
from semantic_router.routers.base import run


def main(folder: Path) -> None:
    """Fit with its defaults, ask, print one line of JSON."""
    task = json.loads((folder / "task.json").read_text())
    vectors = dict(zip(task["all"], np.load(folder / "vectors.npz")["vectors"], strict=True))

    class Given(DenseEncoder):
        """The same embeddings as the product's."""

        name: str = "given"

        def __call__(self, docs: list[str]) -> list[list[float]]:
            return [vectors[one].tolist() for one in docs]

    began = time.process_time()
    by_label: dict[str, list[str]] = {}
    for text, label in zip(task["texts"], task["labels"], strict=True):
        by_label.setdefault(label, []).append(text)
    routes = [Route(name=label, utterances=texts) for label, texts in by_label.items()]
    router = IndexedRouter(encoder=Given(), routes=routes)
    fit_s = time.process_time() - began

    def best(texts: list[str]) -> list[tuple[str, float]]:
        return [max(scores.items(), key=lambda pair: pair[1]) for scores in run(router._scores_many(texts))]  # noqa: SLF001

    asked = best(task["asked"])
    times = []
    for text in task["asked"][:200]:
        before = time.process_time()
        router(text)
        times.append(time.process_time() - before)
    right = [said == truth for (said, _), truth in zip(asked, task["truth"], strict=True)]
    found = {
        "accuracy": sum(right) / len(right),
        "scope": [score for _, score in asked],
        "outside": [score for _, score in best(task["outside"])] if task["outside"] else [],
        "fit_s": fit_s,
        "decide_ms": 1000 * statistics.median(times),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
