"""What every engine does, shown on the fake, on doubles of servers, on the local engine and on real servers."""

import asyncio
from contextlib import aclosing

import pytest

from agentflow.errors import AdapterError, EngineError, GenerationFailed
from agentflow.protocols import Loaded, Prompt

QUESTION = "What do you think about the sea?"


def prompt(text=QUESTION, **options) -> Prompt:
    return Prompt([{"role": "user", "content": text}], **({"max_tokens": 60} | options))


async def pieces(engine, adapter, **options):
    async with aclosing(engine.generate(prompt(**options), adapter=adapter)) as stream:
        return [piece async for piece in stream]


async def say(engine, adapter, **options) -> str:
    return "".join(piece.text for piece in await pieces(engine, adapter, **options))


async def test_base_and_adapters_keep_their_voices_in_one_mixed_batch(stand):
    speakers = [*await stand.load_all(), None] * 3
    answers = await asyncio.gather(*(say(stand.engine, speaker) for speaker in speakers))
    assert [stand.is_voice(*spoken) for spoken in zip(speakers, answers, strict=True)] == [True] * 12


async def test_alternating_adapters_answer_as_they_do_alone(stand):
    first, second, _ = await stand.load_all()
    alone = [await say(stand.engine, first), await say(stand.engine, second)]
    again = [await say(stand.engine, name) for name in (first, second, first, second)]
    together = await asyncio.gather(*(say(stand.engine, name) for name in (first, second, first, second)))
    assert (again, together) == (alone * 2, alone * 2)
    assert alone[0] != alone[1]


async def test_an_answer_streams_in_pieces_and_ends_with_finish_and_usage(stand):
    first, *_ = await stand.load_all()
    *spoken, last = await pieces(stand.engine, first)
    assert len([piece for piece in spoken if piece.text]) > 1
    assert {(piece.finish, piece.usage) for piece in spoken} == {(None, None)}
    assert last.finish == "stop"
    assert last.usage["prompt_tokens"] > 0
    assert last.usage["completion_tokens"] > 1


async def test_an_answer_ends_at_max_tokens(stand):
    *_, last = await pieces(stand.engine, None, max_tokens=3)
    assert (last.finish, last.usage["completion_tokens"]) == ("length", 3)


async def test_more_tokens_than_there_is_room_for_may_be_asked(stand):
    *_, last = await pieces(stand.engine, None, max_tokens=1_000_000)
    assert last.finish == "stop"


