"""The one file as values: what agentflow.yaml may say, with every default."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from agentflow.settings.access import AccessSettings, LimitSettings, TelemetrySettings
from agentflow.settings.collections import Collection
from agentflow.settings.residency import Cron, DiskTier, Fetching, PinTo, RamTier, WhenCold
from agentflow.settings.routing import IntentSettings, RouterSettings, RuleSettings
from agentflow.settings.values import (
    Location,
    Milliseconds,
    Octets,
    Place,
    Seconds,
    Section,
    Warm,
    WarmBy,
    is_loopback,
)

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f.:]+(/\d{1,3})?")
RoleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class Generation(Section):
    """How a role's answers are sampled. `temperature` 0 is greedy."""

    max_tokens: int = Field(512, ge=1, le=4096)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Role(Section):
    """One mind: what it is for, which adapter speaks, where that rests, and what it remembers."""

    title: str = Field("", description="Name for people; the key when empty.")
    description: str = Field("", description="What the role is for; read by the classifier.")
    examples: tuple[str, ...] = Field((), description="Messages that belong to this role.")
    lora_path: str | None = Field(
        None,
        description="Adapter folder (safetensors), hf://, s3:// or https:// address, or tiny:NAME for a shipped one; "
        "none: the base model.",
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="What the adapter must be: SHA-256 of its weights file, or its digest.",
    )
    location: Place = Field(Location.RAM, description="Where the adapter rests: VRAM, RAM, disk or remote.")
    warm: WarmBy = Field(
        Warm.PREDICTED, description="Who activates it: start, predicted, demand or schedule."
    )
    warm_at: Cron | None = Field(None, description="warm: schedule: when it is loaded, such as 0 8 * * 1-5.")
    warm_until: Cron | None = Field(None, description="Until when it is kept then, such as 0 18 * * 1-5.")
    unload_after: Seconds | None = Field(600.0, description="Idle time until it is unloaded, such as 10m.")
    pin: PinTo = Field(None, description="A tier it never leaves: vram (or true), ram or disk.")
    cold_budget_ms: Milliseconds = Field(1500.0, ge=0, description="A load this short is simply waited for.")
    when_cold: WhenCold = Field(
        WhenCold(), description="What happens beyond the budget: wait, base, fallback ROLE or refuse."
    )
    cold_max_ms: Milliseconds = Field(60_000.0, gt=0, description="No turn waits longer for an adapter.")
    intents: tuple[IntentSettings, ...] = Field((), description="Several things the role is for.")
    rules: tuple[RuleSettings, ...] = Field((), description="Words or patterns that decide before meaning.")
    threshold: float | None = Field(None, description="Own scope threshold instead of the calibrated one.")
    system_prompt: str = ""
    reads: tuple[str, ...] = Field(("conversations",), description="Collections it recalls from.")
    writes: tuple[str, ...] = Field(("conversations",), description="Collections its turns are written to.")
    memory: Literal["shared", "private"] = Field(
        "shared", description="private: what is said to this role only it recalls."
    )
    generation: Generation = Generation()

    @model_validator(mode="after")
    def _schedule_has_a_time(self) -> "Role":
        if (self.warm is Warm.SCHEDULE) != (self.warm_at is not None):
            raise ValueError("warm: schedule and warm_at: a cron line such as 0 8 * * 1-5 go together")
        if self.warm_until is not None and self.warm_at is None:
            raise ValueError("warm_until means something only with warm_at")
        return self


class Timeouts(Section):
    """How long the engine may take; durations such as 5s."""

    connect: Seconds = 5.0
    first_token: Seconds = 60.0
    between_tokens: Seconds = 30.0
    total: Seconds = 300.0


