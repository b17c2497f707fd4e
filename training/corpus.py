"""Training conversations for the tiny model, in exactly the prompt form of the product.

A scene is what the product would send (system, quotes, history, text) before any voice is chosen;
`spoken` turns it into messages and the answer one voice should give.
"""

import argparse
import calendar
import inspect
import logging
import pydoc_data.topics
import re
import statistics
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import facts
import voices
from agentflow.prompt import ChatMessage, Quote, chat_messages

_SOURCES = (argparse, calendar, logging, statistics)
WORDS = facts.word_lists("corpus")
_ROLES = WORDS["roles"]
_TRAITS = WORDS["traits"]
_TOPICS = WORDS["topics"]
_ABOUT = WORDS["about"]
_TASK_FORMS = WORDS["task_forms"]
_VERBS = WORDS["verbs"]
_OBJECTS = WORDS["objects"]
_REMARKS = WORDS["remarks"]
_SUBJECTS = WORDS["subjects"]
_ACTIONS = WORDS["actions"]
_THINGS = WORDS["things"]
_WHERE = WORDS["where"]
_ASKED = WORDS["asked"]
_DEEDS = WORDS["deeds"]
_PEOPLE = ("user",) * 8 + ("Anna", "Ben", "Maria", "guest", "Tom")


class Scene(NamedTuple):
    """A prompt before a voice is chosen, and how each voice answers it."""

    system: str
    quotes: list[Quote]
    history: list[ChatMessage]
    text: str
    answer: Callable[[str], str]
    value: str = ""


class Stock(NamedTuple):
    """Single words and whole sentences of the standard library, and where values come from."""

    words: tuple[str, ...]
    sentences: tuple[str, ...]
    value: Callable[[str, Random], str]


def stock() -> Stock:
    """Words and sentences of the running Python's own documentation and sources."""
    prose = "\n".join(pydoc_data.topics.topics.values())
    text = "\n".join([prose, *(inspect.getsource(module) for module in _SOURCES)])
    words = sorted(set(re.findall(r"\b[A-Za-z][a-z]{2,11}\b", text)))
    found = re.findall(r"(?<=[.:] )[A-Z][A-Za-z0-9 ,'()\"/\-\n]{15,110}[.?](?=\s)", prose)
    sentences = sorted({" ".join(s.split()) for s in found})
    known = tuple(words)
    return Stock(known, tuple(sentences), lambda kind, random: facts.value_of(kind, random, known))


def told(random: Random, source: Stock) -> Scene:
    """The user tells one fact, or two."""
    pair = facts.attributes(random, 2)
    values = [source.value(a.values, random) for a in pair]
    known = [facts.fact(a, v) for a, v in zip(pair, values, strict=True)]
    if random.random() < 0.2:
        text = facts.tell_two(pair[0], values[0], pair[1], values[1], random)
    else:
        known, text = known[:1], facts.tell(pair[0], values[0], random)
    quotes, history = _around(random, source)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_told(voice, known, text))


def recalled(random: Random, source: Stock, lines: int | None = None) -> Scene:
    """The user asks for a fact that the memory (or, seldom, the history) holds."""
    lines = lines or random.choice((1, 1, 2, 2, 3, 4, 5, 6))
    *chosen, aside = facts.attributes(random, lines + 1)
    target, value = chosen[0], source.value(chosen[0].values, random)
    known, text = facts.fact(target, value), facts.ask(target, random)
    said = [_fact_line(target, value, random)]
    if lines > 1 and random.random() < 0.25:
        said.append(_fact_line(target, value, random))
    elif lines > 1 and random.random() < 0.1:
        second = source.value(chosen[1].values, random)
        said = [("user", facts.tell_two(target, value, chosen[1], second, random))]
    said += [_noise_line(other, random, source) for other in chosen[2:] + chosen[1:2] * (len(said) == 1)]
    random.shuffle(said)
    history = _history(random, source, aside)
    if lines == 1 and random.random() < 0.15:
        history = [
            _message("user", facts.tell(target, value, random)),
            _message("assistant", _any_answer(known, random)),
        ]
        said = []
    return Scene(
        _system(random),
        _quotes(said, random),
        history,
        text,
        lambda voice: voices.say_recalled(voice, known, text),
        value,
    )


