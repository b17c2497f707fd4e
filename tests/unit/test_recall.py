"""Recall and write-back: what is shown to the model, and what is kept."""

import asyncio
from typing import Any

import pytest

from agentflow.errors import HomeDown
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.fakes.ledger import FakeLedger, FakeMemory
from agentflow.nodes.recall import recall
from agentflow.nodes.remember import remember
from agentflow.protocols import DOCUMENTS, Beside, NewMemory, Request, Scope
from agentflow.settings import Role
from agentflow.settings.schema import MemorySettings

ROLES = {"coder": Role(reads=("conversations", "notes"), writes=("conversations", "conversations"))}
SELECTION = {"question": None, "tier": "vram", "reason": "explicit"}
TITLE = "### Task:\nGenerate a title.\n<chat_history>\nUSER: My dog is called Rex\n</chat_history>"


def turn(text: str, **changes: Any) -> Any:
    context = {"text": text, "history": [], "role": None, "pinned_role": None, "idle": 0, "offered": []}
    plain = {
        "run_id": "r", "thread_id": "t", "attempt": 1, "tenant": 0, "user": "default", "role": "coder",
        "adapter": None, "text": text, "context": context, "selection": SELECTION, "timings": {}, "finish": "stop",
        "intent": {}, "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "memory": "full",
    }  # fmt: skip
    return {**plain, **changes}


def stored(*texts: str, collection: str = "conversations") -> FakeMemory:
    items = [NewMemory(collection, 0, "user", text) for text in texts]
    return FakeMemory([(Scope(0, collection, "default"), one, f"thread {n}") for n, one in enumerate(items)])


async def recalled(
    asked: Any, home: FakeMemory, embedder: Any = None, *, roles: Any = ROLES, **memory: Any
) -> tuple[str, list[str]]:
    found = await recall(
        asked,
        ledger=FakeLedger(),
        embedder=embedder or FakeEmbedder(),
        home=home,
        roles=roles,
        memory=MemorySettings(**memory),
    )
    return found["memory"], [one["content"] for one in found["memories"]]


async def remembered(text: str, answer: str) -> list[tuple[str, int, int, str]]:
    """What a finished turn keeps: speaker, ordinal, piece, content."""
    ledger = FakeLedger()
    lease = (await ledger.accept(Request(text=text))).lease
    assert lease is not None
    ended = turn(text, run_id=lease.run_id, thread_id=lease.thread_id, answer=answer)
    await remember(ended, lambda _: None, ledger=ledger, roles=ROLES, fault=lambda _: None)
    return [(one.speaker, one.ordinal, one.piece, one.content) for _, one, _ in ledger.memory.items]


class SlowEmbedder(FakeEmbedder):
    """Answers too late for everybody."""

    async def embed(self, texts):
        await asyncio.sleep(1)
        return await super().embed(texts)


async def test_without_an_embedder_words_find_memories_and_the_turn_says_so() -> None:
    down = FakeEmbedder()
    down.failing = True
    for embedder in (down, SlowEmbedder()):
        found = await recalled(
            turn("dogs?"), stored("My dog is Rex", "Fine day"), embedder, embed_within=0.01
        )
        assert found == ("degraded", ["My dog is Rex"])


async def test_what_is_not_relevant_is_not_shown() -> None:
    home = stored("The weather was fine", "We sailed to Rhodes")
    assert await recalled(turn("Is this weather report about Berlin or about Hamburg?"), home) == ("full", [])


async def test_recalled_texts_keep_their_budget() -> None:
    home = stored("dog " * 40, "dog " * 39, "a dog")
    assert await recalled(turn("dog"), home, tokens=45, min_score=0) == ("full", ["dog " * 40, "a dog"])


async def test_a_text_said_twice_is_shown_once() -> None:
    assert (await recalled(turn("dog"), stored("a dog", "a dog"), min_score=0))[1] == ["a dog"]


async def test_collections_take_turns() -> None:
    home = FakeMemory(
        stored("a dog", "my dog").items + stored("the dog", "our dog", collection="notes").items
    )
    found = (await recalled(turn("dog"), home, min_score=0, recall=2))[1]
    assert (found[0] in ("a dog", "my dog"), found[1] in ("the dog", "our dog")) == (True, True)


async def test_pieces_of_what_the_prompt_repeats_are_left_out() -> None:
    asked = turn("dog")
    asked["context"]["history"] = [
        {"role": "user", "content": "Yes. " + "A long story about a dog and a cat. " * 2}
    ]
    home = stored(
        "A long story about a dog and a cat.  A long story",
        "A long story about a dog and a cat. A long",
        "dog",
    )
    assert (await recalled(asked, home, min_score=0))[1] == [
        "dog",
        "A long story about a dog and a cat.  A long story",
    ]


