"""How the double of vLLM behaves."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How the double behaves. Times are seconds; `tokens_per_second` None answers at once.

    `dev_mode` offers the RPC. `mixes_up_base` is the CPU fault of vLLM before 0.33. `thinks_aloud` puts the
    answer into `reasoning`, as a reasoning parser does on a model without think tags. `hang` never answers a
    chat, `down` answers 503 to everything. After its death it stops listening within `death` seconds.
    """

    base: str = "base"
    max_loras: int = 4
    max_cpu_loras: int = 6
    max_lora_rank: int = 64
    max_model_len: int = 4096
    load: float = 0
    first_token: float = 0
    tokens_per_second: float | None = None
    dev_mode: bool = True
    mixes_up_base: bool = True
    api_key: str | None = None
    thinks_aloud: bool = False
    hang: bool = False
    down: bool = False
    death: float = 0.5
