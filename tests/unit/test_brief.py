"""What an engine is asked: the role's part, ours, and the client's."""

from dataclasses import replace

from agentflow.brief import LONGEST, brief
from agentflow.fakes.engine import FakeEngine
from agentflow.prompt import without_tools
from agentflow.settings import Role

ABLE = FakeEngine.capabilities
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": "rain", "tool_call_id": "c1"}


def test_the_clients_system_prompt_follows_the_roles() -> None:
    prompt = brief("hi", role=Role(system_prompt="You paint."), able=ABLE, given={"system": "Be terse."})
    assert prompt.messages == [
        {"role": "system", "content": "You paint.\n\nBe terse."},
        {"role": "user", "content": "hi"},
    ]


def test_the_clients_transcript_replaces_ours() -> None:
    ours, theirs = {"role": "user", "content": "ours"}, {"role": "user", "content": "theirs"}
    assert (
        brief("hi", role=Role(), able=ABLE, given={"history": [theirs]}, history=[ours]).messages[0] == theirs
    )
    assert brief("hi", role=Role(), able=ABLE, given={"history": []}, history=[ours]).messages[0] == ours


def test_a_client_samples_as_it_likes_but_not_longer() -> None:
    role = Role(generation={"max_tokens": 100, "stop": ("END",)})
    given = {"sampling": {"max_tokens": 32000, "temperature": 0.7, "stop": ("X",)}}
    prompt = brief("hi", role=role, able=ABLE, given=given)
    assert (prompt.max_tokens, prompt.temperature, prompt.top_p, prompt.stop) == (100, 0.7, 1.0, ("END", "X"))
    assert brief("hi", role=role, able=ABLE, given={"sampling": {"max_tokens": 7}}).max_tokens == 7
    assert LONGEST == 4096


def test_tools_and_their_results_reach_an_engine_that_knows_tools() -> None:
    given = {"tools": [TOOL], "tool_choice": "required", "after": [ASKED, TOLD]}
    prompt = brief("weather?", role=Role(), able=ABLE, given=given)
    assert (list(prompt.tools), prompt.tool_choice) == ([TOOL], "required")
    assert prompt.messages[1:] == [ASKED, TOLD]


def test_an_engine_without_tools_is_told_in_words() -> None:
    given = {"tools": [TOOL], "after": [ASKED, TOLD]}
    prompt = brief("weather?", role=Role(), able=replace(ABLE, tools=False), given=given)
    assert list(prompt.tools) == []
    assert prompt.messages[1:] == [
        {"role": "assistant", "content": "I call look with {}."},
        {"role": "user", "content": "Result of look: rain"},
    ]


def test_a_result_of_nothing_known_is_still_told() -> None:
    assert without_tools([TOLD]) == [{"role": "user", "content": "Result of a tool: rain"}]


def recollection(number: int, session: int, day: str, content: str, **more):
    said = {"speaker": "user", "said_at": f"2026-11-{day}T10:00:00+00:00", "content": content}
    return {
        "id": number,
        "collection": "c",
        **said,
        "score": 1.0,
        "thread_id": None,
        "session": session,
        **more,
    }


def test_memories_stand_session_by_session_in_the_order_in_which_they_were_said() -> None:
    cited = {"document": "manual.pdf", "page": 3}
    memories = [
        recollection(9, 2, "20", "c"),
        recollection(4, 1, "18", "b"),
        recollection(7, 3, "19", "d", cited=cited),
        recollection(3, 1, "18", "a"),
    ]
    said = brief("hi", role=Role(), able=ABLE, memories=memories).messages[-1]["content"]
    assert said.splitlines() == [
        "<memory>",
        '- user (2026-11-18): "a"',
        '- user (2026-11-18): "b"',
        '- user, p. 3 (2026-11-19): "d"',
        '- user (2026-11-20): "c"',
        "</memory>",
        "hi",
    ]
