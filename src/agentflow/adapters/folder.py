"""An adapter folder: its two files found, judged, and named by digest."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

from agentflow.adapters.config import CONFIG, check_config, read_config
from agentflow.adapters.header import WEIGHTS, Header, read_header
from agentflow.adapters.refusal import refuse
from agentflow.adapters.shapes import BaseShape
from agentflow.adapters.tensors import check_tensors, check_values

PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
_CODE = frozenset(
    {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".js", ".jar"}
)
WEIGHTS_LIMIT = 16 * 2**30
"""Bytes of an adapter where no base model bounds them: rank 256 on 70 billion parameters takes half of it."""


@dataclass(frozen=True)
class AdapterFiles:
    """A valid adapter. `rank` is the largest of its tensors; `bytes` the size of the weights file."""

    folder: Path
    sha256: str
    rank: int
    modules: tuple[str, ...]
    bytes: int
    dtype: str
    tensors: int


def identity(role: str, digest: str) -> str:
    """The name an engine knows the adapter by: new weights have a new name (vllm#30931, #42125)."""
    return f"{role}@{digest[:12]}"


def inspect(
    folder: Path, *, base: BaseShape | None, max_rank: int, roots: Sequence[Path] = ()
) -> AdapterFiles:
    """Check the folder and hash it. Reads the whole weights file once. Raises InvalidAdapter.

    `base` None leaves out the comparison with the base model's shapes. With `roots` the folder must lie in
    one of them, wherever links lead.
    """
    checked = check(folder, base=base, max_rank=max_rank, roots=roots)
    return AdapterFiles(**{**checked.__dict__, "sha256": digest(folder)})


def check(folder: Path, *, base: BaseShape | None, max_rank: int, roots: Sequence[Path] = ()) -> AdapterFiles:
    """As `inspect`, without the hash (`sha256` is empty): reads the header and samples of the weights."""
    config_path, weights_path = files(folder, roots)
    check_no_code(folder)
    config = read_config(config_path)
    rank = check_config(config, max_rank)
    try:
        with weights_path.open("rb") as file:
            header = read_header(file, weights_path.stat().st_size)
            check_size(header)
            facts = check_tensors(header.tensors, config, base)
            check_values(file, header)
    except OSError as error:
        refuse("weights", str(weights_path), f"cannot be read ({error})", "Check its permissions.", error)
    return AdapterFiles(folder, "", rank, facts.modules, header.octets, facts.dtype, len(header.tensors))


def digest(folder: Path) -> str:
    """SHA-256 over length (8 bytes, little endian) and content of the configuration, then of the weights."""
    state = sha256()
    for path in files(folder):
        try:
            with path.open("rb") as file:
                state.update(path.stat().st_size.to_bytes(8, "little"))
                while block := file.read(1 << 20):
                    state.update(block)
        except OSError as error:
            refuse("lora_path", str(path), f"cannot be read ({error})", "Check its permissions.", error)
    return state.hexdigest()


def files(folder: Path, roots: Sequence[Path] = ()) -> tuple[Path, Path]:
    """Configuration and weights, both regular files in the folder itself. Raises InvalidAdapter."""
    try:
        home = folder.resolve(strict=True)
        if not home.is_dir():
            refuse("lora_path", str(folder), "is not a folder", f"Name the folder that holds {CONFIG}.")
        check_root(folder, home, roots)
        return _inside(home, CONFIG), _inside(home, WEIGHTS)
    except (OSError, ValueError, RuntimeError) as error:
        refuse("lora_path", str(folder), "does not exist or cannot be opened", "Correct the path.", error)


def check_root(folder: Path, home: Path, roots: Sequence[Path]) -> None:
    """`home` is where `folder` leads once every link is followed."""
    if roots and not any(home.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(str(root) for root in roots)
        where = str(folder) if folder == home else f"{folder} -> {home}"
        refuse(
            "lora_path",
            where,
            f"lies outside the allowed folders {allowed}",
            "Move it, or extend model.roots.",
        )


def check_no_code(folder: Path) -> None:
    """Adapters are numbers. Raises InvalidAdapter for programs beside them."""
    programs = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _CODE)
    if programs:
        refuse(
            "lora_path",
            str(folder),
            f"holds code ({', '.join(programs[:3])})",
            "Keep programs out of the folder.",
        )


def check_size(header: Header) -> None:
    """Raises InvalidAdapter for weights that no adapter has."""
    if header.octets > WEIGHTS_LIMIT:
        refuse(
            WEIGHTS, header.octets, f"is larger than {WEIGHTS_LIMIT} bytes", "It is no adapter: name another."
        )


def pickles(folder: Path) -> list[str]:
    """Files beside the weights that could run code when opened; we never do, engines need not."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLED)


def _inside(home: Path, name: str) -> Path:
    path = (home / name).resolve()
    if not path.is_relative_to(home):
        refuse("lora_path", str(home / name), "is a link out of its folder", "Copy the file into the folder.")
    if not path.exists():
        refuse("lora_path", str(home), f"has no {name}", _remedy(home, name))
    if not S_ISREG(path.stat().st_mode):
        refuse("lora_path", str(home / name), "is not a regular file", "Copy the real file into the folder.")
    return path


def _remedy(home: Path, name: str) -> str:
    pickled = pickles(home)
    if name == WEIGHTS and pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code and is never opened: convert it where you "
            "trust it, with PEFT's save_pretrained(..., safe_serialization=True)."
        )
    return "Save the adapter with PEFT's save_pretrained()."
