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
_ROLES = (
    "philosopher poet coder programmer artist painter writer teacher lawyer doctor chef pirate scientist"
    " historian engineer helper critic gardener wizard tutor"
).split()
_TRAITS = (
    "You answer briefly.",
    "You ask what lies beneath.",
    "You answer with code.",
    "You write clean Python.",
    "You speak in images and colours.",
    "Be kind and short.",
    "Answer in your own voice.",
    "Use what you remember about the user.",
    "Think step by step.",
    "Never lie.",
    "Use simple words.",
    "You help the user.",
)
_TOPICS = (
    "justice|truth|beauty|love|time|death|freedom|free will|happiness|the soul|memory|art|friendship|courage"
    "|knowledge|power|the sea|a sunset|a forest|the moon|rain|a storm|the night sky|winter|spring|a mountain|music"
    "|a river|silence|fire|a garden|a city at night|recursion|a list|a variable|a database|machine learning"
    "|an algorithm|the internet|a computer|a loop|a class|Python|mathematics|money|work|war|peace|hope|fear|dreams"
    "|language|nature|science|history|the future|the past|childhood|home|travel|food|sleep|a cat|a horse|the wind"
    "|an old house|a bridge|snow|a flower|the desert|stars|a candle|coffee|the morning|loneliness|trust|luck"
    "|the meaning of life|good and evil|the human mind|artificial intelligence|climate change|the universe"
).split("|")
_ABOUT = (
    "What is {t}?",
    "What is {t}?",
    "Tell me about {t}.",
    "Tell me something about {t}.",
    "Explain {t}.",
    "Explain {t} to me.",
    "What do you think about {t}?",
    "What do you think of {t}?",
    "Describe {t}.",
    "Describe {t}.",
    "Describe {t} to me.",
    "Paint me {t} in words.",
    "Paint {t}.",
    "Paint me {t}.",
    "Write a poem about {t}.",
    "Write something about {t}.",
    "Write about {t}.",
    "Is {t} real?",
    "Is {t} good?",
    "Is {t} important?",
    "Is {t} possible?",
    "Does {t} exist?",
    "Does {t} matter?",
    "Why does {t} matter?",
    "Why do we need {t}?",
    "What does {t} mean?",
    "How does {t} work?",
    "How do you see {t}?",
    "Can you describe {t}?",
    "Can you explain {t}?",
    "What can you tell me about {t}?",
    "Do you like {t}?",
    "Do you believe in {t}?",
    "Let us talk about {t}.",
    "Give me your thoughts on {t}.",
)
_TASK_FORMS = (
    "Write a function that {third}.",
    "Write a Python function that {third}.",
    "Write a function to {inf}.",
    "Write code to {inf}.",
    "Write a program that {third}.",
    "How do I {inf} in Python?",
    "How do I {inf}?",
    "How can I {inf} in Python?",
    "Show me how to {inf}.",
    "Can you {inf} in Python?",
    "I need a function that {third}.",
    "Implement a function that {third}.",
    "Please write a function that {third}.",
)
_VERBS = (
    "parse merge filter plot delete rename compress encrypt download print rotate validate convert copy shuffle"
    " invert group export send search index format cache scan build test translate draw clean schedule"
).split()
_OBJECTS = (
    "a log file|a table|an image|two lists|the users|a matrix|an email|a tree|the words of a text|a date"
    "|a web page|all numbers|a graph|a password|the rows|a folder|a dictionary|the results|a queue|a sound"
).split("|")
_REMARKS = (
    "Hello!|Hi|Hi there!|Good morning.|Good evening!|Thanks.|Thank you!|How are you?|How are you today?|Who are you?"
    "|What are you?|What can you do?|Help me.|Can you help me?|I am tired.|I am tired today.|I am sad.|I am happy!"
    "|I feel lonely.|I had a long day.|It is raining again.|Yes.|No.|Ok.|Why?|Why not?|Really?|I do not know."
    "|I do not understand.|Tell me a joke.|Sing me a song.|Say something.|What should I do?|What should I eat tonight?"
    "|What should I cook for dinner?|I lost my keys.|My computer is broken.|My code does not work.|It fails again."
    "|Give me advice.|I need advice.|Good night.|Goodbye!|See you tomorrow.|You are wrong.|You are funny.|I agree."
    "|That is interesting.|That was great, thank you.|Let us begin.|Continue.|Go on.|Stop.|I love this.|I hate Mondays."
    "|Should I quit?|Should I move abroad?|Will it rain tomorrow?|Are you human?|Are you alive?|Do you dream?"
    "|Did you sleep well?|Have you seen the sea?|Could you be wrong?|Which one is better?|When will it be ready?"
    "|Where should we go?|Please hurry.|I want to learn something new.|I want to be a better person."
    "|I cannot sleep.|I think therefore I am.|We are going on holiday next week.|They never listen to me."
    "|The meeting was too long.|My boss shouted at me.|The weather is lovely.|She left me.|He is late again."
    "|How many planets are there?|How far is the sun?|Who wrote this book?|Who won the match?|Summarise our talk."
    "|What did we talk about?|What time is it?|Translate this for me.|Make it shorter.|Explain it again.|2 + 2?"
).split("|")
_SUBJECTS = "I|We|They|You|My neighbour|The old man|A child|The teacher|Our team|The dog|Everyone|Nobody|It".split("|")
_ACTIONS = (
    "saw|lost|found|bought|broke|cannot find|will sell|should read|want|forgot|never liked|built|opened|carried"
    "|dreamed of|talked about|ran away from|needs|drew|left|missed"
).split("|")
_THINGS = (
    "the house|a letter|the last train|some bread|an umbrella|the key|a blue door|the answer|the road|old photographs"
    "|the garden|a strange machine|the election|a bus|the news|two tickets|a new phone|the exam|a green apple"
).split("|")
_WHERE = "|in the city|yesterday|last week|near the river|again|at night|with my sister|for no reason|at school".split("|")
_ASKED = (
    "Should I|Can we|Will they|Why did I|Why do they|How can we|When should I|Where can I|Could you|Would you"
    "|Do you think I should|What if we|How often do people|Who would"
).split("|")
_DEEDS = (
    "learn to swim|buy a house|sell the car|cook dinner|travel by train|write a letter|forgive a friend|win the game"
    "|fix the roof|sleep better|grow tomatoes|stop worrying|change my mind|leave early|run a marathon|save money"
    "|read more|paint the wall|help them|start again"
).split("|")
_PEOPLE = ("user",) * 8 + ("Anna", "Ben", "Maria", "guest", "Tom")


