"""What `config check` finds beyond the file itself: adapters and examples."""

from agentflow.errors import AdapterError, ConfigError
from agentflow.residency.roster import roster
from agentflow.routing.classifier import examples_of
from agentflow.settings import Document, Finding
from agentflow.wiring.place import Place, base_shape
from agentflow.wiring.roles import role_examples


def adapter_findings(place: Place, document: Document) -> list[Finding]:
    """What is wrong with the adapters' files, as findings in agentflow.yaml."""
    found = roster(place.settings, folder=place.folder, base=base_shape(place))
    return [
        Finding(
            document.line(("roles", name, "lora_path")),
            f"roles.{name}.lora_path",
            place.settings.roles[name].lora_path or "",
            error.message,
        )
        for name, error in found.items()
        if isinstance(error, AdapterError)
    ]


def routing_findings(place: Place, document: Document) -> list[Finding]:
    """Examples that keep the router from starting, as findings in agentflow.yaml."""
    roles = [role_examples(name, role) for name, role in place.settings.roles.items()]
    try:
        examples_of(roles, place.settings.router)
    except ConfigError as error:
        path = tuple((error.field or "roles").split("."))
        return [Finding(document.line(path), error.field or "roles", str(error.value), error.message)]
    return []
