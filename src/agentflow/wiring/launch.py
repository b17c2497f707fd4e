"""From agentflow.yaml to the command that starts its engine's server."""

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from agentflow.adapters import check
from agentflow.engines.launcher import command
from agentflow.engines.launcher.command import Command, Start
from agentflow.errors import AdapterError, ConfigError
from agentflow.residency.footprint import smallest_rank
from agentflow.residency.roster import REMOTE, Adapter, located, roster
from agentflow.wiring.place import Place, base_folder, base_shape

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STARTERS: dict[str, Callable[[Start], Command]] = {"vllm": command.vllm, "sglang": command.sglang}
_GPU = Path("/dev/nvidiactl")


def launch(place: Place, *, python: str, preload: bool = False, more: Sequence[str] = ()) -> Command:
    """Reads config and headers of adapters; starts nothing. Raises ConfigError.

    `python` is the interpreter of the environment that the engine is installed in. `preload` names the
    adapters that are warm at start on the command line, for a server that agentflow does not drive: one bad
    folder ends such a start, and the keeper loads them anyway.
    """
    model = place.settings.model
    starter = _STARTERS.get(model.engine)
    if starter is None:
        raise ConfigError(
            f"model.engine: '{model.engine}' is not started by agentflow, only {' and '.join(_STARTERS)} are.",
            field="model.engine",
            value=model.engine,
        )
    address = urlsplit(model.url)
    ranks = _ranks(place)
    return starter(
        Start(
            python=python,
            base=base_folder(place),
            host=address.hostname or "127.0.0.1",
            port=address.port or 8000,
            slots=model.slots,
            host_slots=max(model.slots, len(ranks)),
            rank=smallest_rank(ranks or [model.max_rank]),
            on_cpu=model.device == "cpu" or (model.device == "auto" and not _GPU.exists()),
            api_key=model.api_key.get_secret_value() if model.api_key else None,
            preload=_preload(place) if preload else {},
            small=model.base == "tiny",
            more=more,
        )
    )


def listens_wide(place: Place) -> bool:
    """Whether others could reach the server: its key guards paths under /v1 only."""
    return urlsplit(place.settings.model.url).hostname not in LOOPBACK


def _ranks(place: Place) -> list[int]:
    """One per role with an adapter; the limit of the file where the adapter is not at hand."""
    shape, ranks = base_shape(place), []
    for name, role in place.settings.roles.items():
        if role.lora_path is None:
            continue
        most = place.settings.model.max_rank
        try:
            if role.lora_path.startswith(REMOTE):
                ranks.append(most)
                continue
            folder = located(role.lora_path, place.folder, field=f"roles.{name}.lora_path")
            ranks.append(check(folder, base=shape, max_rank=most).rank)
        except AdapterError:
            ranks.append(most)
    return ranks


def _preload(place: Place) -> dict[str, str]:
    found = roster(place.settings, folder=place.folder, base=base_shape(place))
    wanted = [one for one in found.values() if isinstance(one, Adapter) and one.residence.at_start]
    here = {
        one.name: str(one.files.folder) for one in wanted if one.name is not None and one.files is not None
    }
    return dict(list(here.items())[: place.settings.model.slots])