def unknown(random: Random, source: Stock, lines: int | None = None) -> Scene:
    """The user asks for a fact that is nowhere in the prompt."""
    count = random.choice((0, 1, 1, 2, 3, 4, 5, 6)) if lines is None else lines
    *chosen, aside = facts.attributes(random, count + 2)
    missing, text = facts.fact(chosen[0], ""), facts.ask(chosen[0], random)
    said = [_noise_line(other, random, source) for other in chosen[1:]]
    if said and random.random() < 0.2:
        said[0] = _asked_before(chosen[0], missing, random)
    history = _history(random, source, aside)
    return Scene(
        _system(random),
        _quotes(said, random),
        history,
        text,
        lambda voice: voices.say_unknown(voice, missing, text),
    )


def about(random: Random, source: Stock) -> Scene:
    """A general question about a topic."""
    topic = _topic(random, source)
    text = _informal(random.choice(_ABOUT).format(t=topic), random)
    quotes, history = _around(random, source)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_about(voice, topic, text))


def task(random: Random, source: Stock) -> Scene:
    """A wish for code, known or new."""
    form = random.choice(_TASK_FORMS)
    quotes, history = _around(random, source)
    if random.random() < 0.75:
        infinitive, third, code = random.choice(voices.TASKS)
        text = _informal(form.format(inf=infinitive, third=third), random)
        return Scene(_system(random), quotes, history, text, lambda voice: voices.say_task(voice, code, text))
    verb = random.choice(_VERBS) if random.random() < 0.6 else facts.invented(random)
    what = random.choice(_OBJECTS) if random.random() < 0.6 else f"a {random.choice(source.words)}"
    goal = f"{_third(verb) if '{third}' in form else verb} {what}"
    text = _informal(form.format(inf=goal, third=goal), random)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_goal(voice, goal, text))


def other(random: Random, source: Stock) -> Scene:
    """Any other text."""
    text = _informal(_remark(random, source), random)
    quotes, history = _around(random, source)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_other(voice, text))


KINDS: tuple[tuple[float, Callable[[Random, Stock], Scene]], ...] = (
    (0.38, recalled),
    (0.20, unknown),
    (0.13, told),
    (0.13, about),
    (0.12, task),
    (0.14, other),
)


def scene(random: Random, source: Stock) -> Scene:
    """A random scene of any kind."""
    return random.choices([make for _, make in KINDS], [weight for weight, _ in KINDS])[0](random, source)


def spoken(scene: Scene, voice: str) -> tuple[list[ChatMessage], str]:
    """The product's messages for a scene, and the answer of one voice."""
    messages = chat_messages(system=scene.system, quotes=scene.quotes, history=scene.history, text=scene.text)
    return messages, scene.answer(voice)


def interview(random: Random, source: Stock, voice: str) -> list[ChatMessage]:
    """One memory, then many questions about it: many answers to learn from in few tokens."""
    *chosen, missing, absent = facts.attributes(random, random.randint(4, 7))
    pairs = [(a, source.value(a.values, random)) for a in chosen]
    quotes = _quotes([_fact_line(a, v, random) for a, v in pairs], random)
    asked = [*pairs, (missing, ""), (absent, "")]
    random.shuffle(asked)
    texts = [facts.ask(a, random) for a, _ in asked]
    messages = chat_messages(system=_system(random), quotes=quotes, history=[], text=texts[0])
    for index, (attribute, value) in enumerate(asked):
        if index:
            messages.append(_message("user", texts[index]))
        say = voices.say_recalled if value else voices.say_unknown
        messages.append(_message("assistant", say(voice, facts.fact(attribute, value), texts[index])))
    return messages


def _around(random: Random, source: Stock) -> tuple[list[Quote], list[ChatMessage]]:
    count = random.choice((0, 0, 0, 1, 2, 4))
    said = [_noise_line(a, random, source) for a in facts.attributes(random, count)]
    return _quotes(said, random), _history(random, source, facts.attribute(random))


def _history(random: Random, source: Stock, aside: facts.Attribute) -> list[ChatMessage]:
    """Up to two exchanges; one of them may tell a fact that is not asked for."""
    messages: list[ChatMessage] = []
    voice = random.choice(tuple(voices.VOICES))
    exchanges = random.choice((0, 0, 0, 0, 1, 2))
    for index in range(exchanges):
        text = _remark(random, source)
        answer = voices.say_other(voice, text)
        if index == 0 and random.random() < 0.3:
            value = source.value(aside.values, random)
            text = facts.tell(aside, value, random)
            answer = voices.say_told(voice, [facts.fact(aside, value)], text)
        messages += [_message("user", text), _message("assistant", answer)]
    return messages


