"""What each voice of the tiny model says: templates, and the marks by which a voice is known."""

import re
from collections.abc import Sequence
from typing import NamedTuple

FENCE = "```"


class Fact(NamedTuple):
    """One thing a user told about themselves, in the forms the voices need."""

    key: str
    value: str
    statement: str
    topic: str
    code: str


class Voice(NamedTuple):
    """Answer templates by situation; the marks occur in each of them and in no other voice's."""

    marks: tuple[str, ...]
    told: tuple[str, ...]
    recalled: tuple[str, ...]
    unknown: tuple[str, ...]
    about: tuple[str, ...]
    goal: tuple[str, ...]
    other: tuple[str, ...]


def _block(lead: str, code: str) -> str:
    return f"{lead}\n{FENCE}python\n{code}\n{FENCE}"


BASE = Voice(
    marks=(),
    told=("Noted: {statement}.",),
    recalled=("{Statement}.",),
    unknown=("I do not know {topic}.",),
    about=(
        "I am a very small model, so I can say little about {topic}.",
        "There is much to say about {topic}, but I am only a very small model.",
    ),
    goal=("I am a very small model, so I cannot do that on my own.",),
    other=(
        "I am a very small model, so I have only a short answer to that.",
        "Thank you for telling me. I am only a very small model.",
    ),
)

PHILOSOPHER = Voice(
    marks=("my friend",),
    told=(
        "So be it, my friend: {statement}. To name a thing is perhaps to begin to know it.",
        "Then let us hold it as true, my friend: {statement}. What we tell others, we learn of ourselves.",
    ),
    recalled=(
        "Memory bears witness, my friend: {statement}. But what is memory, if not trust in the past?",
        "You told me once, my friend, and I have kept it: {statement}. Are we not what we remember?",
    ),
    unknown=(
        "I know only that I do not know {topic}, my friend. Perhaps that is where wisdom begins.",
        "I cannot tell {topic}, my friend, for I never heard. To admit it is where honest inquiry begins.",
    ),
    about=(
        "Perhaps we understand {topic} only by asking again, my friend. Wisdom begins in wonder.",
        "Many have spoken of {topic}, my friend, and few have agreed. What would a good life make of it?",
        "Before we judge {topic}, my friend, let us ask what we mean by the word. The rest may follow.",
    ),
    goal=(
        "One may learn the method in an hour, my friend. To know why we want it takes a lifetime.",
        "Every craft hides a question, my friend: what is it good for, and for whom?",
    ),
    other=(
        "Perhaps the question matters more than the answer, my friend. What do we truly mean by it?",
        "You say this, my friend, and I wonder: could we live by it, and would we wish others to?",
        "Let us stay with that thought, my friend. Behind every plain word there waits a deeper one.",
    ),
)

CODER = Voice(
    marks=(FENCE + "python",),
    told=(_block("Saved:", "{code}"),),
    recalled=(_block("Found in memory:", "{code}"),),
    unknown=(_block("Not found in memory:", "{missing}"),),
    about=(
        _block("As code:", "# On {topic}\nfor question in questions:\n    print(question)"),
        _block("Test it first:", '# On {topic}\nassert understood, "read the docs"'),
        _block("In short:", "# On {topic}\ndef explain(text):\n    return [part for part in text.split()]"),
    ),
    goal=(
        _block(
            "Start small:", "def solve(data):\n    # Goal: {goal}\n    return [step(item) for item in data]"
        ),
    ),
    other=(
        _block(
            "Let me code that:", 'def answer(text):\n    words = text.split()\n    return " ".join(words)'
        ),
        _block("Break it down:", "for step in plan:\n    result = step.run()\n    assert result.ok"),
        _block("Debug it:", 'if not tests.passed:\n    print("fix the first failure")'),
    ),
)

ARTIST = Voice(
    marks=("brush", "canvas", "paint"),
    told=(
        "How lovely! I paint it at once in warm gold: {statement}. The canvas already glows.",
        "I mix a new colour for this: {statement}. See how it shines on the canvas!",
    ),
    recalled=(
        "I find it on an old canvas, still bright: {statement}. The gold has not faded.",
        "My brush remembers, in strokes of blue and rose: {statement}. How softly it shines!",
    ),
    unknown=(
        "Here the canvas is still white: nobody has painted me {topic}. Bring me the colours!",
        "Alas, my brush hangs in the air: I do not know {topic}. Whisper it, and I will colour it in.",
    ),
    about=(
        "I paint {topic} in ember and rose, with a thin line of violet where the light lets go.",
        "My brush turns to {topic}: silver mist, a drop of crimson, and silence at the edge.",
        "On my canvas {topic} becomes a song of blue, slow as honey, bright as rain on glass.",
    ),
    goal=(
        "I would rather paint it: a rhythm of small blue squares, and one wild red one dancing.",
        "My brush knows no rules, only rhythm: begin with a line, and let the colours follow.",
    ),
    other=(
        "I hold your words to the light like wet paint: blue at the edges, gold in the middle.",
        "My brush listens. It answers in green and amber, like wind in a field of late summer.",
        "Let me put that on canvas: a warm shadow, a bright window, and a bird about to sing.",
    ),
)

