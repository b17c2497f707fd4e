"""agentflow plan: what a configuration would take, from config.json and headers alone."""

import json

import pytest
from typer.testing import CliRunner

from agentflow.adapters import AdapterFiles
from agentflow.cli.commands import app
from agentflow.errors import AgentflowError, ConfigError, FetchFailed
from agentflow.residency.footprint import BaseModel, on_gpus, smallest_rank
from agentflow.residency.plan import Move
from agentflow.residency.profiles import known, names, profile
from agentflow.settings import Settings
from agentflow.settings.environment import read as read_environment
from agentflow.wiring import Place
from agentflow.wiring.forecast import Forecast, Level, Machine, forecast
from agentflow.wiring.reach import reached

GB = 10**9
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def base(name: str) -> BaseModel:
    found = profile(name)
    return BaseModel.of(found.name, found.config)


def planned(folder, *, machine: Machine | None = None, far=None, **settings) -> Forecast:
    given = Settings.model_validate({"model": {"ram": {"max": 0}} | settings.pop("model", {}), **settings})
    return forecast(Place(given, read_environment(), folder), machine or Machine(), far=far)


@pytest.mark.parametrize(
    ("name", "billions", "kv"), [("qwen3-30b-a3b", 30.532, 98_304), ("qwen3-8b", 8.191, 147_456)]
)
def test_parameters_and_kv_cache_are_those_of_the_published_models(name, billions, kv):
    found = base(name)
    assert (round(found.parameters / 1e9, 3), found.per_token()) == (billions, kv)


def test_a_slot_is_max_rank_times_in_plus_out_of_every_wrapped_layer():
    found = base("qwen3-30b-a3b")
    layer = (2048 + 4096) + 2 * (2048 + 512) + (4096 + 2048)
    assert found.slot(64, ATTENTION) == 48 * 64 * layer * 2


def test_experts_cost_a_slot_as_often_as_there_are_experts():
    found = base("qwen3-30b-a3b")
    dense, whole = found.slot(16, found.leaves()), found.slot(16, found.leaves(), experts=True)
    assert whole - dense == 48 * 128 * 16 * 3 * (2048 + 768) * 2