class Scene(NamedTuple):
    """A prompt before a voice is chosen, and how each voice answers it."""

    system: str
    quotes: list[Quote]
    history: list[ChatMessage]
    text: str
    answer: Callable[[str], str]


class Stock(NamedTuple):
    """Raw text taken from the standard library: single words and whole sentences."""

    words: tuple[str, ...]
    sentences: tuple[str, ...]


def stock() -> Stock:
    """Words and sentences of the running Python's own documentation and sources."""
    prose = "\n".join(pydoc_data.topics.topics.values())
    text = "\n".join([prose, *(inspect.getsource(module) for module in _SOURCES)])
    words = sorted(set(re.findall(r"\b[A-Za-z][a-z]{2,11}\b", text)))
    found = re.findall(r"(?<=[.:] )[A-Z][A-Za-z0-9 ,'()\"/\-\n]{15,110}[.?](?=\s)", prose)
    sentences = sorted({" ".join(s.split()) for s in found})
    return Stock(tuple(words), tuple(sentences))


def told(random: Random, source: Stock) -> Scene:
    """The user tells one fact, or two."""
    pair = facts.attributes(random, 2)
    values = [facts.value_of(a.values, random, source.words) for a in pair]
    known = [facts.fact(a, v) for a, v in zip(pair, values, strict=True)]
    if random.random() < 0.2:
        text = facts.tell_two(pair[0], values[0], pair[1], values[1], random)
    else:
        known, text = known[:1], facts.tell(pair[0], values[0], random)
    quotes, history = _around(random, source)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_told(voice, known, text))


def recalled(random: Random, source: Stock, lines: int | None = None, common: float = 0.3) -> Scene:
    """The user asks for a fact that the memory (or, seldom, the history) holds."""
    lines = lines or random.choice((1, 1, 2, 2, 3, 4, 5, 6))
    chosen = facts.attributes(random, lines)
    target, value = chosen[0], facts.value_of(chosen[0].values, random, source.words, common)
    known, text = facts.fact(target, value), facts.ask(target, random)
    said = [_fact_line(target, value, random)]
    if lines > 1 and random.random() < 0.25:
        said.append(_fact_line(target, value, random))
    said += [_noise_line(other, random, source) for other in chosen[len(said) :]]
    random.shuffle(said)
    history = _history(random, source)
    if lines == 1 and random.random() < 0.15:
        history = [_message("user", facts.tell(target, value, random)), _message("assistant", _any_answer(known, random))]
        said = []
    return Scene(
        _system(random), _quotes(said, random), history, text, lambda voice: voices.say_recalled(voice, known, text)
    )


