"""The command line of an engine's server, from what agentflow.yaml says; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SHIPPED_KV_CACHE = "64M"


@dataclass(frozen=True)
class Start:
    """What a server is started for.

    `slots` adapters may be active at once, `host_slots` rest in its RAM; `rank` bears all of them. `preload`
    maps names to folders. `small` is the shipped model, which needs next to no memory.
    """

    python: str
    base: str
    host: str
    port: int
    slots: int
    host_slots: int
    rank: int
    on_cpu: bool
    api_key: str | None = None
    preload: Mapping[str, str] = field(default_factory=dict)
    small: bool = False
    more: Sequence[str] = ()


@dataclass(frozen=True)
class Command:
    """What is run. `unset` must not be inherited; `secret` names variables and options that are not shown."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    unset: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()


def vllm(start: Start) -> Command:
    """The OpenAI server of vLLM 0.32 server with runtime adapters, its development RPC, and no resolver.

    On a CPU one slot more than ever used keeps vLLM before 0.33 from answering for the base in an adapter's
    voice (vllm#48421). Prefix caching hashes with sha256, whose collisions nobody can craft.
    """
    slots = start.slots + start.on_cpu
    args = [
        start.python, "-m", "vllm.entrypoints.openai.api_server", "--model", start.base,
        "--served-model-name", "base", "--host", start.host, "--port", str(start.port),
        "--enable-lora", "--max-loras", str(slots), "--max-cpu-loras", str(max(slots, start.host_slots)),
        "--max-lora-rank", str(start.rank), "--prefix-caching-hash-algo", "sha256",
    ]  # fmt: skip
    if start.on_cpu:
        args += ["--dtype", "bfloat16", "--enforce-eager"]
    if start.small:
        args += ["--kv-cache-memory-bytes", SHIPPED_KV_CACHE]
    if start.preload:
        args += ["--lora-modules", *(f"{name}={folder}" for name, folder in start.preload.items())]
    env = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_PLUGINS": "",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if start.on_cpu:
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    if start.api_key:
        env["VLLM_API_KEY"] = start.api_key
    unset = ("VLLM_LORA_RESOLVER_CACHE_DIR", "VLLM_LORA_RESOLVER_HF_REPO_LIST", "VLLM_CPU_KVCACHE_SPACE")
    return Command((*args, *start.more), env, unset, secret=("VLLM_API_KEY",))


def sglang(start: Start) -> Command:
    """SGLang with runtime adapters. Rank and modules are given, since it would take them from the first one.

    The base model takes one of the places in a batch.
    """
    slots = start.slots + 1
    args = [
        start.python, "-m", "sglang.launch_server", "--model-path", start.base,
        "--host", start.host, "--port", str(start.port),
        "--enable-lora", "--max-loras-per-batch", str(slots),
        "--max-loaded-loras", str(max(slots, start.host_slots)), "--max-lora-rank", str(start.rank),
        "--lora-target-modules", "all", "--lora-eviction-policy", "lru",
    ]  # fmt: skip
    if start.on_cpu:
        args += ["--device", "cpu"]
    if start.api_key:
        args += ["--api-key", start.api_key]
    if start.preload:
        args += ["--lora-paths", *(f"{name}={folder}" for name, folder in start.preload.items())]
    return Command((*args, *start.more), {}, secret=("--api-key",))
