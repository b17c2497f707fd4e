"""Memory as a Haystack component (extra `haystack`).

pipeline.add_component("memory", AgentflowMemory(url="http://127.0.0.1:8100", top_k=4))
pipeline.connect("memory.documents", "prompt_builder.documents")
"""

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret

from agentflow.bridges import asked


@component
class AgentflowMemory:
    """Finds memories of the key's user in a running agentflow; a document's meta says who said it and when."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8100",
        api_key: Secret | None = None,
        collection: str | None = None,
        top_k: int = 6,
    ) -> None:
        self.url = url
        self.api_key = api_key
        self.collection = collection
        self.top_k = top_k

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator] # an extra without types here
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """The best memories, best first. Raises AgentflowError."""
        key = self.api_key.resolve_value() if self.api_key else None
        found = asked.Question(self.url, key, self.collection, top_k or self.top_k).ask(query)
        return {"documents": [_document(one) for one in found]}

    def to_dict(self) -> dict[str, Any]:
        """For pipelines kept as YAML; a key from the environment is kept as its name."""
        key = self.api_key.to_dict() if self.api_key else None
        told: dict[str, Any] = default_to_dict(
            self, url=self.url, api_key=key, collection=self.collection, top_k=self.top_k
        )
        return told

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AgentflowMemory":
        """As `to_dict` told."""
        kept = data["init_parameters"]
        if kept.get("api_key") is not None:
            kept["api_key"] = Secret.from_dict(kept["api_key"])
        found: AgentflowMemory = default_from_dict(cls, data)
        return found


def _document(memory: dict[str, Any]) -> Document:
    return Document(
        id=str(memory["id"]), content=memory["content"], meta=asked.told(memory), score=memory["score"]
    )
