"""Adapters that are only said to exist: for keepers whose engine looks at no files."""

from pathlib import Path

from agentflow.adapters import AdapterFiles
from agentflow.residency.roster import Adapter, Residence


def fake_files(role: str, digest: str = "1", *, octets: int = 100) -> AdapterFiles:
    """What validation would have said."""
    return AdapterFiles(Path("/adapters") / role, digest, 8, ("q_proj",), octets, "F32", 2)


def fake_adapter(
    role: str, digest: str = "1", *, residence: Residence | None = None, octets: int = 100
) -> Adapter:
    """A role's adapter, called `role@digest`."""
    files = fake_files(role, digest, octets=octets)
    return Adapter(role, files, residence=residence or Residence())
