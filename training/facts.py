"""Facts a user may tell: attributes with their phrasings, and values both common and invented."""

from collections.abc import Callable
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


COMMON: dict[str, tuple[str, ...]] = {
    "name": tuple(
        "Anna Bella Bruno Clara Daniel Elena Felix Greta Hugo Ida Jonas Karl Lena Luna Max Milo Nora Oscar Paula"
        " Rex Rosa Sam Sofia Theo Tom Vera Yuki Zara Ahmed Priya Wei Fatima Diego Bella Charlie Coco Daisy Jack"
        " Maria Peter John Emma Olivia Liam Noah Ava Lucy Molly Buddy Bailey Whiskers Shadow Tiger".split()
    ),
    "city": tuple(
        "Berlin Paris London Rome Madrid Lisbon Vienna Oslo Tokyo Delhi Cairo Lima Boston Chicago Toronto Sydney"
        " Prague Dublin Athens Hamburg Munich Zurich Geneva Milan Seoul Nairobi Denver Porto".split()
    )
    + ("New York", "San Francisco", "Rio de Janeiro", "Cape Town", "Hong Kong", "Buenos Aires"),
    "thing": tuple(
        "red blue green yellow purple orange pink black white grey teal brown crimson pizza pasta rice bread soup"
        " sushi cheese apples cake tea coffee water juice milk spring summer autumn winter football tennis chess"
        " swimming reading cooking hiking dancing jazz rock Python Rust Java roses tulips cats horses".split()
    )
    + ("fried rice", "dark blue", "apple pie", "green tea", "War and Peace", "The Hobbit", "Star Wars"),
    "job": tuple(
        "baker teacher nurse doctor lawyer farmer plumber pilot painter engineer artist actor architect chef"
        " driver writer singer gardener librarian carpenter electrician editor".split()
    )
    + ("data scientist", "software engineer", "taxi driver"),
    "language": tuple("English French German Spanish Italian Dutch Polish Turkish Hindi Arabic Korean".split()),
    "instrument": tuple("piano violin guitar cello flute harp drums trumpet oboe organ banjo tuba".split()),
    "month": tuple(
        "January February March April May June July August September October November December".split()
    ),
    "number": tuple(str(n) for n in range(1, 100)),
}

PETS = tuple("dog cat horse parrot rabbit hamster goldfish tortoise snake pony hen goat sheep donkey".split())
PEOPLE = tuple(
    "sister brother mother father wife husband son daughter boss teacher neighbour friend uncle aunt doctor"
    " colleague partner cousin grandmother nephew landlord roommate".split()
)
PROJECTS = tuple(
    "project boat car house robot company team band startup farm garden school ship novel game server plant"
    " laptop bike truck club street village shop app blog restaurant hotel cafe".split()
)
FAVOURITES = tuple(
    "colour food drink book film song season number animal sport game city country flower fruit dish movie band"
    " subject tree language word writer singer painter dessert cheese planet bird team toy hobby".split()
)
PLAIN = tuple(
    "job hobby age nationality surname nickname address deadline seat flight room birthday hometown employer"
    " dream plan goal motto hero budget grade subject ticket locker badge code nationality major desk".split()
)

_CONSONANTS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl qu sh sk st th tr x".split()
_VOWELS = "a e i o u a e i o ai ea ee ou y io".split()
_ENDINGS = " n r s l t m ck x nd rt sh ".split(" ")

_OPENINGS = ("", "", "", "", "", "Hi! ", "Hello. ", "By the way, ", "Please remember that ", "Remember: ", "So, ")
_TELL_OPENINGS = (*_OPENINGS, "Just so you know, ", "Please remember this: ", "I want to tell you that ", "Note that ")
_TELL_TAILS = ("", "", "", "", "", "", " Please remember that.", " Keep it in mind.", " Thanks!")
_ASK_TAILS = ("", "", "", "", "", "", " Thanks!", " I forgot.")


def invented(random: Random) -> str:
    """A made-up lower-case word of one to four syllables."""
    size = random.choice((1, 2, 2, 2, 3, 3, 4))
    return "".join(
        random.choice(_CONSONANTS) * (random.random() < 0.85) + random.choice(_VOWELS) for _ in range(size)
    ) + random.choice(_ENDINGS)


def value_of(kind: str, random: Random, words: tuple[str, ...], common: float = 0.3) -> str:
    """A value for an attribute: a common one, a word of the corpus, or (mostly) an invention."""
    if random.random() < common:
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
        ("My name is {v}.", "My name is {v}.", "I'm called {v}.", "Call me {v}.", "You can call me {v}.", "I am {v}."),
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
        ("Where do I live?", "Where do I live?", "Which city do I live in?", "Where is my home?", "What is my city?"),
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
        ("Which instrument do I play?", "What instrument do I play?", "What is my instrument?", "What do I play?"),
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
    weights = [weight for weight, _ in _FAMILIES]
    make = random.choices([make for _, make in _FAMILIES], weights)[0]
    return make(random)


def attributes(random: Random, count: int) -> list[Attribute]:
    """Distinct attributes, in random order."""
    found: dict[str, Attribute] = {}
    while len(found) < count:
        new = attribute(random)
        found[_topic_noun(new)] = new
    return list(found.values())


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
        said = _lower_first(said) if said.split()[0] in _LOWERED else said
    text = opening + said + tail
    if random.random() < 0.08:
        text = _lower_first(text) if text.split()[0] in _LOWERED else text
    return text.rstrip("?.") if random.random() < 0.08 else text


_LOWERED = frozenset("My The We At What Which Where When Who How Do Can Tell Remind Please Call You In".split())


def _lower_first(text: str) -> str:
    keep = text.startswith(("I ", "I'"))
    return text if keep else text[:1].lower() + text[1:]


def _noun(random: Random, known: tuple[str, ...]) -> str:
    return random.choice(known) if random.random() < 0.85 else invented(random)


def _topic_noun(attribute: Attribute) -> str:
    # "work" and "plain job" ask for the same thing, so one memory must not hold both.
    alias = {"plain job": "work", "plain age": "age", "plain employer": "employer", "plain birthday": "birthday"}
    alias |= {"plain hometown": "origin", "plain nationality": "origin", "plain nickname": "name", "plain surname": "name"}
    return alias.get(attribute.key, attribute.key)
