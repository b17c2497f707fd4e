"""compose.yaml, Dockerfile and .dockerignore: what can be known of them without building anything."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

import agentflow
from agentflow.settings import Environment, Model, Settings, environment, inspect
from agentflow.settings.document import parse

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ON_VLLM = """
model: {base: Qwen/Qwen3-0.6B, engine: vllm}
roles: {coder: {description: code, lora_path: /adapters/coder}}
"""


def schema_mistakes(document: object) -> list[str]:
    """Against the schema of the compose specification, which the package check-jsonschema carries."""
    schema = (files("check_jsonschema.builtin_schemas") / "vendor" / "compose-spec.json").read_text()
    return [error.message for error in Draft202012Validator(json.loads(schema)).iter_errors(document)]


def active(profile: str) -> set[str]:
    return {name for name, service in SERVICES.items() if profile in service["profiles"]}


def flags(service: str) -> dict[str, str]:
    words = [word.removeprefix("--").partition("=") for word in SERVICES[service]["command"]]
    return {name: value for name, _, value in words}


def binds(service: str) -> dict[str, dict[str, object]]:
    return {one["target"]: one for one in SERVICES[service]["volumes"] if isinstance(one, dict)}


def filled_in(text: str) -> str:
    """${NAME:-default} as the default, ${NAME:?message} as a secret that was set."""
    return re.sub(r"\$\{\w+:\?[^}]*\}", "secret", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def images() -> list[str]:
    return [one["image"] for one in SERVICES.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)


def test_compose_follows_the_specification() -> None:
    assert schema_mistakes(COMPOSE) == []


def test_the_specification_knows_a_mistake_when_it_sees_one() -> None:
    assert schema_mistakes({"services": {"a": {"imag": "b:1"}}}) != []


def test_only_agentflow_is_published_and_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"agentflow": ["127.0.0.1:8100:8100"]}
    assert not any("network_mode" in service for service in SERVICES.values())


def test_the_database_network_leads_nowhere() -> None:
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"] == {"internal": True}


def test_every_service_has_a_health_check() -> None:
    checks = {name: service["healthcheck"]["test"][0] for name, service in SERVICES.items()}
    assert checks == {"postgres": "CMD", "vllm": "CMD", "agentflow": "CMD"}


@pytest.mark.parametrize(
    ("profile", "services"),
    [("cpu", {"postgres", "agentflow"}), ("gpu", {"postgres", "vllm", "agentflow"})],
)
def test_a_profile_has_what_its_services_wait_for(profile: str, services: set[str]) -> None:
    waits = SERVICES["agentflow"]["depends_on"]
    needed = {name for name, how in waits.items() if how.get("required", True)}
    assert active(profile) == services
    assert needed <= services
    assert {how["condition"] for how in waits.values()} == {"service_healthy"}


def test_only_the_gpu_profile_asks_for_a_gpu() -> None:
    asking = {name for name, service in SERVICES.items() if "deploy" in service}
    devices = SERVICES["vllm"]["deploy"]["resources"]["reservations"]["devices"]
    assert asking == active("gpu") - active("cpu")
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize("image", images())
def test_images_are_pinned_to_a_version(image: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", image)


def test_our_image_carries_our_version() -> None:
    assert SERVICES["agentflow"]["image"] == f"agentflow:{agentflow.__version__}"


def test_variables_of_agentflow_are_ones_that_it_reads() -> None:
    read = set(re.findall(r'"(AGENTFLOW_\w+|DATABASE_URL)"', Path(environment.__file__).read_text()))
    ours = set(SERVICES["agentflow"]["environment"]) | set(re.findall(r"\b(AGENTFLOW_\w+)=", DOCKERFILE))
    assert {name for name in ours if not name.startswith("HF_")} <= read


def composed(text: str) -> tuple[Settings | None, list[str]]:
    """A configuration as the container of agentflow reads it."""
    given = SERVICES["agentflow"]["environment"].items()
    variables = {name: filled_in(value) for name, value in given if value is not None}
    found, findings = inspect(
        parse(text),
        Environment(variables, Path("agentflow.yaml"), Path("cache"), None),
        folder=Path("/etc/agentflow"),
    )
    return found, [str(one) for one in findings if one.serious]


def test_the_container_listens_widely_with_a_key_and_knows_its_neighbours() -> None:
    settings, mistakes = composed(ON_VLLM)
    assert settings is not None
    assert settings.server.api_key is not None
    assert settings.postgres.url is not None
    assert mistakes == []
    assert (settings.server.on_loopback, settings.server.port) == (False, 8100)
    assert settings.model.url == f"http://vllm:{flags('vllm')['port']}"
    assert settings.postgres.url.get_secret_value() == "postgresql://agentflow:secret@postgres:5432/agentflow"


def test_vllm_has_the_slots_and_ranks_that_agentflow_counts_on() -> None:
    given, model = flags("vllm"), Model()
    assert (int(given["max-loras"]), int(given["max-lora-rank"])) == (model.slots, model.max_rank)
    assert int(given["max-cpu-loras"]) >= model.slots
    assert SERVICES["vllm"]["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "enable-lora" in given


def test_both_see_adapters_under_the_same_path_and_neither_can_change_them() -> None:
    assert binds("vllm")["/adapters"] == binds("agentflow")["/adapters"]
    assert binds("agentflow")["/adapters"]["read_only"] is True


def test_the_configuration_is_mounted_where_agentflow_looks_for_it() -> None:
    mounted = binds("agentflow")[SERVICES["agentflow"]["environment"]["AGENTFLOW_CONFIG"]]
    assert (mounted["read_only"], mounted["bind"]) == (True, {"create_host_path": False})


def test_secrets_are_required_and_none_is_written_down() -> None:
    settings = {**SERVICES["postgres"]["environment"], **SERVICES["agentflow"]["environment"]}
    assert settings["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert settings["AGENTFLOW_API_KEY"].startswith("${AGENTFLOW_API_KEY:?")
    assert "${POSTGRES_PASSWORD:?" in settings["DATABASE_URL"]


def test_the_build_context_holds_what_the_dockerfile_copies_and_nothing_else() -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {name.strip("/") for line in copies for name in line.split()}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_image_installs_what_is_locked_and_runs_without_root() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "--no-deps --require-hashes -r requirements/run.txt" in DOCKERFILE
    assert re.findall(r"^USER (\w+)$", final, re.MULTILINE) == ["agentflow"]
    assert re.findall(r"^CMD (.+)$", final, re.MULTILINE) == ['["agentflow", "serve"]']
    assert re.findall(r"^VOLUME (.+)$", final, re.MULTILINE) == ["/var/lib/agentflow"]
    assert "HEALTHCHECK" in final
