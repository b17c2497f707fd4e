"""agentflow engine: the command follows from the file, and a server is kept alive."""

import asyncio
import os
import socket
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentflow.cli.commands import app
from agentflow.cli.engine import shown
from agentflow.engines.launcher.command import Command
from agentflow.engines.launcher.supervisor import Patience, Supervisor
from agentflow.errors import ConfigError, StartError
from agentflow.settings import Environment, Settings
from agentflow.wiring import Place
from agentflow.wiring.launch import launch, listens_wide

ROLES = {"coder": {"lora_path": "tiny:coder", "warm": "start"}, "artist": {"lora_path": "tiny:artist"}}
HASTY = Patience(ready=20, poll=0.02, first_pause=0.02, longest_pause=0.1, ending=2)
SERVER = """
import http.server, os, sys, threading, time
class Door(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        if self.path == "/die": os._exit(3)
    def log_message(self, *_): pass
with open(sys.argv[2], "a") as log: log.write(f"{os.getpid()} {os.environ.get('RESOLVER')}\\n")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Door).serve_forever()
"""


def place(**model) -> Place:
    settings = Settings(model={"engine": "vllm", "slots": 3, "device": "cpu"} | model, roles=ROLES)
    return Place(settings, Environment({}, Path("agentflow.yaml"), Path("cache"), None), Path())


def options(command: Command) -> dict[str, str]:
    args = command.args
    return {name: value for name, value in pairwise(args) if name.startswith("--")}


def test_slots_and_ranks_come_from_the_file_and_the_headers():
    told = options(launch(place(), python="python"))
    wanted = ("--max-loras", "--max-cpu-loras", "--max-lora-rank", "--served-model-name")
    assert [told[name] for name in wanted] == ["4", "4", "8", "base"]


def test_without_adapters_the_rank_is_the_limit_of_the_file():
    nobody = place(max_rank=20)
    nobody = replace(nobody, settings=nobody.settings.model_copy(update={"roles": {}}))
    assert options(launch(nobody, python="python"))["--max-lora-rank"] == "32"


def test_on_a_gpu_no_slot_is_spared():
    told = options(launch(place(device="cuda"), python="python"))
    assert (told["--max-loras"], "--enforce-eager" in told) == ("3", False)


def test_the_server_listens_where_the_driver_asks():
    told = options(launch(place(url="http://localhost:9001/v1"), python="python"))
    assert (told["--host"], told["--port"]) == ("localhost", "9001")


def test_runtime_loading_is_on_and_resolvers_are_off():
    command = launch(place(), python="python")
    assert command.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert (command.env["VLLM_PLUGINS"], "VLLM_LORA_RESOLVER_CACHE_DIR" in command.unset) == ("", True)


def test_adapters_are_preloaded_only_when_that_is_asked_for():
    alone, loaded = (launch(place(), python="python", preload=preload) for preload in (False, True))
    assert "--lora-modules" not in alone.args
    assert options(loaded)["--lora-modules"].startswith("coder@")


def test_the_key_of_vllm_is_in_no_argument():
    command = launch(place(api_key="sesame"), python="python")
    assert (command.env["VLLM_API_KEY"], "sesame" in command.args) == ("sesame", False)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_key_is_not_shown(engine):
    assert "sesame" not in shown(launch(place(engine=engine, api_key="sesame"), python="python"))


def test_what_follows_the_dashes_is_passed_on():
    assert launch(place(), python="python", more=["--seed", "7"]).args[-2:] == ("--seed", "7")


def test_sglang_is_told_rank_and_modules():
    told = options(launch(place(engine="sglang"), python="python"))
    wanted = ("--max-loras-per-batch", "--max-lora-rank", "--lora-target-modules", "--device")
    assert [told[name] for name in wanted] == ["4", "8", "all", "cpu"]


def test_an_engine_without_a_launcher_is_named():
    with pytest.raises(ConfigError, match="'ollama' is not started by agentflow, only vllm and sglang are"):
        launch(place(engine="ollama"), python="python")


@pytest.mark.parametrize(("url", "wide"), [("http://127.0.0.1:8000", False), ("http://0.0.0.0:8000", True)])
def test_a_wide_address_is_noticed(url, wide):
    assert listens_wide(place(url=url)) is wide


# --- the commands


@pytest.fixture
def file(tmp_path):
    (tmp_path / "agentflow.yaml").write_text("model: {engine: vllm, device: cpu, slots: 3}\n")
    return str(tmp_path / "agentflow.yaml")


def test_the_command_is_printed_for_a_shell(file):
    told = CliRunner().invoke(app, ["engine", "args", "-c", file, "--python", "/opt/python"]).stdout
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in told
    assert "/opt/python -m vllm.entrypoints.openai.api_server --model" in told


def test_an_engine_that_is_not_installed_is_told_with_the_extra(file):
    result = CliRunner().invoke(app, ["engine", "start", "-c", file])
    assert isinstance(result.exception, StartError)
    assert "agentflow[vllm]" in str(result.exception)


# --- the supervisor


@pytest.fixture
def server(tmp_path):
    """A small server as an engine, with the file in which it notes its starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Command((sys.executable, "-c", SERVER, str(port), str(tmp_path / "starts")), {}, ("RESOLVER",))
    said: list[str] = []
    environment = os.environ | {"RESOLVER": "on"}
    return (
        Supervisor(command, f"http://127.0.0.1:{port}", environment, said.append, HASTY),
        said,
        tmp_path / "starts",
    )


async def test_a_server_that_dies_is_started_again_and_ends_with_us(server, soon):
    supervisor, said, starts = server
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop))
    await soon(lambda: "ready" in " ".join(said))
    first = int(starts.read_text().split()[0])
    os.kill(first, 9)
    await soon(lambda: len([line for line in said if "ready" in line]) == 2)
    stop.set()
    await running
    last = int(starts.read_text().splitlines()[-1].split()[0])
    assert (supervisor.restarts, [line for line in said if "ended with -9" in line] != []) == (1, True)
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


async def test_what_must_not_be_inherited_is_not(server, soon):
    supervisor, said, starts = server
    stop = asyncio.Event()
    running = asyncio.create_task(supervisor.run(stop))
    await soon(lambda: said)
    stop.set()
    await running
    assert starts.read_text().split()[1] == "None"


async def test_a_server_that_never_was_ready_is_a_start_error(server):
    supervisor, _, _ = server
    supervisor.command = Command((sys.executable, "-c", "raise SystemExit(5)"), {})
    with pytest.raises(StartError, match="ended with 5 before it was ready"):
        await supervisor.run(asyncio.Event())


async def test_a_server_that_cannot_be_run_is_a_start_error(server):
    supervisor, _, _ = server
    supervisor.command = Command(("/nowhere/python",), {})
    with pytest.raises(StartError, match="cannot be run"):
        await supervisor.run(asyncio.Event())
