"""Held-out evaluation of the tiny model: voice, copying, honesty, and texts no template produced.

python training/evaluate_tiny.py src/agentflow/tiny [--size 100] [--examples]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer, Qwen3ForCausalLM

import corpus
import facts
import voices
from agentflow.prompt import ChatMessage, Quote, chat_messages

ANSWER_TOKENS = 90
UNENDED = "…"
WORDS = facts.word_lists("evaluate")
RECALLED = WORDS["recalled"]
SHOWN = WORDS["shown"]
UNSEEN = WORDS["unseen"]
OUTSIDE = WORDS["outside"]


class Speaker:
    """The base and its three adapters, answering greedily."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "base", padding_side="left")
        base = Qwen3ForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        self._model: Any = PeftModel.from_pretrained(base, folder / voices.ADAPTERS[0], voices.ADAPTERS[0])
        for voice in voices.ADAPTERS[1:]:
            self._model.load_adapter(folder / voice, voice)
        self._model.eval()
        torch.set_grad_enabled(False)

    def answers(self, voice: str, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
        """One answer per prompt; an answer that did not end in time carries a trailing ellipsis."""
        found: list[str] = []
        for start in range(0, len(prompts), 32):
            found += self._batch(voice, prompts[start : start + 32])
        return found

    def _batch(self, voice: str, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
        inputs = self._tokenizer.apply_chat_template(
            [list(p) for p in prompts],
            add_generation_prompt=True,
            return_tensors="pt",
            padding=True,
            return_dict=True,
        )
        if voice == "base":
            with self._model.disable_adapter():
                output = self._model.generate(**inputs, max_new_tokens=ANSWER_TOKENS)
        else:
            self._model.set_adapter(voice)
            output = self._model.generate(**inputs, max_new_tokens=ANSWER_TOKENS)
        return [self._text(row) for row in output[:, inputs["input_ids"].shape[1] :]]

    def _text(self, row: torch.Tensor) -> str:
        ended = self._tokenizer.eos_token_id in row.tolist()
        return str(self._tokenizer.decode(row, skip_special_tokens=True)) + ("" if ended else UNENDED)


def unseen_value(kind: str, rng: Random) -> str:
    """A value that no training conversation holds."""
    if kind == "number":
        return str(rng.randint(1000, 99999))
    if rng.random() < 0.6:
        return rng.choice(UNSEEN)
    word = facts.invented(rng)
    return word if kind in ("thing", "job", "instrument") else word.capitalize()


def long_value(kind: str, rng: Random) -> str:
    """An invention of up to eight syllables."""
    del kind
    return (facts.invented(rng) + facts.invented(rng)).capitalize()


def evaluate(speaker: Speaker, voice: str, size: int, rng: Random) -> dict[str, float]:
    """Every measure of one voice in percent; `size` scenes per measure."""
    source = corpus.stock()._replace(value=unseen_value)
    harder = source._replace(value=long_value)
    recalls = {f"copies, {n} in memory": (source, n) for n in range(1, 7)}
    recalls["copies very long inventions, 3 in memory"] = (harder, 3)
    row: dict[str, float] = {}
    answers: list[str] = []
    for name, (values, lines) in recalls.items():
        scenes = [corpus.recalled(rng, values, lines) for _ in range(size)]
        got = _heard(speaker, voice, scenes)
        row[name] = _percent([scene.value in answer for scene, answer in zip(scenes, got, strict=True)])
        answers += got
    got = _heard(speaker, voice, [corpus.unknown(rng, source) for _ in range(2 * size)])
    row["says it does not know"] = _percent([voices.is_unknown(voice, answer) for answer in got])
    answers += got
    for name, make in MEASURES.items():
        scenes = [make(rng, source) for _ in range(size)]
        got = _heard(speaker, voice, scenes)
        row[name] = _percent([answer == s.answer(voice) for s, answer in zip(scenes, got, strict=True)])
        answers += got
    outside = speaker.answers(voice, [_outside(text, rng, source) for text in OUTSIDE])
    row["voice right"] = _percent([voices.is_voice(voice, answer) for answer in answers])
    row["voice right, outside texts"] = _percent([voices.is_voice(voice, answer) for answer in outside])
    row["answer ends"] = _percent([not answer.endswith(UNENDED) for answer in (*answers, *outside)])
    return row


MEASURES: dict[str, Callable[[Random, corpus.Stock], corpus.Scene]] = {
    "repeats what it is told (exact)": corpus.told,
    "takes up the topic (exact)": corpus.about,
    "task (exact)": corpus.task,
}


def _heard(speaker: Speaker, voice: str, scenes: Sequence[corpus.Scene]) -> list[str]:
    return speaker.answers(voice, [corpus.spoken(scene, voice)[0] for scene in scenes])


def _outside(text: str, rng: Random, source: corpus.Stock) -> list[ChatMessage]:
    scene = corpus.told(rng, source)
    return chat_messages(system=scene.system, quotes=scene.quotes, history=scene.history, text=text)


def _percent(hits: Sequence[bool]) -> float:
    return 100 * sum(hits) / len(hits)


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table: one line per measure, one column per voice."""
    head = ["| % | " + " | ".join(rows) + " |", "|---|" + "---:|" * len(rows)]
    measures = next(iter(rows.values()))
    cells = {name: " | ".join(f"{row[name]:.0f}" for row in rows.values()) for name in measures}
    return "\n".join([*head, *(f"| {name} | {rates} |" for name, rates in cells.items())])


def examples(speaker: Speaker) -> str:
    """A few turns of every voice: told, recalled, not known, general, and outside texts."""
    memory = [
        Quote(speaker="user", day="2026-11-21", content="I live in Valparaiso."),
        Quote(speaker="user", day="2026-11-22", content="My dog is called Biscuit."),
        Quote(speaker="assistant", day="2026-11-22", content="Noted: your dog is called Biscuit."),
    ]
    shown = [(text, memory) for text in RECALLED] + [(text, []) for text in SHOWN]
    lines: list[str] = []
    for voice in voices.VOICES:
        prompts = [chat_messages(system="", quotes=quotes, history=[], text=text) for text, quotes in shown]
        lines.append(f"\n## {voice}")
        for (text, quotes), answer in zip(shown, speaker.answers(voice, prompts), strict=True):
            lines.append(f"{'[memory] ' if quotes else ''}{text}\n    " + answer.replace("\n", "\n    "))
    return "\n".join(lines)


def main() -> None:
    """Print the table, and examples when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--examples", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    speaker = Speaker(settings.folder)
    if settings.examples:
        print(examples(speaker))
    if settings.size:
        seed = settings.seed
        print(table({v: evaluate(speaker, v, settings.size, Random(seed)) for v in voices.VOICES}))


if __name__ == "__main__":
    main()
