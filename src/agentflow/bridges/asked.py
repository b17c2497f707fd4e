"""What every bridge asks a running agentflow."""

from dataclasses import dataclass
from typing import Any

import httpx

from agentflow.errors import AgentflowError


@dataclass(frozen=True)
class Question:
    """A search in the memory of the key's user. `weak` keeps what a turn would not show."""

    url: str
    api_key: str | None = None
    collection: str | None = None
    k: int = 6
    weak: bool = False
    timeout: float = 10.0

    def ask(self, text: str) -> list[dict[str, Any]]:
        """The best memories, best first. Raises AgentflowError with the server's own words, or why none came."""
        with httpx.Client(**self._client()) as client:
            return self._kept(client.get, text)

    async def ask_async(self, text: str) -> list[dict[str, Any]]:
        """As `ask`."""
        async with httpx.AsyncClient(**self._client()) as client:
            try:
                response = await client.get("/memory/search", params=self._query(text))
            except httpx.HTTPError as error:
                raise self._silent(error) from error
        return self._read(response)

    def _kept(self, get: Any, text: str) -> list[dict[str, Any]]:
        try:
            response = get("/memory/search", params=self._query(text))
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        return self._read(response)

    def _read(self, response: httpx.Response) -> list[dict[str, Any]]:
        if response.status_code != httpx.codes.OK:
            raise AgentflowError(str(response.json().get("message", response.text)))
        return [one for one in response.json()["memories"] if self.weak or one["recalled"]]

    def _query(self, text: str) -> dict[str, str | int]:
        query: dict[str, str | int] = {"q": text, "k": self.k}
        return query | ({"collection": self.collection} if self.collection else {})

    def _client(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"base_url": self.url, "headers": headers, "timeout": self.timeout, "trust_env": False}

    def _silent(self, error: httpx.HTTPError) -> AgentflowError:
        return AgentflowError(
            f"agentflow does not answer at {self.url}: {error}. Is `agentflow serve` running?"
        )


def told(memory: dict[str, Any]) -> dict[str, Any]:
    """What a memory says beside its text, as metadata of a document."""
    cited = memory.get("cited") or {}
    shown: dict[str, Any] = {
        key: memory[key] for key in ("id", "collection", "speaker", "said_at", "score") if key in memory
    }
    return {**shown, **{key: cited[key] for key in ("document", "heading", "page", "line") if key in cited}}