async def test_an_answer_ends_before_a_stop_string(stand):
    whole = await say(stand.engine, None)
    stop = whole[len(whole) // 2 :][:4]
    found = await pieces(stand.engine, None, stop=(stop,))
    assert "".join(piece.text for piece in found) == whole[: whole.index(stop)]
    assert found[-1].finish == "stop"


async def test_the_same_seed_draws_the_same_answer(stand):
    first, second = [await say(stand.engine, None, temperature=1.5, seed=7) for _ in range(2)]
    assert first == second


async def test_closing_the_iterator_stops_the_work_and_the_engine_serves_on(stand):
    first, *_ = await stand.load_all()
    stream = stand.engine.generate(prompt(temperature=2.0, max_tokens=900), adapter=first)
    assert await anext(stream)
    await stream.aclose()
    await stand.until_idle()
    assert stand.is_voice(first, await say(stand.engine, first))


async def test_an_adapter_that_was_never_loaded_cannot_speak(stand):
    with pytest.raises(GenerationFailed, match="nobody@0123"):
        await say(stand.engine, "nobody@0123")
    assert stand.is_voice(None, await say(stand.engine, None))


async def test_a_bad_folder_is_refused_and_the_engine_lives(stand):
    with pytest.raises(AdapterError):
        await stand.engine.load("bad@0123", stand.bad_folder)
    assert await stand.engine.loaded() == []
    assert stand.is_voice(None, await say(stand.engine, None))


async def test_a_missing_folder_is_refused(stand, tmp_path):
    with pytest.raises(AdapterError, match="nowhere"):
        await stand.engine.load("gone@0123", tmp_path / "nowhere")


async def test_loading_twice_is_loading_once(stand):
    name, folder = next(iter(stand.adapters.items()))
    await asyncio.gather(*(stand.engine.load(name, folder) for _ in range(3)))
    assert [found.name for found in await stand.engine.loaded()] == [name]


async def test_a_name_never_changes_its_folder(stand):
    first, second, _ = await stand.load_all()
    with pytest.raises(AdapterError, match=first):
        await stand.engine.load(first, stand.adapters[second])
    assert stand.is_voice(first, await say(stand.engine, first))


async def test_an_unloaded_adapter_is_silent_until_it_is_loaded_again(stand):
    first, *_ = await stand.load_all()
    before = await say(stand.engine, first)
    await stand.engine.unload(first)
    with pytest.raises(GenerationFailed):
        await say(stand.engine, first)
    await stand.engine.load(first, stand.adapters[first])
    assert await say(stand.engine, first) == before


async def test_unloading_what_is_not_loaded_changes_nothing(stand):
    await stand.engine.unload("nobody@0123")
    assert await stand.engine.loaded() == []


async def test_loaded_tells_the_truth(stand):
    first, second, third = await stand.load_all()
    await stand.engine.unload(second)
    exact = stand.engine.capabilities.exact_list
    expected = [Loaded(name, "vram", exact) for name in ([third] if stand.alone else [first, third])]
    assert sorted(await stand.engine.loaded(), key=lambda found: found.name) == sorted(
        expected, key=lambda found: found.name
    )


async def test_a_pinned_adapter_is_shown_so_until_it_is_unpinned(stand):
    first, *_ = await stand.load_all()
    if not stand.engine.capabilities.pin:
        with pytest.raises(AdapterError, match="cannot be pinned"):
            await stand.engine.pin(first)
    else:
        await stand.engine.pin(first)
        assert {one.name for one in await stand.engine.loaded() if one.pinned} == {first}
    await stand.engine.unpin(first)
    assert not [one for one in await stand.engine.loaded() if one.pinned]
    assert stand.is_voice(first, await say(stand.engine, first))


async def test_what_is_not_loaded_cannot_be_pinned(stand):
    with pytest.raises(AdapterError):
        await stand.engine.pin("nobody@0123")


async def test_an_adapter_rests_in_ram_where_the_engine_can_keep_it_there(stand):
    name, folder = next(iter(stand.adapters.items()))
    if not stand.engine.capabilities.host_tier:
        with pytest.raises(AdapterError, match="RAM"):
            await stand.engine.load(name, folder, tier="ram")
        return
    await stand.engine.load(name, folder, tier="ram")
    assert await stand.engine.loaded() == [Loaded(name, "ram", exact=True)]
    with pytest.raises(GenerationFailed):
        await say(stand.engine, name)
    await stand.engine.load(name, folder)
    assert stand.is_voice(name, await say(stand.engine, name))
    await stand.engine.load(name, folder, tier="ram")
    assert await stand.engine.loaded() == [Loaded(name, "ram", exact=True)]


async def test_an_adapter_that_was_in_ram_speaks_as_before(stand):
    name, folder = next(iter(stand.adapters.items()))
    await stand.engine.load(name, folder)
    before = await say(stand.engine, name)
    if stand.engine.capabilities.host_tier:
        stream = stand.engine.generate(prompt(), adapter=name)
        begun = await anext(stream)
        moving = asyncio.create_task(stand.engine.load(name, folder, tier="ram"))
        assert begun.text + "".join([piece.text async for piece in stream]) == before
        await moving
        await stand.engine.load(name, folder)
    assert await say(stand.engine, name) == before


async def test_an_answer_under_way_survives_the_unloading_of_its_adapter(stand):
    first, *_ = await stand.load_all()
    whole = await say(stand.engine, first)
    stream = stand.engine.generate(prompt(), adapter=first)
    begun = await anext(stream)
    unloading = asyncio.create_task(stand.engine.unload(first))
    rest = [piece.text async for piece in stream]
    await unloading
    assert begun.text + "".join(rest) == whole


async def test_an_adapter_loaded_while_others_speak_does_not_disturb_them(stand):
    (first, folder), (second, other), _ = stand.adapters.items()
    await stand.engine.load(first, folder)
    alone = await say(stand.engine, first)
    answers = [asyncio.create_task(say(stand.engine, first)) for _ in range(3)]
    await stand.engine.load(second, other)
    assert await asyncio.gather(*answers) == [alone] * 3


async def test_health_speaks_for_people(stand):
    health = await stand.engine.health()
    assert (health.ok, bool(health.detail)) == (True, True)


async def test_a_closed_engine_does_not_answer(stand):
    await stand.engine.close()
    with pytest.raises(EngineError, match="closed"):
        await say(stand.engine, None)
