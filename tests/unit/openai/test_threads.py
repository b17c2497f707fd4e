"""Which headers name a conversation, and which do not."""

import pytest

from agentflow.api.openai.order import ChatBody, chat_order
from agentflow.api.openai.threads import Hint, hinted
from agentflow.fakes.engine import FakeEngine
from agentflow.settings.schema import OpenAISettings

ORDER = chat_order(
    ChatBody(model="agentflow", messages=[{"role": "user", "content": "hi"}]), FakeEngine.capabilities
)


@pytest.mark.parametrize(
    "name",
    ["x-some-chat-id", "x-chat-id", "x-some-conversation-id", "x-conversation-id", "x-session-id"],
)
def test_front_ends_name_their_chats_under_many_names_and_send_them_whole(name: str) -> None:
    assert hinted(ORDER, {"accept": "*/*", name: "c-1"}, OpenAISettings()) == Hint("c-1", whole=True)


@pytest.mark.parametrize("name", ["x-request-id", "x-client-session-id", "chat-id", "x-some-user-id"])
def test_what_names_something_else_names_no_conversation(name: str) -> None:
    assert hinted(ORDER, {name: "c-1"}, OpenAISettings()) is None
