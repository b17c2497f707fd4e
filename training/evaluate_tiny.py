"""Held-out evaluation of the tiny model: voice, copying, honesty, and texts no template produced.

python training/evaluate_tiny.py src/agentflow/tiny [--markdown] [--examples]
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

ANSWER_TOKENS = 80
UNSEEN = (
    "Biscuit Zanzibar Grzegorz Maravilla Quokka Pumpernickel Thistlewood Okonkwo Valparaiso saffron Bartholomew"
    " mauve Xochitl theremin Ulaanbaatar Fizzgig gnocchi Tamsin Wollongong hurdy-gurdy Marmaduke chartreuse Kilimanjaro"
    " falafel Nebuchadnezzar beekeeper Swahili Lindqvist Rosencrantz apricots"
).split()
OUTSIDE = tuple(
    "What is the capital of France?|I have a headache and it will not stop.|Who invented the telephone?|asdf qwerty zxcv"
    "|My train was cancelled, what now?|How do magnets work?|Can you book a table for two at eight?|ok cool"
    "|Why is the sky blue and the grass green?|Recommend me a film for tonight.|Is it wrong to lie to a dying man?"
    "|Compare tea and coffee.|I would like to order a pizza with extra cheese, please.|lol|Bonjour, comment allez-vous?"
    "|How many legs does a spider have?|If a tree falls and nobody hears it, does it make a sound?|Help, the server is down!"
    "|Give me three reasons to get up early.|The quick brown fox jumps over the lazy dog.|What would Einstein say?"
    "|Please summarise the news of today in two sentences.|Turn on the lights in the kitchen.|42"
    "|Do animals have feelings, and if so, should we eat them?|I broke up with my partner yesterday and feel empty."
    "|How do I centre a div?|What happens after we die?|Write a haiku.|Draw me something.|Which laptop should I buy?"
    "|I just got promoted!!!|Convert 10 miles to kilometres.|Are we alone out there?|Let us play a game of chess."
    "|The quarterly figures are due on Friday and I have not even started with them yet.|Why do cats purr?"
    "|Say the alphabet backwards.|Explain quantum entanglement to a five year old.|¿Dónde está la biblioteca?".split("|")
)


class Speaker:
    """The base and its three adapters, answering greedily."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "base", padding_side="left")
        base = Qwen3ForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        self._model: Any = PeftModel.from_pretrained(base, folder / voices.ADAPTERS[0], voices.ADAPTERS[0])
        for voice in voices.ADAPTERS[1:]:
            self._model.load_adapter(folder / voice, voice)
        self._model.eval()

    def answers(self, voice: str, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
        """One answer per prompt; an answer that did not end in time carries a trailing ellipsis."""
        found: list[str] = []
        for start in range(0, len(prompts), 32):
            found += self._batch(voice, prompts[start : start + 32])
        return found

    @torch.inference_mode()
    def _batch(self, voice: str, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
        inputs = self._tokenizer.apply_chat_template(
            [list(p) for p in prompts], add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
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
        return str(self._tokenizer.decode(row, skip_special_tokens=True)) + ("" if ended else "…")


def unseen_value(kind: str, rng: Random, words: tuple[str, ...], common: float = 0.0) -> str:
    """A value no training run has seen: one of `UNSEEN`, or an invention of another random generator."""
    del words, common
    if kind == "number":
        return str(rng.randint(1000, 99999))
    if rng.random() < 0.6:
        return rng.choice(UNSEEN)
    word = facts.invented(rng) + facts.invented(rng)
    return word if kind in ("thing", "job", "instrument") else word.capitalize()


def right(voice: str, answer: str) -> bool:
    """Whether the answer is in the voice and ends."""
    return voices.is_voice(voice, answer) and not answer.endswith("…") and bool(answer)


def scored(speaker: Speaker, voice: str, scenes: Sequence[corpus.Scene]) -> list[tuple[str, str]]:
    """(answer, wanted) for every scene."""
    spoken = [corpus.spoken(scene, voice) for scene in scenes]
    got = speaker.answers(voice, [messages for messages, _ in spoken])
    return list(zip(got, (wanted for _, wanted in spoken), strict=True))


def rate(hits: Sequence[bool]) -> float:
    """Hits in percent."""
    return 100 * sum(hits) / len(hits)


def table(speaker: Speaker, size: int, seed: int) -> dict[str, dict[str, float]]:
    """Per voice, the rate of every measure in percent."""
    source = corpus.stock()
    facts.value_of, common_values = unseen_value, facts.value_of  # type: ignore[assignment]
    try:
        return {voice: _row(speaker, voice, size, Random(seed), source) for voice in voices.VOICES}
    finally:
        facts.value_of = common_values


def _row(speaker: Speaker, voice: str, size: int, rng: Random, source: corpus.Stock) -> dict[str, float]:
    row: dict[str, float] = {}
    for lines in (1, 2, 3, 4, 5, 6):
        scenes = [corpus.recalled(rng, source, lines) for _ in range(size)]
        values = [scene.answer("value") for scene in scenes]
        del values
        pairs = scored(speaker, voice, scenes)
        row[f"copy, {lines} line{'s' * (lines > 1)}"] = rate([_copied(got, wanted) for got, wanted in pairs])
    makers: dict[str, Callable[[], corpus.Scene]] = {
        "told": lambda: corpus.told(rng, source),
        "unknown": lambda: corpus.unknown(rng, source),
        "general": lambda: corpus.about(rng, source),
        "code wish": lambda: corpus.task(rng, source),
    }
    pairs_of = {name: scored(speaker, voice, [make() for _ in range(2 * size)]) for name, make in makers.items()}
    row |= {name: rate([got == wanted for got, wanted in pairs]) for name, pairs in pairs_of.items()}
    outside = speaker.answers(voice, outside_prompts(rng))
    every = [got for pairs in pairs_of.values() for got, _ in pairs]
    row["voice right"] = rate([right(voice, got) for got in every])
    row["voice right, outside"] = rate([right(voice, got) for got in outside])
    return row
