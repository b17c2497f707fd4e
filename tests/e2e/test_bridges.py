"""Memory inside other libraries' pipelines."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from agentflow.bridges.langchain import AgentflowRetriever
from agentflow.errors import AgentflowError

ROOT = Path(__file__).parents[2]
PIPELINE = """
import sys
from haystack import Pipeline
from haystack.components.builders import PromptBuilder
from agentflow.bridges.haystack import AgentflowMemory

made = Pipeline()
made.add_component("memory", AgentflowMemory(url=sys.argv[1], top_k=2))
template = "{% for one in documents %}{{ one.meta.speaker }}: {{ one.content }}. {% endfor %}{{ query }}"
made.add_component("prompt", PromptBuilder(template, required_variables=["query"]))
made.connect("memory.documents", "prompt.documents")
kept = Pipeline.loads(made.dumps(), allowed_modules=["agentflow.bridges.haystack"])
asked = "What is my dog called?"
print(kept.run({"memory": {"query": asked}, "prompt": {"query": asked}})["prompt"]["prompt"])
"""


@pytest.fixture(scope="module")
def address(standing) -> Iterator[str]:
    with standing.start() as client:
        client.post("/invoke", json={"input": "My dog is called Rex", "role": "base"})
        yield standing.address


def test_a_langchain_chain_answers_from_memory(address) -> None:
    retriever = AgentflowRetriever(url=address, k=2)
    seen: list[str] = []

    def look(prompt):
        seen.append(prompt.to_string())
        return prompt

    chain = (
        {"context": retriever, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{context} {question}")
        | RunnableLambda(look)
        | FakeListChatModel(responses=["Rex"])
        | StrOutputParser()
    )
    assert chain.invoke("What is my dog called?") == "Rex"
    assert "My dog is called Rex" in seen[0]
    (first, *_) = retriever.invoke("What is my dog called?")
    assert (first.metadata["speaker"], first.metadata["collection"]) == ("user", "conversations")


async def test_the_retriever_may_be_awaited(address) -> None:
    found = await AgentflowRetriever(url=address, k=1).ainvoke("What is my dog called?")
    assert "Rex" in found[0].page_content


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(AgentflowError, match="does not answer at http"):
        AgentflowRetriever(url="http://127.0.0.1:9").invoke("hello")


def test_the_servers_own_words_reach_the_pipeline(address) -> None:
    with pytest.raises(AgentflowError, match="There is no collection 'none'"):
        AgentflowRetriever(url=address, collection="none").invoke("hello")


@pytest.mark.haystack
def test_a_haystack_pipeline_is_kept_as_yaml_and_prompts_from_memory(address) -> None:
    python = ROOT / ".venv-haystack" / "bin" / "python"
    assert python.exists(), "make test-haystack sets it up"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HAYSTACK_TELEMETRY_ENABLED": "False"}
    done = subprocess.run(
        [python, "-c", PIPELINE, address],
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("user: My dog is called Rex. ")