@pytest.mark.parametrize("asked", [turn(TITLE), turn("dog", selection={**SELECTION, "question": "Which?"})])
async def test_chores_and_questions_asked_back_recall_nothing(asked: Any) -> None:
    assert await recalled(asked, stored("a dog"), min_score=0) == ("off", [])


async def test_question_and_answer_are_kept_once_as_they_were_said() -> None:
    assert await remembered("My dog is Rex", "Nice!") == [
        ("user", 0, 0, "My dog is Rex"),
        ("assistant", 1, 0, "Nice!"),
    ]


async def test_a_long_answer_is_kept_in_pieces_that_follow_one_another() -> None:
    kept = await remembered("Tell me", f"{'one ' * 200}\n\n{'two ' * 200}")
    assert [one[:3] for one in kept] == [("user", 0, 0), ("assistant", 1, 0), ("assistant", 2, 1)]


async def test_thoughts_and_empty_answers_are_not_kept() -> None:
    assert await remembered("Rex?", "<think>A dog, I guess.</think>") == [("user", 0, 0, "Rex?")]


async def test_chores_are_not_kept() -> None:
    assert await remembered(TITLE, "Rex the dog") == []


async def test_what_was_recalled_is_not_kept_again(world) -> None:
    async with world() as w:
        for text in ("My dog is called Rex", "How is my dog called?"):
            result = await (await w.worker.start(Request(text=text, wanted_role="coder"))).finished()
        assert result["memories"]
        kept = [one.content for _, one, _ in w.ledger.memory.items]
        assert kept == ["My dog is called Rex", kept[1], "How is my dog called?", result["output"]]
        assert not any("<memory>" in one for one in kept)


class FarMemory(FakeMemory):
    """Its vectors are in a place that does not answer."""

    async def search(self, scope, text, vector, k):
        if vector is not None:
            raise HomeDown("nobody answers")
        return await super().search(scope, text, vector, k)


async def test_a_place_that_does_not_answer_costs_the_meaning_not_the_words() -> None:
    home = FarMemory(stored("My dog is Rex", "Fine day").items)
    assert await recalled(turn("dogs?"), home) == ("degraded", ["My dog is Rex"])


class Pinned(FakeMemory):
    """A home with pinned memories."""

    async def beside(self, owner, *, role, thread, collections):
        texts = ("I am called Ann", "word " * 400, "I live in Oslo")
        plain = {"collection": "conversations", "speaker": "user", "said_at": "2026-01-01T00:00:00+00:00"}
        rest = {"score": 0.0, "thread_id": None, "pinned": True}
        return Beside(
            pinned=[{"id": -n, "content": text, **plain, **rest} for n, text in enumerate(texts, 1)]
        )


async def test_pinned_memories_come_first_whatever_is_asked_within_their_own_budget() -> None:
    home = Pinned(stored("My dog is Rex").items)
    assert await recalled(turn("dogs?"), home) == (
        "full",
        ["I am called Ann", "I live in Oslo", "My dog is Rex"],
    )
    assert await recalled(turn("dogs?"), home, pinned_tokens=0, min_score=1.5) == ("full", [])


async def test_a_pinned_memory_is_shown_once() -> None:
    home = Pinned(stored("I live in Oslo").items)
    _, shown = await recalled(turn("Oslo?"), home)
    assert shown.count("I live in Oslo") == 1


async def test_what_the_clients_own_transcript_repeats_is_left_out() -> None:
    given = {"history": [{"role": "user", "content": "My dog is Rex"}]}
    assert await recalled(turn("dogs?", given=given), stored("My dog is Rex", "Her dog is Tom")) == (
        "full",
        ["Her dog is Tom"],
    )


async def test_a_document_of_the_thread_is_searched_and_anothers_is_not() -> None:
    here, there = (Scope(0, DOCUMENTS, "default", None, thread) for thread in ("t", "other"))
    found = (
        NewMemory(DOCUMENTS, 0, "manual.md", "A dog needs walks"),
        NewMemory(DOCUMENTS, 0, "b.md", "A dog barks"),
    )
    home = FakeMemory([(here, found[0], "d"), (there, found[1], "d")])
    assert await recalled(turn("dog?"), home, min_score=0) == ("full", ["A dog needs walks"])


async def test_a_role_with_private_memory_recalls_what_was_said_to_it_alone() -> None:
    mine = NewMemory("conversations", 0, "user", "My dog is Rex")
    home = FakeMemory(
        [(Scope(0, "conversations", "default", "coder"), mine, "a"), *stored("My dog is Fido").items]
    )
    private = {"coder": ROLES["coder"].model_copy(update={"memory": "private"})}
    assert (await recalled(turn("dogs?"), home, roles=private))[1] == ["My dog is Rex"]
    artist = {"artist": ROLES["coder"]}
    assert (await recalled(turn("dogs?", role="artist"), home, roles=artist))[1] == ["My dog is Fido"]
