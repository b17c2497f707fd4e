"""Front ends' own calls are told from people's messages."""

import pytest

from agentflow.api.openai.transcripts import read
from agentflow.api.openai.utility import is_utility

CHAT = "### Chat History:\n<chat_history>\nUSER: hi\nASSISTANT: hello\n</chat_history>"
TASKS = (
    "### Task:\nSuggest 3-5 relevant follow-up questions.\n### Guidelines:\n- short\n### Output:\nJSON format\n"
    + CHAT,
    "### Task:\nGenerate a concise, 3-5 word title with an emoji.\n### Output:\nJSON format\n" + CHAT,
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes.\n### Output:\nJSON\n" + CHAT,
    "### Task:\nAnalyze the chat history to determine the necessity of generating search queries.\n" + CHAT,
    "### Task:\nYou are an autocompletion system. Continue the text.\n" + CHAT + "\n<text>hel</text>",
    "### Task:\nGenerate a detailed prompt for an image generation task.\n" + CHAT,
    "Provide a concise, 5-word-or-less title for the conversation. Only return the title.\n\nUser: hi\nAI: hello",
    "Please generate a short title for this conversation. Respond with only the title, no explanation.",
)
PEOPLE = (
    "### Task: write a sort function\nIt should take a list.",
    "# Task\nTranslate this letter.",
    "Write a title for my essay about whales",
    "Suggest a few follow-up questions for my interview",
    "Generate a JSON schema for a user",
    "Summarize this conversation between Romeo and Juliet for my homework",
    "Give me tags for my blog post, only the tags please",
    "What is a chat history?",
    "title",
)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_about_a_chat_is_nobodys_message(task) -> None:
    assert is_utility(read([{"role": "user", "content": task}]), stream=False, tools=False)


@pytest.mark.parametrize("text", PEOPLE)
@pytest.mark.parametrize("stream", [True, False])
def test_people_write_headings_and_ask_for_titles_too(text, stream) -> None:
    assert not is_utility(read([{"role": "user", "content": text}]), stream=stream, tools=False)


def test_a_title_generator_with_the_users_own_words_is_a_task() -> None:
    messages = [
        {"role": "system", "content": "You are a title generator. You output ONLY a thread title."},
        {"role": "user", "content": "Generate a title for this conversation:"},
        {"role": "user", "content": "How do whales sleep?"},
    ]
    assert is_utility(read(messages), stream=True, tools=False)
    assert not is_utility(read([messages[0], messages[2]]), stream=True, tools=False)


def test_who_brings_tools_is_a_person() -> None:
    assert not is_utility(read([{"role": "user", "content": TASKS[0]}]), stream=False, tools=True)
