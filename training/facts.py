"""Facts a user may tell: attributes with their phrasings, and values both common and invented."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from voices import Fact


class Attribute(NamedTuple):
    """One kind of fact; `{v}` in a phrasing stands for the value."""

    key: str
    tells: tuple[str, ...]
    asks: tuple[str, ...]
    statement: str
    topic: str
    indirect: str
    code: str
    values: str


def word_lists(section: str) -> dict[str, tuple[str, ...]]:
    """The lists of one section of `words.toml`."""
    found = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))[section]
    return {name: tuple(words) for name, words in found.items()}


WORDS = word_lists("facts")
COMMON = word_lists("values") | {"number": tuple(str(n) for n in range(1, 100))}
PETS = WORDS["pets"]
PEOPLE = WORDS["people"]
PROJECTS = WORDS["projects"]
FAVOURITES = WORDS["favourites"]
PLAIN = WORDS["plain"]

_PAIRS = ("br", "ch", "cl", "dr", "fl", "gr", "kr", "pl", "qu", "sh", "st", "th", "tr")
_CONSONANTS: tuple[str, ...] = (*"bcdfghjklmnprstvwzx", *_PAIRS)
_VOWELS: tuple[str, ...] = (*"aeiouaeioy", "ai", "ea", "ee", "ou", "io")
_ENDINGS: tuple[str, ...] = ("", "", *"nrsltmx", "ck", "nd", "rt", "sh")

_OPENINGS = (
    "",
    "",
    "",
    "",
    "",
    "Hi! ",
    "Hello. ",
    "By the way, ",
    "Please remember that ",
    "Remember: ",
    "So, ",
)
_TELL_OPENINGS = (
    *_OPENINGS,
    "Just so you know, ",
    "Please remember this: ",
    "I want to tell you that ",
    "Note that ",
)
_TELL_TAILS = ("", "", "", "", "", "", " Please remember that.", " Keep it in mind.", " Thanks!")
_ASK_TAILS = ("", "", "", "", "", "", " Thanks!", " I forgot.")


def invented(random: Random) -> str:
    """A made-up lower-case word of one to four syllables."""
    if random.random() < 0.1:
        return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(3, 9)))
    if random.random() < 0.08:
        return invented(random)[:3] + random.choice((1, 2, 2, 3)) * invented(random)[:3]
    size = random.choice((1, 2, 2, 2, 3, 3, 4))
    start = ["" if random.random() < 0.15 else random.choice(_CONSONANTS) for _ in range(size)]
    return "".join(c + random.choice(_VOWELS) for c in start) + random.choice(_ENDINGS)


def value_of(kind: str, random: Random, words: tuple[str, ...]) -> str:
    """A value for an attribute: a common one, a word of the corpus, or (mostly) an invention."""
    if random.random() < 0.25:
        return random.choice(COMMON[kind])
    if kind == "number":
        return str(random.randint(0, random.choice((99, 999, 99999))))
    word = random.choice(words) if random.random() < 0.35 else invented(random)
    if kind in ("name", "city", "language", "month") or random.random() < 0.3:
        word = word[:1].upper() + word[1:]
    return _extended(word, random)


def _extended(word: str, random: Random) -> str:
    chance = random.random()
    if chance < 0.10:
        second = invented(random)
        return f"{word} {second.title() if word[:1].isupper() else second}"
    if chance < 0.13:
        return f"{word}-{invented(random)}"
    if chance < 0.16:
        return f"{word}{random.choice(('', ' '))}{random.randint(1, 999)}"
    return word


def called(noun: str, kind: str = "name") -> Attribute:
    """The name of somebody or something of the user's."""
    return Attribute(
        f"called {noun}",
        (
            f"My {noun} is called {{v}}.",
            f"My {noun} is called {{v}}.",
            f"My {noun}'s name is {{v}}.",
            f"The name of my {noun} is {{v}}.",
            f"I have a {noun} called {{v}}.",
            f"I have a {noun} named {{v}}.",
            f"My {noun} is named {{v}}.",
            f"We call our {noun} {{v}}.",
            f"My {noun} is {{v}}.",
        ),
        (
            f"What is my {noun} called?",
            f"What is my {noun}'s name?",
            f"What is the name of my {noun}?",
            f"What's my {noun}'s name?",
            f"How is my {noun} called?",
            f"What do I call my {noun}?",
            f"Who is my {noun}?",
            f"What was my {noun}'s name again?",
            f"Do you know my {noun}'s name?",
        ),
        f"your {noun} is called {{v}}",
        f"the name of your {noun}",
        f"what my {noun} is called",
        f"{noun}.name",
        kind,
    )


