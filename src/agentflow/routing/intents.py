"""The owner of the fitted classifier: opens it, asks it, replaces it while requests go on."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import structlog

from agentflow.ending import end
from agentflow.errors import AgentflowError, ConfigError
from agentflow.protocols import Embedder, Message, Vectors
from agentflow.routing.classifier import Classifier, examples_of, fit
from agentflow.routing.explain import explained
from agentflow.routing.roles import Lesson, RoleExamples, taught
from agentflow.routing.storage import VectorStore, drop_fitted, load_classifier, save_classifier, version_of
from agentflow.routing.words import length
from agentflow.settings.routing import RouterSettings
from agentflow.turn import Context, Json

log = structlog.get_logger(__name__)
SHORT = 4
LOOK_BACK = 3


def message_of(context: Context) -> Message:
    """A message of a thread as the classifier sees it."""
    previous = tuple(one["content"] for one in context["history"] if one["role"] == "user")
    return Message(text=context["text"], previous=previous, role=context["role"])


class Intents:
    """Roles told apart by their descriptions and examples.

    Roles come, go and change while requests are answered: a new classifier is made beside the one in use
    and takes its place in one assignment. `cache_dir` keeps what was fitted and embedded across starts.
    `lessons` are what feedback has taught, oldest first.
    """

    def __init__(
        self,
        embedder: Embedder,
        roles: Sequence[RoleExamples],
        settings: RouterSettings,
        cache_dir: Path | None = None,
        lessons: Sequence[Lesson] = (),
    ) -> None:
        self._embedder = embedder
        self._roles = {role.name: role for role in roles}
        self._settings = settings
        self._lessons = tuple(lessons)
        self._folder = cache_dir
        self._vectors: dict[str, Vectors] = {}
        self._fitted: Classifier | None = None
        self._version = ""
        self._refit: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    @property
    def roles(self) -> tuple[RoleExamples, ...]:
        """The roles as they are now."""
        return tuple(self._roles.values())

    @property
    def fitted(self) -> Classifier | None:
        """The classifier in use; None when there are no roles."""
        return self._fitted

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        """What feedback has taught."""
        return self._lessons

    @property
    def version(self) -> str:
        """What the classifier in use was made from."""
        return self._version

    async def open(self) -> None:
        """Fit, or read what was fitted before. Raises ConfigError and EmbedderError."""
        async with self._changing:
            await self._become(self._roles)

    async def close(self) -> None:
        """Stop recalibrating."""
        if self._refit is not None:
            await end([self._refit])

    async def replace(self, roles: Sequence[RoleExamples], settings: RouterSettings) -> None:
        """Take these instead. Requests go on with the old ones until the new classifier is ready.

        Raises ConfigError and EmbedderError, and then keeps the old ones.
        """
        async with self._changing:
            await self._become({role.name: role for role in roles}, settings=settings)

    async def learn(self, lessons: Sequence[Lesson]) -> None:
        """Take these lessons, all that there are, oldest first. Raises EmbedderError."""
        async with self._changing:
            await self._become(self._roles, lessons=lessons)

    async def unlearn(self, lessons: Sequence[Lesson]) -> None:
        """As `learn`, after a lesson was forgotten: no file keeps its text either. Raises EmbedderError."""
        async with self._changing:
            if self._folder is not None:
                await asyncio.to_thread(drop_fitted, self._folder)
            self._vectors = {}
            await self._become(self._roles, lessons=lessons)

    async def with_role(self, role: RoleExamples) -> None:
        """Add a role, or take its new examples. Only texts that are new are embedded. Raises as `replace`."""
        async with self._changing:
            await self._become(self._roles | {role.name: role})

    async def without_role(self, name: str) -> None:
        """Take a role away at once. Raises ConfigError.

        The others' scores stay as they are; thresholds are set anew in the background.
        """
        async with self._changing:
            if name not in self._roles:
                raise ConfigError(f"There is no role {name!r} to take away.", field="roles", value=name)
            self._roles = {key: role for key, role in self._roles.items() if key != name}
            if self._fitted is None or not self._roles:
                self._fitted = None
                return
            self._fitted = self._fitted.without(name)
        self._refit = asyncio.create_task(self._recalibrate())

    async def classify(self, message: Message) -> Json:
        """What the message is about. Raises EmbedderError.

        A message of fewer than SHORT words is looked at together with the user's turns before it, unless it
        is a typical example of a role by itself. Only the first `text_limit` characters count.
        """
        fitted = self._fitted
        if fitted is None or not message.text.strip():
            return {"ranking": [], "in_scope": False, "router": self._version}
        texts = self._looked_at(message)
        began = time.perf_counter()
        vectors = await self._embedder.embed(texts)
        embedded = time.perf_counter()
        found = self._decided(fitted, vectors, texts, message)
        found["embed_ms"] = round((embedded - began) * 1000, 3)
        found["decide_ms"] = round((time.perf_counter() - embedded) * 1000, 3)
        return found

    async def examined(self) -> Classifier:
        """The classifier with its left-out examples, fitted again if it was read from a file.

        Raises ConfigError when there are no roles, and EmbedderError.
        """
        fitted = self._fitted
        if fitted is None:
            raise ConfigError("There are no roles to look at.", field="roles")
        if fitted.left_out is not None:
            return fitted
        vectors = await self._embedded([one.text for one in fitted.examples], self._settings.text_limit)
        return await asyncio.to_thread(fit, fitted.examples, vectors, self._settings)

    async def vectors(self, texts: Sequence[str]) -> Vectors:
        """Embeddings of messages, as `classify` takes them. Raises EmbedderError."""
        return await self._embedder.embed([text[: self._settings.text_limit] for text in texts])

    def _decided(self, fitted: Classifier, vectors: Vectors, texts: Sequence[str], message: Message) -> Json:
        scored = fitted.score(vectors, texts)
        alone = self._judged(fitted, explained(fitted, scored, 0, present=message.role))
        together = len(texts) > 1 and not self._typical(alone)
        if together:
            alone = self._judged(fitted, explained(fitted, scored, 1, present=message.role))
        return alone | {
            "looked_at": "with the turns before" if together else "alone",
            "router": self._version,
        }

    def _judged(self, fitted: Classifier, found: Json) -> Json:
        settings, best = self._settings, found["ranking"][0]["role"]
        own = self._roles[best].threshold if best in self._roles else None
        general = (
            settings.scope_threshold if settings.scope_threshold is not None else fitted.thresholds.scope
        )
        scope = general if own is None else own
        margin = (
            settings.margin_threshold if settings.margin_threshold is not None else fitted.thresholds.margin
        )
        in_scope = found["scope_score"] is not None and found["scope_score"] >= scope
        return found | {
            "in_scope": in_scope,
            "scope_threshold": round(scope, 4),
            "margin_threshold": round(margin, 4),
        }

    def _typical(self, found: Json) -> bool:
        """As much in scope as the average example, and ahead by more than calls for a question."""
        typical = found["in_scope"] and found["scope_score"] >= 0
        return bool(typical and found["margin"] >= found["margin_threshold"])

    def _looked_at(self, message: Message) -> list[str]:
        limit = self._settings.text_limit
        text = message.text[:limit]
        if length(text) >= SHORT or not message.previous:
            return [text]
        before: list[str] = []
        for turn in reversed(message.previous[-LOOK_BACK:]):
            before.insert(0, turn)
            if length(turn) >= SHORT:
                break
        return [text, "\n".join([*before, text])[-limit:]]

    async def _recalibrate(self) -> None:
        try:
            await self.open()
        except AgentflowError as error:
            log.warning("recalibration failed; the old thresholds stay", error=error.message)

    async def _become(
        self,
        roles: Mapping[str, RoleExamples],
        *,
        settings: RouterSettings | None = None,
        lessons: Sequence[Lesson] | None = None,
    ) -> None:
        settings = settings or self._settings
        lessons = self._lessons if lessons is None else tuple(lessons)
        fitted, version = await self._made(tuple(roles.values()), settings, lessons)
        self._roles, self._settings, self._lessons = dict(roles), settings, tuple(lessons)
        self._fitted, self._version = fitted, version

    async def _made(
        self, roles: Sequence[RoleExamples], settings: RouterSettings, lessons: Sequence[Lesson]
    ) -> tuple[Classifier | None, str]:
        if not roles:
            return None, ""
        grown, outside = taught(roles, settings.out_of_scope, lessons)
        settings = settings.model_copy(update={"out_of_scope": outside})
        examples = examples_of(grown, settings)
        version = version_of(examples, settings, self._embedder.id)
        if self._folder is not None:
            known = await asyncio.to_thread(load_classifier, self._folder, version)
            if known is not None:
                return known, version
        vectors = await self._embedded([one.text for one in examples], settings.text_limit)
        fitted = await asyncio.to_thread(fit, examples, vectors, settings)
        if self._folder is not None:
            await asyncio.to_thread(save_classifier, self._folder, version, fitted)
        return fitted, version

    async def _embedded(self, texts: Sequence[str], limit: int) -> Mapping[str, Vectors]:
        """Vectors of all texts, embedding only the new ones."""
        if not self._vectors:
            self._vectors = await asyncio.to_thread(self._store().load, texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            found = await self._embedder.embed([text[:limit] for text in new])
            known = {text: self._vectors[text] for text in texts if text in self._vectors}
            self._vectors = known | dict(zip(new, np.asarray(found, np.float32), strict=True))
            await asyncio.to_thread(self._store().save, self._vectors)
        return self._vectors

    def _store(self) -> VectorStore:
        return VectorStore(self._folder, self._embedder.id)
