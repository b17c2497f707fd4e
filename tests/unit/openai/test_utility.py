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
    'Your task is to find an emoji that fits the mood.\n\nMessage: """I lost my keys"""',
    "Analyze this conversation and give its language and a title (5 words or less).\n\nUser: hi\nAI: hello",
    'Summarize in a 10-word Title. Only the title. "How do whales sleep?"',
    "Given the text below, please reply with a title for the chat that is 3-4 words in length.\n\nHalf asleep.",
)
STREAMED = (
    "From the chat history, give this conversation a name of 10 characters, no quotes.\nOnly give the name.\n\nme: hi",
    "Generate a concise 3-7 word title for this conversation, omitting punctuation, without any preamble.",
)
BY_SYSTEM = (
    (
        "You are a conversation summarizer. Output ONLY the title text, at most 10 words.",
        "user: hi\nassistant: hello",
    ),
    (
        "You summarize conversations. The content lies in <chat_history> tags.",
        "<chat_history>\n<user>hi</user>",
    ),
    ("你需要将用户的会话总结为 10 个字以内的标题", "user: hi\nassistant: hello"),
    (
        "You are skilled. You summarize the user's conversation into a title within 10 words.",
        '[{"role": "user"}]',
    ),
    (
        "You are a chat titling assistant. Output ONLY the title, 2-4 words.",
        'User message: "How do whales sleep?"',
    ),
    ("Choose the tools. Your task is to return the right ones as JSON.", 'Query: History:\nUSER: """hi"""'),
    (
        "Generate a short title for the following conversation. Respond with the title only.",
        "How do whales sleep?",
    ),
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
    "Give me a title for my novel",
    "generate 3 tags",
    "Generate 3 tags for my post about conversation starters, only the tags",
    "Write a title for my chat app's page. Only return the title.",
    "Create a title for our conversation club, only one line please",
    "Please summarize our conversation in 100 words, nothing else",
    "Write code that gives the conversation a title, only the code",
    "Write a poem titled 'The Conversation', only return the poem",
    "Your task is to write a poem with an emoji in it.",
    "user: is this a bug?",
    "请给我的小说起一个标题，不要解释",
)
PERSONAS = (
    ("You are a title generator for films. Return only the title.", "A film about cats"),
    ("You are an assistant for a chat platform. Answer in one line, no markdown.", "What is justice?"),
    ("In this conversation, reply only in JSON. Titles are in capitals.", "What is justice?"),
    ("You are a summarizer of legal texts. Output only the summary.", "The party of the first part"),
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


@pytest.mark.parametrize("task", STREAMED)
def test_who_streams_a_task_says_twice_what_the_answer_looks_like(task) -> None:
    assert is_utility(read([{"role": "user", "content": task}]), stream=True, tools=False)
    assert not is_utility(
        read([{"role": "user", "content": "Give this conversation a title"}]), stream=True, tools=False
    )


@pytest.mark.parametrize(("system", "text"), BY_SYSTEM)
def test_a_system_prompt_may_hold_the_task(system, text) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    assert is_utility(read(messages), stream=True, tools=False)


@pytest.mark.parametrize(("system", "text"), PERSONAS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_persona_is_no_task(system, text, stream) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    assert not is_utility(read(messages), stream=stream, tools=False)


def test_a_task_may_follow_the_whole_chat() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    task = "Please generate a five word title summing up our conversation without any lead-in or punctuation."
    assert is_utility(read([*chat, {"role": "user", "content": task}]), stream=False, tools=False)
    task = "Sum up the events in the story so far. Your answer includes nothing but the summary."
    assert is_utility(read([*chat, {"role": "system", "content": task}]), stream=False, tools=False)
    note = {"role": "system", "content": "[Stay in character. Only the reply, nothing else.]"}
    assert not is_utility(read([*chat, chat[0], note]), stream=False, tools=False)


def test_who_brings_tools_is_a_person() -> None:
    assert not is_utility(read([{"role": "user", "content": TASKS[0]}]), stream=False, tools=True)