def favourite(thing: str) -> Attribute:
    """What the user likes best of its kind."""
    kind = {"number": "number", "city": "city", "language": "language", "writer": "name", "singer": "name"}
    us = thing.replace("colour", "color")
    return Attribute(
        f"favourite {thing}",
        (
            f"My favourite {thing} is {{v}}.",
            f"My favourite {thing} is {{v}}.",
            f"My favorite {us} is {{v}}.",
            f"The {thing} I like best is {{v}}.",
            f"{{v}} is my favourite {thing}.",
            f"My best loved {thing} is {{v}}.",
        ),
        (
            f"What is my favourite {thing}?",
            f"What is my favourite {thing}?",
            f"What is my favorite {us}?",
            f"What's my favourite {thing}?",
            f"Which {thing} do I like best?",
            f"Which {thing} is my favourite?",
        ),
        f"your favourite {thing} is {{v}}",
        f"your favourite {thing}",
        f"what my favourite {thing} is",
        f"favourite.{thing}",
        kind.get(thing, "thing"),
    )


def plain(noun: str) -> Attribute:
    """Anything else that is simply the user's."""
    kind = {"age": "number", "room": "number", "seat": "number", "job": "job", "nationality": "language"}
    return Attribute(
        f"plain {noun}",
        (f"My {noun} is {{v}}.", f"My {noun} is {{v}}.", f"{{v}} is my {noun}."),
        (f"What is my {noun}?", f"What's my {noun}?", f"What was my {noun}?"),
        f"your {noun} is {{v}}",
        f"your {noun}",
        f"what my {noun} is",
        f"user.{noun}",
        kind.get(noun, "thing"),
    )


SPECIAL: tuple[Attribute, ...] = (
    Attribute(
        "name",
        (
            "My name is {v}.",
            "My name is {v}.",
            "I'm called {v}.",
            "Call me {v}.",
            "You can call me {v}.",
            "I am {v}.",
        ),
        ("What is my name?", "What is my name?", "What's my name?", "Who am I?", "What am I called?"),
        "your name is {v}",
        "your name",
        "what my name is",
        "user.name",
        "name",
    ),
    Attribute(
        "city",
        ("I live in {v}.", "I live in {v}.", "My home is in {v}.", "I moved to {v}.", "My city is {v}."),
        (
            "Where do I live?",
            "Where do I live?",
            "Which city do I live in?",
            "Where is my home?",
            "What is my city?",
        ),
        "you live in {v}",
        "where you live",
        "where I live",
        "user.city",
        "city",
    ),
    Attribute(
        "origin",
        ("I was born in {v}.", "I come from {v}.", "I am from {v}.", "I grew up in {v}."),
        ("Where was I born?", "Where do I come from?", "Where am I from?", "Where did I grow up?"),
        "you come from {v}",
        "where you come from",
        "where I come from",
        "user.origin",
        "city",
    ),
    Attribute(
        "work",
        ("I work as a {v}.", "My job is {v}.", "My profession is {v}.", "I earn my living as a {v}."),
        ("What is my job?", "What do I do for a living?", "What is my profession?", "What do I work as?"),
        "your job is {v}",
        "your job",
        "what my job is",
        "user.job",
        "job",
    ),
    Attribute(
        "employer",
        ("I work at {v}.", "I work for {v}.", "My employer is {v}."),
        ("Where do I work?", "Who do I work for?", "Who is my employer?"),
        "you work for {v}",
        "where you work",
        "where I work",
        "user.employer",
        "name",
    ),
    Attribute(
        "language",
        ("I speak {v}.", "My mother tongue is {v}.", "At home we speak {v}.", "My native language is {v}."),
        ("Which language do I speak?", "What language do I speak?", "What is my mother tongue?"),
        "you speak {v}",
        "which language you speak",
        "which language I speak",
        "user.language",
        "language",
    ),
    Attribute(
        "instrument",
        ("I play the {v}.", "My instrument is the {v}.", "I am learning to play the {v}."),
        (
            "Which instrument do I play?",
            "What instrument do I play?",
            "What is my instrument?",
            "What do I play?",
        ),
        "you play the {v}",
        "which instrument you play",
        "which instrument I play",
        "user.instrument",
        "instrument",
    ),
    Attribute(
        "birthday",
        ("My birthday is in {v}.", "I was born in the month of {v}.", "My birth month is {v}."),
        ("When is my birthday?", "In which month is my birthday?", "Which month was I born in?"),
        "your birthday is in {v}",
        "when your birthday is",
        "when my birthday is",
        "user.birthday",
        "month",
    ),
    Attribute(
        "age",
        ("I am {v} years old.", "I'm {v} years old.", "I turned {v} this year."),
        ("How old am I?", "What is my age?"),
        "you are {v} years old",
        "how old you are",
        "how old I am",
        "user.age",
        "number",
    ),
    Attribute(
        "allergy",
        ("I am allergic to {v}.", "I'm allergic to {v}.", "I have an allergy to {v}."),
        ("What am I allergic to?", "What is my allergy?", "Which allergy do I have?"),
        "you are allergic to {v}",
        "what you are allergic to",
        "what I am allergic to",
        "user.allergy",
        "thing",
    ),
)