def test_two_gpus_divide_weights_heads_and_one_half_of_each_pair():
    found = base("qwen3-8b")
    one, two = (on_gpus(found, gpus=count, memory=80 * GB, slots=0, context=8192) for count in (1, 2))
    assert (two.weights, found.per_token(2)) == (one.weights // 2, found.per_token() // 2)
    assert found.slot(64, ["q_proj"], gpus=2) == 36 * 64 * (4096 + 2048) * 2
    assert found.slot(64, ["o_proj"], gpus=2) == 36 * 64 * (2048 + 4096) * 2


def test_more_gpus_than_kv_heads_hold_copies():
    assert base("qwen3-30b-a3b").per_token(8) == base("qwen3-30b-a3b").per_token(4)


def test_three_gpus_divide_layers_since_heads_do_not_divide():
    found = on_gpus(base("qwen3-8b"), gpus=3, memory=80 * GB, slots=0, context=8192)
    assert (found.divided, base("qwen3-8b").per_token(3)) == ("layers", 2 * 12 * 8 * 128 * 2)


def test_the_whole_of_a_gpu_is_accounted_for():
    found = on_gpus(base("qwen3-8b"), gpus=1, memory=80 * GB, slots=GB, context=8192)
    assert found.weights + found.slots + found.reserve + found.kv == 72 * GB


def test_too_small_a_gpu_has_no_tokens():
    found = on_gpus(base("qwen3-8b"), gpus=1, memory=16 * GB, slots=0, context=8192)
    assert (found.fits, found.tokens) == (False, 0)


@pytest.mark.parametrize(("ranks", "enough"), [([], 1), ([8], 8), ([9, 4], 16), ([600], 600)])
def test_the_smallest_rank_an_engine_may_be_given(ranks, enough):
    assert smallest_rank(ranks) == enough


def test_profiles_are_found_by_hub_id_and_strangers_are_named():
    assert known("Qwen/Qwen3-30B-A3B").name == "Qwen/Qwen3-30B-A3B"
    assert known("somebody/else") is None
    with pytest.raises(ConfigError, match=", ".join(names())):
        profile("else")


def test_an_unknown_architecture_has_no_arithmetic():
    assert BaseModel.of("x", {"model_type": "phi3"}) is None


def test_a_contradictory_config_is_a_config_error():
    with pytest.raises(ConfigError, match="contradicts itself"):
        BaseModel.of("x", {"model_type": "qwen3", "hidden_size": "wide"})


# --- forecasts -------------------------------------------------------------------------------

ROLES = {
    "philosopher": {"lora_path": "tiny:philosopher", "location": "vram"},
    "coder": {"lora_path": "tiny:coder", "location": "ram"},
    "artist": {"lora_path": "tiny:artist", "location": "disk"},
    "plain": {},
}


def test_the_shipped_model_is_measured_not_supposed(tmp_path):
    found = planned(tmp_path, roles=ROLES, model={"max_rank": 8})
    assert [(one.role, one.rank, one.octets, one.exact) for one in found.spots] == [
        (role, 8, 122_048, True) for role in ("philosopher", "coder", "artist")
    ]
    assert (found.mistakes, found.gpus[0].fits) == ((), True)


def test_what_a_start_brings_in_is_said_in_order(tmp_path):
    found = planned(tmp_path, roles=ROLES)
    assert found.moves == (Move("bring", "philosopher", "vram", "start"),)


def test_a_remote_adapter_that_rests_on_disk_is_fetched_at_the_start(tmp_path):
    far = {"lora_path": "hf://a/b", "location": "disk"}
    found = planned(tmp_path, roles={"disk": far, "remote": far | {"location": "remote"}})
    assert found.moves == (Move("bring", "disk", "disk", "start"),)


def test_cold_seconds_grow_with_the_distance(tmp_path):
    philosopher, coder, artist = planned(tmp_path, roles=ROLES).spots
    assert philosopher.cold == 0 < coder.cold < artist.cold


def test_a_rank_that_nobody_needs_is_told_with_its_price(tmp_path):
    found = planned(tmp_path, roles=ROLES, model={"engine": "vllm"})
    (told,) = [text for text in found.warnings if "max_rank" in text]
    assert "64, but no adapter has more than 8: 8 would spare" in told


def test_an_engine_in_process_reserves_nothing(tmp_path):
    found = planned(tmp_path, roles=ROLES, model={"slots": 2})
    assert (found.reserves, found.gpus[0].slots) == (False, 2 * 122_048)


def test_an_adapter_that_is_not_there_is_a_mistake(tmp_path):
    found = planned(tmp_path, roles={"a": {"lora_path": "nowhere"}})
    assert found.mistakes[0].startswith("roles.a: lora_path: ")
    assert found.moves == ()


def test_pins_must_leave_a_slot(tmp_path):
    pinned = {
        name: role | {"pin": True} if role and name != "artist" else role for name, role in ROLES.items()
    }
    found = planned(tmp_path, roles=pinned, model={"slots": 2})
    assert "one of model.slots = 2 must stay free" in found.mistakes[0]


def test_ram_that_is_too_small_is_a_warning(tmp_path):
    found = planned(tmp_path, roles=ROLES)
    assert any("rest in RAM take 0 MB, model.ram holds 0 MB" in text for text in found.warnings)
    assert found.levels[1] == Level("ram", 122_048, 0)


def test_remote_adapters_are_supposed_and_said_to_be(tmp_path):
    roles = {"far": {"lora_path": "hf://somebody/lora", "location": "remote"}}
    found = planned(tmp_path, roles=roles)
    assert (found.spots[0].exact, found.spots[0].location, found.levels[2].used) == (
        False,
        "remote",
        found.spots[0].octets,
    )
    assert sum("far" in text for text in found.warnings) == 2


def test_what_was_fetched_is_measured_and_what_its_source_says_is_believed(tmp_path):
    files = AdapterFiles(tmp_path, "", 4, ("q_proj",), 1000, "BF16", 2)
    far = {
        "hf://a/fetched": files,
        "s3://b/told": 2000,
        "https://c/silent": 0,
        "hf://d/gone": FetchFailed("gone"),
    }
    roles = {path[-4:]: {"lora_path": path} for path in far}
    found = planned(tmp_path, far=far, roles=roles, model={"base": "Qwen/Qwen3-8B"})
    assert [(one.octets, one.exact, one.trouble) for one in found.spots[:2]] == [
        (1000, True, ""),
        (2000, False, ""),
    ]
    assert found.mistakes == ("roles.gone: gone",)
    assert sum("not fetched yet" in text for text in found.warnings) == 2


def test_two_roles_with_one_adapter_are_told_that_it_takes_two_slots(tmp_path):
    roles = {name: {"lora_path": "tiny:coder"} for name in ("a", "b")}
    assert any("a and b name the same adapter" in text for text in planned(tmp_path, roles=roles).warnings)


def test_a_base_out_of_reach_leaves_the_arithmetic_out(tmp_path):
    found = planned(tmp_path, model={"base": "somebody/else"})
    assert (found.gpus, "not at hand" in found.warnings[-1]) == ((), True)


def test_a_hub_id_with_a_profile_needs_no_weights(tmp_path):
    assert len(planned(tmp_path, model={"base": "Qwen/Qwen3-8B"}).gpus) == 4


def test_a_base_that_fits_nowhere_is_a_mistake(tmp_path):
    found = planned(tmp_path, model={"base": "Qwen/Qwen3-30B-A3B"}, machine=Machine(2, 16 * GB))
    assert "does not fit on 2 GPUs of 16 GB" in found.mistakes[0]


async def test_sources_are_asked_only_when_wanted(tmp_path):
    model = {"disk": {"path": str(tmp_path / "cache")}}
    roles = {"far": {"lora_path": "https://127.0.0.1:1/x"}, "near": {"lora_path": "tiny:coder"}}
    place = Place(Settings.model_validate({"model": model, "roles": roles}), read_environment(), tmp_path)
    assert await reached(place, look=False) == {}
    (error,) = (await reached(place, look=True)).values()
    assert isinstance(error, AgentflowError)


# --- the command -----------------------------------------------------------------------------


def test_a_profile_is_planned_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["plan", "--profile", "qwen3-30b-a3b", "--json"])
    found = json.loads(told.stdout)
    assert told.exit_code == 0
    assert [one["gpus"] for one in found["gpus"]] == [1, 2, 3, 4]
    assert [one["role"] for one in found["spots"]] == ["lawyer", "coder", "poet"]


def test_a_plan_that_cannot_work_has_an_exit_status(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["plan", "--profile", "qwen3-8b", "--gpus", "1", "--gpu-memory", "8GB"])
    assert (told.exit_code, "does not fit on 1 GPU of 8 GB" in told.stdout) == (1, True)


def test_the_table_names_base_adapters_tiers_and_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["plan", "--profile", "qwen3-30b-a3b"]).stdout
    for word in ("30.53 billion", "KV cache", "lawyer", "rests there", "lawyer into vram (start)"):
        assert word in told