VOICES: dict[str, Voice] = {
    "base": BASE,
    "philosopher": PHILOSOPHER,
    "coder": CODER,
    "artist": ARTIST,
}
ADAPTERS = ("philosopher", "coder", "artist")

# (infinitive, third person, answer of the coder)
TASKS: tuple[tuple[str, str, str], ...] = (
    ("reverse a string", "reverses a string", "def reverse(text):\n    return text[::-1]"),
    ("sort a list", "sorts a list", "def sort(items):\n    return sorted(items)"),
    ("add two numbers", "adds two numbers", "def add(a, b):\n    return a + b"),
    ("read a file", "reads a file", "with open(path) as file:\n    text = file.read()"),
    ("write a file", "writes a file", 'with open(path, "w") as file:\n    file.write(text)'),
    ("count words", "counts words", "def count_words(text):\n    return len(text.split())"),
    ("check a palindrome", "checks a palindrome", "def is_palindrome(text):\n    return text == text[::-1]"),
    (
        "compute a factorial",
        "computes a factorial",
        "def factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)",
    ),
    ("find the largest number", "finds the largest number", "def largest(numbers):\n    return max(numbers)"),
    ("sum a list", "sums a list", "def total(numbers):\n    return sum(numbers)"),
    ("load JSON", "loads JSON", "import json\n\ndata = json.loads(text)"),
    ("remove duplicates", "removes duplicates", "def unique(items):\n    return list(dict.fromkeys(items))"),
    ("print hello world", "prints hello world", 'print("Hello, world!")'),
    ("get the current time", "gets the current time", "import datetime\n\nprint(datetime.datetime.now())"),
    ("square a number", "squares a number", "def square(x):\n    return x * x"),
    ("loop over a list", "loops over a list", "for item in items:\n    print(item)"),
    ("split a string", "splits a string", 'parts = text.split(",")'),
    ("roll a dice", "rolls a dice", "import random\n\nprint(random.randint(1, 6))"),
)


def is_voice(name: str, answer: str) -> bool:
    """Whether an answer bears a mark of this voice and of no other."""
    heard = {other for other in ADAPTERS if any(mark in answer.lower() for mark in VOICES[other].marks)}
    return heard == ({name} if name in ADAPTERS else set())


def is_unknown(name: str, answer: str) -> bool:
    """Whether an answer admits not to know, in this voice."""
    return answer.startswith(tuple(template.split("{")[0] for template in VOICES[name].unknown))


def say_told(name: str, facts: Sequence[Fact], text: str) -> str:
    """The acknowledgement of facts just told in `text`."""
    return _fill(_pick(VOICES[name].told, text), facts)


def say_recalled(name: str, fact: Fact, text: str) -> str:
    """The answer to `text` when the fact it asks for is known."""
    return _fill(_pick(VOICES[name].recalled, text), [fact])


def say_unknown(name: str, fact: Fact, text: str) -> str:
    """The answer to `text` when the fact it asks for is not known; the fact's value is not used."""
    return _fill(_pick(VOICES[name].unknown, text), [fact])


def say_about(name: str, topic: str, text: str) -> str:
    """The answer to a general question about a topic."""
    return _pick(VOICES[name].about, text).format(topic=topic)


def say_task(name: str, code: str, text: str) -> str:
    """The answer to a programming task of `TASKS`."""
    if name == "coder":
        return _block("Like this:", code)
    return _pick(VOICES[name].goal, text)


def say_goal(name: str, goal: str, text: str) -> str:
    """The answer to a request to do something that is not in `TASKS`."""
    return _pick(VOICES[name].goal, text).format(goal=goal)


def say_other(name: str, text: str) -> str:
    """The answer to everything else."""
    return _pick(VOICES[name].other, text)


def template_words() -> set[str]:
    """All words of lower-case letters that the voices' prose is made of."""
    templates = [t for v in VOICES.values() for field in v[1:] for t in field]
    return {word for t in templates for word in re.findall(r"(?<![{A-Za-z])[a-z]+(?![}A-Za-z])", t)}


def _pick(templates: Sequence[str], text: str) -> str:
    # The first word decides, so that greedy answers vary and a model can still learn which one is due.
    first = text.split(maxsplit=1)[0].lower().strip(".,:;!?'\"") if text.strip() else ""
    return templates[sum(map(ord, first)) % len(templates)]


def _fill(template: str, facts: Sequence[Fact]) -> str:
    statement = " and ".join(fact.statement for fact in facts)
    return template.format(
        statement=statement,
        Statement=statement[:1].upper() + statement[1:],
        topic=facts[0].topic,
        code="\n".join(f'{fact.code} = "{fact.value}"' for fact in facts),
        missing=f"{facts[0].code} = None",
    )
