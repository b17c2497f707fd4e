"""Is it what was meant: the digest that a role names, and the errors that say no."""

from hashlib import file_digest
from pathlib import Path

from agentflow.adapters import WEIGHTS, AdapterFiles
from agentflow.egress import shown
from agentflow.errors import InvalidAdapter


def verify(files: AdapterFiles, expected: str | None, address: str) -> None:
    """For those who joined a download that was begun with other expectations."""
    if expected is not None and expected != files.sha256:
        weights = weights_digest(files.folder)
        if expected != weights:
            raise mismatch(address, expected, weights)


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights alone, as hubs tell it."""
    with (folder / WEIGHTS).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def mismatch(address: str, expected: str, found: str) -> InvalidAdapter:
    """Other weights than a role names."""
    return InvalidAdapter(
        f"{shown(address)} is not what sha256 names: its weights have {found}, expected was {expected}. "
        "Correct sha256, or find out who changed the file.",
        field="sha256",
        value=expected,
    )
