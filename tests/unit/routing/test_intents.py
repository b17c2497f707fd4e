"""The owner of the classifier: opening, asking, changing roles while it is asked."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from agentflow.errors import ConfigError, EmbedderError
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Message
from agentflow.routing.intents import Intents
from agentflow.routing.roles import Lesson, RoleExamples
from agentflow.settings.routing import RouterSettings

COOK = RoleExamples(
    "cook", examples=("boil an egg", "bake a bread", "how long to boil rice", "fry an onion", "bake a cake")
)


class Counting(FakeEmbedder):
    """Remembers what it was asked to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def embed(self, texts):
        self.asked += texts
        return await super().embed(texts)


@pytest.fixture
async def intents(roles):
    opened = Intents(FakeEmbedder(), roles, RouterSettings())
    await opened.open()
    yield opened
    await opened.close()


async def best(intents: Intents, text: str, **more) -> str:
    return (await intents.classify(Message(text, **more)))["ranking"][0]["role"]


async def test_a_decision_says_why(intents) -> None:
    found = await intents.classify(Message("my python function never ends"))
    assert found["ranking"][0]["role"] == found["nearest"][0]["role"] == "coder"
    assert found["in_scope"]
    assert found["scope_score"] >= found["scope_threshold"]
    assert found["confidence"] == pytest.approx(found["ranking"][0]["score"], abs=1e-4)
    assert [one["role"] for one in found["parts"]] == [one["role"] for one in found["ranking"]]
    assert (found["calibration"], found["looked_at"]) == ("fresh", "alone")
    assert {"router", "embed_ms", "decide_ms", "margin", "margin_threshold", "intent", "features"} <= set(
        found
    )


async def test_the_same_input_gives_the_same_decision(intents, roles) -> None:
    again = Intents(FakeEmbedder(), roles[::-1], RouterSettings())
    await again.open()
    message = Message("paint a python function")
    ours, theirs = await intents.classify(message), await again.classify(message)
    times = ("embed_ms", "decide_ms")
    assert {k: v for k, v in ours.items() if k not in times} == {
        k: v for k, v in theirs.items() if k not in times
    }


async def test_a_short_follow_up_is_looked_at_with_the_turn_before(intents) -> None:
    follow_up = await intents.classify(Message("make it warmer", previous=("paint a sunset over the sea",)))
    assert follow_up["ranking"][0]["role"] == "artist"
    assert follow_up["looked_at"] == "with the turns before"


async def test_a_short_message_that_is_typical_by_itself_is_looked_at_alone(intents) -> None:
    found = await intents.classify(Message("this python function", previous=("paint a sunset over the sea",)))
    assert (found["ranking"][0]["role"], found["looked_at"]) == ("coder", "alone")


async def test_long_text_is_cut_where_the_setting_says(roles) -> None:
    embedder = Counting()
    intents = Intents(embedder, roles, RouterSettings(text_limit=200))
    await intents.open()
    await intents.classify(Message("paint " * 20000))
    assert len(embedder.asked[-1]) == 200


async def test_without_roles_nothing_is_in_scope() -> None:
    intents = Intents(FakeEmbedder(), [], RouterSettings())
    await intents.open()
    assert await intents.classify(Message("hello")) == {"ranking": [], "in_scope": False, "router": ""}


async def test_an_added_role_embeds_only_its_own_texts(roles) -> None:
    embedder = Counting()
    intents = Intents(embedder, roles, RouterSettings())
    await intents.open()
    embedder.asked.clear()
    await intents.with_role(COOK)
    assert sorted(embedder.asked) == sorted(COOK.examples)
    assert await best(intents, "how to bake bread") == "cook"


async def test_a_removed_role_is_gone_at_once_and_thresholds_follow(intents) -> None:
    await intents.without_role("artist")
    found = await intents.classify(Message("paint a sunset"))
    assert "artist" not in [one["role"] for one in found["ranking"]]
    assert found["calibration"] == "stale"
    await intents._refit
    assert (await intents.classify(Message("paint a sunset")))["calibration"] == "fresh"


async def test_requests_go_on_while_roles_change(intents) -> None:
    async def change() -> None:
        for _ in range(3):
            await intents.with_role(COOK)
            await intents.without_role("cook")

    changing = asyncio.create_task(change())
    answers = [await best(intents, "draw a dragon over the castle") for _ in range(50)]
    await changing
    assert set(answers) == {"artist"}


async def test_lessons_take_part_and_the_last_about_a_text_counts(intents) -> None:
    text = "the price of tomatoes in winter"
    await intents.learn([Lesson("coder", text), Lesson("philosopher", text)])
    assert await best(intents, "what is the price of tomatoes in winter") == "philosopher"


async def test_a_lesson_that_nothing_fits_is_out_of_scope(intents) -> None:
    await intents.learn([Lesson(None, "the price of tomatoes"), Lesson(None, "tomatoes are at what price")])
    assert not (await intents.classify(Message("what is the price of tomatoes")))["in_scope"]


async def test_the_file_stands_above_lessons(intents) -> None:
    before = intents.version
    await intents.learn([Lesson("coder", "paint a sunset over the sea"), Lesson("gone", "hello")])
    assert intents.version == before


async def test_bad_roles_leave_the_old_ones_in_place(intents) -> None:
    with pytest.raises(ConfigError):
        await intents.with_role(RoleExamples("twin", examples=("paint a sunset over the sea",)))
    with pytest.raises(ConfigError):
        await intents.without_role("nobody")
    assert [role.name for role in intents.roles] == ["coder", "artist", "philosopher"]


async def test_an_embedder_that_fails_is_told_of(intents) -> None:
    intents._embedder.failing = True
    with pytest.raises(EmbedderError):
        await intents.classify(Message("hello there, how are you"))


async def test_a_second_start_reads_what_the_first_has_fitted(roles, tmp_path: Path) -> None:
    first = Intents(FakeEmbedder(), roles, RouterSettings(), tmp_path)
    await first.open()
    embedder = Counting()
    second = Intents(embedder, roles, RouterSettings(), tmp_path)
    await second.open()
    assert embedder.asked == []
    assert second.version == first.version
    texts = ["paint my function"]
    vectors = np.stack([embedder._vector(texts[0])])
    ours, theirs = first.fitted.score(vectors, texts), second.fitted.score(vectors, texts)
    assert (ours.chances.tobytes(), ours.scope.tobytes()) == (
        theirs.chances.tobytes(),
        theirs.scope.tobytes(),
    )


def hurt(folder: Path, damage: bytes | None) -> None:
    """Every file of the folder, replaced or cut short."""
    for file in folder.glob("*.npz"):
        file.write_bytes(damage if damage is not None else file.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [b"", b"not a zip file", None])
async def test_damaged_files_are_fitted_again(roles, tmp_path: Path, damage) -> None:
    first = Intents(FakeEmbedder(), roles, RouterSettings(), tmp_path)
    await first.open()
    hurt(tmp_path, damage)
    second = Intents(FakeEmbedder(), roles, RouterSettings(), tmp_path)
    await second.open()
    assert await best(second, "paint a castle") == "artist"


async def test_a_role_may_have_a_threshold_of_its_own(roles) -> None:
    strict = [RoleExamples(one.name, examples=one.examples, threshold=1000.0) for one in roles]
    intents = Intents(FakeEmbedder(), strict, RouterSettings())
    await intents.open()
    found = await intents.classify(Message("paint a sunset over the sea"))
    assert (found["in_scope"], found["scope_threshold"]) == (False, 1000.0)