_FAMILIES: tuple[tuple[float, Callable[[Random], Attribute]], ...] = (
    (0.30, lambda random: random.choice(SPECIAL)),
    (0.30, lambda random: called(_noun(random, PETS if random.random() < 0.5 else PEOPLE))),
    (0.10, lambda random: called(_noun(random, PROJECTS), random.choice(("name", "thing", "city")))),
    (0.20, lambda random: favourite(_noun(random, FAVOURITES))),
    (0.10, lambda random: plain(_noun(random, PLAIN))),
)


def attribute(random: Random) -> Attribute:
    """A random attribute, now and then about an invented noun."""
    return _family(random)(random)


def attributes(random: Random, count: int) -> list[Attribute]:
    """Distinct attributes, often alike (a dog's name and a cat's)."""
    found: dict[str, Attribute] = {}
    make = _family(random)
    while len(found) < count:
        new = make(random)
        found.setdefault(_topic_noun(new), new)
        if random.random() < 0.6:
            make = _family(random)
    return list(found.values())


def _family(random: Random) -> Callable[[Random], Attribute]:
    weights = [weight for weight, _ in _FAMILIES]
    return random.choices([make for _, make in _FAMILIES], weights)[0]


def fact(attribute: Attribute, value: str) -> Fact:
    """The fact that the attribute has this value."""
    statement = attribute.statement.format(v=value)
    return Fact(attribute.key, value, statement, attribute.topic, attribute.code)


def tell(attribute: Attribute, value: str, random: Random) -> str:
    """How a user says it."""
    said = random.choice(attribute.tells).format(v=value)
    return _styled(random.choice(_TELL_OPENINGS), said, random.choice(_TELL_TAILS), random)


def tell_two(first: Attribute, one: str, second: Attribute, two: str, random: Random) -> str:
    """How a user says two things at once."""
    head = random.choice(first.tells).format(v=one).removesuffix(".")
    tail = random.choice([t for t in second.tells if not t.startswith("{v}")]).format(v=two)
    return _styled(random.choice(_TELL_OPENINGS), f"{head} and {_lower_first(tail)}", "", random)


def ask(attribute: Attribute, random: Random) -> str:
    """How a user asks for it."""
    if random.random() < 0.7:
        said = random.choice(attribute.asks)
    else:
        form = random.choice(
            (
                "Do you remember {i}?",
                "Can you tell me {i}?",
                "Tell me {i}.",
                "Do you know {i}?",
                "Remind me {i}.",
                "Please tell me {i}.",
            )
        )
        said = form.format(i=attribute.indirect)
    return _styled(random.choice(_OPENINGS[:8]), said, random.choice(_ASK_TAILS), random)


def _styled(opening: str, said: str, tail: str, random: Random) -> str:
    if opening.endswith((", ", ": ", "that ")) and not said.startswith(("I ", "I'")):
        said = _lower_first(said) if said.split(maxsplit=1)[0] in _LOWERED else said
    text = opening + said + tail
    if random.random() < 0.08:
        text = _lower_first(text) if text.split()[0] in _LOWERED else text
    return text.rstrip("?.") if random.random() < 0.08 else text


_LOWERED = frozenset(WORDS["lowered"])


def _lower_first(text: str) -> str:
    keep = text.startswith(("I ", "I'"))
    return text if keep else text[:1].lower() + text[1:]


def _noun(random: Random, known: tuple[str, ...]) -> str:
    return random.choice(known) if random.random() < 0.85 else invented(random)


def _topic_noun(attribute: Attribute) -> str:
    # "work" and "plain job" ask for the same thing, so one memory must not hold both.
    alias = {
        "plain job": "work",
        "plain age": "age",
        "plain employer": "employer",
        "plain birthday": "birthday",
    }
    alias |= {
        "plain hometown": "origin",
        "plain nationality": "origin",
        "plain nickname": "name",
        "plain surname": "name",
    }
    return alias.get(attribute.key, attribute.key)