def _fact_line(attribute: facts.Attribute, value: str, random: Random) -> tuple[str, str]:
    if random.random() < 0.75:
        return random.choice(_PEOPLE), facts.tell(attribute, value, random)
    return "assistant", _any_answer(facts.fact(attribute, value), random)


def _noise_line(attribute: facts.Attribute, random: Random, source: Stock) -> tuple[str, str]:
    chance = random.random()
    if chance < 0.65:
        return _fact_line(attribute, source.value(attribute.values, random), random)
    if chance < 0.75:
        return _asked_before(attribute, facts.fact(attribute, ""), random)
    text = _remark(random, source)
    if chance < 0.9:
        return random.choice(_PEOPLE), text
    return "assistant", voices.say_other(random.choice(tuple(voices.VOICES)), text)


def _asked_before(attribute: facts.Attribute, missing: voices.Fact, random: Random) -> tuple[str, str]:
    text = facts.ask(attribute, random)
    if random.random() < 0.5:
        return "user", text
    return "assistant", voices.say_unknown(random.choice(tuple(voices.VOICES)), missing, text)


def _any_answer(fact: voices.Fact, random: Random) -> str:
    voice = random.choice(tuple(voices.VOICES))
    word = random.choice(("What", "My", "I", "Please", "Where"))
    if random.random() < 0.7:
        return voices.say_told(voice, [fact], word)
    return voices.say_recalled(voice, fact, word)


def _quotes(said: list[tuple[str, str]], random: Random) -> list[Quote]:
    return [
        Quote(
            speaker=speaker,
            day=f"20{random.randint(20, 29)}-{random.randint(1, 12):02}-{random.randint(1, 28):02}",
            content=content,
        )
        for speaker, content in said
    ]


def _system(random: Random) -> str:
    chance = random.random()
    if chance < 0.3:
        return ""
    role = random.choice(_ROLES)
    opening = random.choice(
        (f"You are {_a(role)}.", f"You are {_a(role)}.", f"You are a helpful {role}.", "")
    )
    traits = random.sample(_TRAITS, random.choice((0, 1, 1, 2)))
    return " ".join([part for part in (opening, *traits) if part])


def _topic(random: Random, source: Stock) -> str:
    chance = random.random()
    if chance < 0.4:
        return random.choice(_TOPICS)
    word = random.choice(source.words).lower() if chance < 0.75 else facts.invented(random)
    second = f" {random.choice(source.words).lower()}" if random.random() < 0.3 else ""
    lead = random.choice(("", "", "a ", "the ", "the "))
    tail = random.choice(("", "", "", "", f" of {random.choice(source.words).lower()}"))
    return f"{lead}{word}{second}{tail}"


def _remark(random: Random, source: Stock) -> str:
    chance = random.random()
    if chance < 0.4:
        return random.choice(_REMARKS)
    if chance < 0.55:
        parts = (
            random.choice(_SUBJECTS),
            random.choice(_ACTIONS),
            random.choice(_THINGS),
            random.choice(_WHERE),
        )
        return " ".join(part for part in parts if part) + random.choice(".!")
    if chance < 0.7:
        where = random.choice(_WHERE)
        return f"{random.choice(_ASKED)} {random.choice(_DEEDS)}{' ' if where else ''}{where}?"
    if chance < 0.85:
        return random.choice(source.sentences)
    if chance < 0.92:
        return " ".join(random.choice(source.words) for _ in range(random.randint(1, 12)))
    return f"{random.choice(_REMARKS)} {random.choice(_REMARKS)}"


def _informal(text: str, random: Random) -> str:
    chance = random.random()
    if chance < 0.06:
        return text[:1].lower() + text[1:]
    if chance < 0.12:
        return text.rstrip(".?!") or text
    if chance < 0.18:
        return random.choice(("Hi! ", "Please: ", "Now, ", "Hello. ")) + text
    return text


def _third(verb: str) -> str:
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _message(role: str, content: str) -> ChatMessage:
    return ChatMessage(role="user" if role == "user" else "assistant", content=content)
