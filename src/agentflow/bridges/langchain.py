"""Memory as a LangChain retriever.

retriever = AgentflowRetriever(url="http://127.0.0.1:8100", k=4)
chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | model
"""

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import SecretStr

from agentflow.bridges.asked import Question, told


class AgentflowRetriever(BaseRetriever):
    """Finds memories of the key's user in a running agentflow; a document's metadata says who said it and when."""

    url: str = "http://127.0.0.1:8100"
    api_key: SecretStr | None = None
    collection: str | None = None
    k: int = 6
    weak: bool = False
    """Also what a turn would not show."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        del run_manager
        return [_document(one) for one in self._question().ask(query)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        del run_manager
        return [_document(one) for one in await self._question().ask_async(query)]

    def _question(self) -> Question:
        key = self.api_key.get_secret_value() if self.api_key else None
        return Question(self.url, key, self.collection, self.k, self.weak)


def _document(memory: dict[str, Any]) -> Document:
    return Document(page_content=memory["content"], metadata=told(memory), id=str(memory["id"]))