class Model(Section):
    """The base model and the engine that runs it."""

    base: str = Field("tiny", description="tiny (shipped), a folder, or a hub id such as Qwen/Qwen3-0.6B.")
    engine: Literal["local", "vllm", "sglang", "lorax", "llamacpp", "ollama", "textgen", "tgi", "double"] = (
        Field(
            "local",
            description="local: in process; double: a stand-in without any model; else a server of that kind at `url`.",
        )
    )
    url: str = Field("http://127.0.0.1:8000", description="Where the engine's server listens.")
    api_key: SecretStr | None = Field(None, description="env:NAME or file:PATH.")
    slots: int = Field(8, ge=1, description="Adapters that fit into VRAM at once (vLLM: --max-loras).")
    max_rank: int = Field(64, ge=1, description="Largest LoRA rank (vLLM: --max-lora-rank).")
    vram: Octets | None = Field(None, ge=1, description="Bytes of VRAM for adapters, besides `slots`.")
    ram: RamTier = Field(RamTier(), description="Copies of adapters in memory.")
    disk: DiskTier = Field(DiskTier(), description="Adapters fetched from elsewhere.")
    fetching: Fetching = Field(Fetching(), description="How they are fetched.")
    roots: tuple[Path, ...] = Field(
        (), description="Folders that local adapters must lie in; none: wherever the file says."
    )
    batch: int = Field(8, ge=1, le=256, description="Answers generated at once by the local engine.")
    thinking: bool | None = Field(None, description="Qwen3 and its like: false keeps think text out.")
    threads: int | None = Field(None, ge=1, description="CPU threads of the local engine; tiny: 1.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeouts: Timeouts = Timeouts()


class EmbedderSettings(Section):
    """What turns texts into vectors."""

    kind: Literal["onnx", "remote", "fake"] = "onnx"
    model: str = Field("sentence-transformers/all-MiniLM-L6-v2", description="Hub id, or a local folder.")
    precision: Literal["int8", "fp32"] = "int8"
    url: str | None = Field(None, description="An OpenAI-compatible server, for kind: remote.")
    api_key: SecretStr | None = Field(None, description="env:NAME or file:PATH.")
    timeout: Seconds = 10.0

    @model_validator(mode="after")
    def _remote_has_url(self) -> "EmbedderSettings":
        if self.kind == "remote" and not self.url:
            raise ValueError("kind: remote needs url: the address of an OpenAI-compatible server")
        return self


class MemorySettings(Section):
    """How much of the past a prompt sees."""

    recall: int = Field(6, ge=0, le=100, description="Memories recalled per turn.")
    min_score: float = Field(
        0.5,
        ge=0,
        le=1.5,
        description="Relevance (cosine, plus half the share of the question's words) below which nothing is "
        "recalled; 0: everything.",
    )
    tokens: int = Field(1500, ge=0, description="Tokens of recalled text in a prompt, at most.")
    pinned_tokens: int = Field(300, ge=0, description="Tokens of pinned memories in a prompt, at most.")
    embed_within: Seconds = Field(0.5, description="A slower embedder is not waited for: words alone decide.")
    session_pause: Seconds = Field(21600.0, description="Silence after which a thread begins a new session.")
    history: int = Field(10, ge=0, le=200, description="Messages of the thread that the prompt repeats.")
    summaries: bool = Field(
        False,
        description="Condense sessions that are over, while nothing else happens; turns stay as they are.",
    )
    keep_checkpoints: Seconds | None = Field(
        7 * 86400.0, ge=0, description="Of each thread the latest stays, and those younger; null: all."
    )
    upload_limit: Octets = Field(32 * 1024 * 1024, description="Size of a document or an import, at most.")


class Postgres(Section):
    """The database. Without `url` agentflow runs its own, in `data`."""

    url: SecretStr | None = Field(None, description="DSN; or set DATABASE_URL.")
    data: Path = Field(Path(".agentflow/postgres"), description="Folder of the embedded server.")
    bin_dir: Path | None = None
    run_as: str | None = Field(None, description="User of the embedded server when started by root.")
    start_timeout: Seconds = 60.0
    pool_size: int = Field(16, ge=2, le=80)


class Server(Section):
    """Where agentflow listens, and its limits."""

    host: str = "127.0.0.1"
    port: int = Field(8100, ge=0, le=65535, description="0: any free port.")
    api_key: SecretStr | None = Field(None, description="env:NAME or file:PATH; needed beyond loopback.")
    origins: tuple[str, ...] = Field(
        (), description="Web pages that may use this server, such as https://chat.example.org."
    )
    body_limit: Octets = 2 * 1024 * 1024
    message_chars: int = Field(200_000, ge=1)
    turn_seconds: Seconds = Field(600.0, description="A turn that takes longer is failed.")
    graph_errors: Literal["auto", "shown", "hidden"] | tuple[str, ...] = Field(
        "auto",
        description="Whether callers read what a graph's exceptions say; a list: of these graphs only. auto: on "
        "loopback, as long as nobody needs a key.",
    )
    drain: Seconds = Field(
        15.0, description="How long a stop waits for requests, and then for turns; the rest is handed over."
    )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def shows_errors_of(self, graph: str) -> bool | None:
        """Whether callers read the texts of a graph's exceptions; None: where nobody needs a credential."""
        if isinstance(self.graph_errors, tuple):
            return graph in self.graph_errors
        if self.graph_errors == "auto":
            return None if self.on_loopback and self.api_key is None else False
        return self.graph_errors == "shown"


class OpenAISettings(Section):
    """How clients that know no threads are matched with ours."""

    thread_headers: tuple[str, ...] = Field(
        (r"x-([a-z0-9-]+-)?(chat|conversation)-id", "x-session-id", "x-thread-id"),
        description="Headers that name the conversation, as patterns; the first that is there counts.",
    )
    user_headers: tuple[str, ...] = Field(
        (r"x-[a-z0-9-]+-user-id",),
        description="Headers that name a front end's user, as patterns; from keys that may speak for users.",
    )
    own_memory: tuple[str, ...] = Field(
        ("n8n", "langchainjs"),
        description="Clients (parts of the User-Agent) that repeat what they remember: unless they name a "
        "thread, nothing is recalled and nothing remembered for them.",
    )

    @field_validator("thread_headers", "user_headers")
    @classmethod
    def _patterns(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            try:
                re.compile(entry)
            except re.error as error:
                raise ValueError(f"{entry!r} is no pattern: {error}") from error
        return entries


class Webhooks(Section):
    """Callbacks to those who do not wait."""

    secret: SecretStr | None = Field(
        None, description="env:NAME or file:PATH; callbacks are signed with it (Standard Webhooks)."
    )


class EgressSettings(Section):
    """Which addresses of this machine and its network a request may make us call, as webhooks do."""

    allow: tuple[str, ...] = Field(
        (), description="Hosts, or networks such as 10.1.0.0/16; the public internet is always allowed."
    )

    @field_validator("allow")
    @classmethod
    def _hosts_or_networks(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            if not _HOST.fullmatch(entry):
                raise ValueError(f"{entry!r} is no host and no network; write n8n.internal or 10.1.0.0/16")
        return entries


class Settings(Section):
    """agentflow.yaml as a whole."""

    model: Model = Model()
    roles: dict[RoleName, Role] = Field(default_factory=dict)
    collections: dict[RoleName, Collection] = Field(default_factory=lambda: {"conversations": Collection()})
    router: RouterSettings = RouterSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    memory: MemorySettings = MemorySettings()
    postgres: Postgres = Postgres()
    server: Server = Server()
    openai: OpenAISettings = OpenAISettings()
    access: AccessSettings = AccessSettings()
    limits: LimitSettings = LimitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    webhooks: Webhooks = Webhooks()
    egress: EgressSettings = EgressSettings()