def unknown(random: Random, source: Stock, lines: int | None = None) -> Scene:
    """The user asks for a fact that is nowhere in the prompt."""
    count = random.choice((0, 0, 1, 2, 3, 4, 5, 6)) if lines is None else lines
    chosen = facts.attributes(random, count + 1)
    missing, text = facts.fact(chosen[0], ""), facts.ask(chosen[0], random)
    said = [_noise_line(other, random, source) for other in chosen[1:]]
    if said and random.random() < 0.2:
        said[0] = _asked_before(chosen[0], missing, random)
    history = _history(random, source)
    return Scene(
        _system(random), _quotes(said, random), history, text, lambda voice: voices.say_unknown(voice, missing, text)
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
    if random.random() < 0.6:
        infinitive, third, code = random.choice(voices.TASKS)
        text = _informal(form.format(inf=infinitive, third=third), random)
        return Scene(_system(random), quotes, history, text, lambda voice: voices.say_task(voice, code, text))
    verb = random.choice(_VERBS) if random.random() < 0.6 else facts.invented(random)
    what = random.choice(_OBJECTS) if random.random() < 0.6 else f"a {random.choice(source.words)}"
    goal = f"{verb}{'s' if '{third}' in form else ''} {what}"
    text = _informal(form.format(inf=goal, third=goal), random)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_goal(voice, goal, text))


def other(random: Random, source: Stock) -> Scene:
    """Any other text."""
    text = _informal(_remark(random, source), random)
    quotes, history = _around(random, source)
    return Scene(_system(random), quotes, history, text, lambda voice: voices.say_other(voice, text))


KINDS: tuple[tuple[float, Callable[[Random, Stock], Scene]], ...] = (
    (0.38, recalled),
    (0.16, unknown),
    (0.13, told),
    (0.13, about),
    (0.07, task),
    (0.13, other),
)


def scene(random: Random, source: Stock) -> Scene:
    """A random scene of any kind."""
    return random.choices([make for _, make in KINDS], [weight for weight, _ in KINDS])[0](random, source)


def spoken(scene: Scene, voice: str) -> tuple[list[ChatMessage], str]:
    """The product's messages for a scene, and the answer of one voice."""
    messages = chat_messages(
        system=scene.system, quotes=scene.quotes, history=scene.history, text=scene.text
    )
    return messages, scene.answer(voice)


def interview(random: Random, source: Stock, voice: str) -> list[ChatMessage]:
    """One memory, then many questions about it: many answers to learn from in few tokens."""
    chosen = facts.attributes(random, random.randint(2, 5))
    values = [facts.value_of(a.values, random, source.words, common=0.15) for a in chosen]
    pairs = list(zip(chosen, values, strict=True))
    quotes = _quotes([_fact_line(a, v, random) for a, v in pairs], random)
    missing = facts.attribute(random)
    asked = [(a, v) for a, v in pairs] + ([(missing, "")] if missing.key not in {a.key for a in chosen} else [])
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
    return _quotes(said, random), _history(random, source)


def _history(random: Random, source: Stock) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    voice = random.choice(tuple(voices.VOICES))
    for _ in range(random.choice((0, 0, 0, 0, 1, 2))):
        text = _remark(random, source)
        messages += [_message("user", text), _message("assistant", voices.say_other(voice, text))]
    return messages


def _fact_line(attribute: facts.Attribute, value: str, random: Random) -> tuple[str, str]:
    if random.random() < 0.75:
        return random.choice(_PEOPLE), facts.tell(attribute, value, random)
    return "assistant", _any_answer(facts.fact(attribute, value), random)


def _noise_line(attribute: facts.Attribute, random: Random, source: Stock) -> tuple[str, str]:
    chance = random.random()
    if chance < 0.65:
        return _fact_line(attribute, facts.value_of(attribute.values, random, source.words), random)
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
    opening = random.choice((f"You are {_a(role)}.", f"You are {_a(role)}.", f"You are a helpful {role}.", ""))
    traits = random.sample(_TRAITS, random.choice((0, 1, 1, 2)))
    return " ".join([part for part in (opening, *traits) if part])


def _topic(random: Random, source: Stock) -> str:
    chance = random.random()
    if chance < 0.4:
        return random.choice(_TOPICS)
    word = random.choice(source.words).lower() if chance < 0.75 else facts.invented(random)
    second = f" {random.choice(source.words).lower()}" if random.random() < 0.3 else ""
    lead = random.choice(("", "", "a ", "the ", "the ", "my "))
    tail = random.choice(("", "", "", "", f" of {random.choice(source.words).lower()}"))
    return f"{lead}{word}{second}{tail}"


def _remark(random: Random, source: Stock) -> str:
    chance = random.random()
    if chance < 0.4:
        return random.choice(_REMARKS)
    if chance < 0.55:
        parts = (random.choice(_SUBJECTS), random.choice(_ACTIONS), random.choice(_THINGS), random.choice(_WHERE))
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


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _message(role: str, content: str) -> ChatMessage:
    return ChatMessage(role="user" if role == "user" else "assistant", content=content)
