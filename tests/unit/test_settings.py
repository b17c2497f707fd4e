"""agentflow.yaml: what loads, and what is said about what does not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigError
from agentflow.settings import Environment, Settings, inspect, load
from agentflow.settings.document import parse
from agentflow.settings.values import octets, seconds

AS_PEOPLE_WRITE_IT = """
roles:
  philosopher: {lora_path: /mnt/vrag/philosopher, location: VRAM}
  coder:       {lora_path: /home/user/lora/coder, location: RAM}
  artist:      {lora_path: /mnt/slowdisk/artist, location: disk}
"""


def environment(**variables: str) -> Environment:
    return Environment(variables=variables, config=Path("agentflow.yaml"), cache=Path("cache"), fault=None)


def read(text: str, folder: Path = Path("/srv"), **variables: str) -> tuple[Settings | None, list[str]]:
    settings, findings = inspect(parse(text), environment(**variables), folder=folder)
    return settings, [str(one) for one in findings if one.serious]


def test_the_block_that_people_write_loads_unchanged() -> None:
    settings, mistakes = read(AS_PEOPLE_WRITE_IT)
    assert mistakes == []
    assert settings is not None
    assert {name: (role.lora_path, role.location.value) for name, role in settings.roles.items()} == {
        "philosopher": ("/mnt/vrag/philosopher", "vram"),
        "coder": ("/home/user/lora/coder", "ram"),
        "artist": ("/mnt/slowdisk/artist", "disk"),
    }


def test_an_empty_file_is_all_defaults() -> None:
    settings, mistakes = read("")
    assert (mistakes, settings is not None and settings.server.port) == ([], 8100)


def test_settings_are_frozen() -> None:
    settings, _ = read("")
    assert settings is not None
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "roles:\n  coder:\n    lora_pth: x\n",
            "line 3: roles.coder.lora_pth: unknown key; did you mean lora_path?",
        ),
        ("role: {}\n", "line 1: role: unknown key; did you mean roles?"),
        ("server: {prot: 1}\n", "line 1: server.prot: unknown key; did you mean port?"),
        (
            "server:\n  port: 70000\n",
            "line 2: server.port = 70000: Input should be less than or equal to 65535",
        ),
        (
            "roles:\n  coder: {location: tape}\n",
            "line 2: roles.coder.location = 'tape': Input should be 'vram', 'ram', 'disk' or 'remote'",
        ),
        (
            "roles:\n  coder: {unload_after: soon}\n",
            (
                "line 2: roles.coder.unload_after = 'soon': 'soon' is not a duration; "
                "write a number with ms, s, m, h or d, such as 10m"
            ),
        ),
        (
            "roles:\n  coder: {reads: [conversation]}\n",
            "line 2: roles.coder.reads = conversation: no such collection; did you mean conversations?",
        ),
        (
            "roles:\n  a: {}\n  a: {}\n",
            "line 3: roles.a: this key stands on line 2 already; keep one",
        ),
        (
            "roles:\n  'my role': {}\n",
            (
                "line 2: roles.my role = 'my role': a name has letters, digits, _ and - only, at most 63, "
                "and starts with a letter or digit"
            ),
        ),
        (
            "embedder: {kind: remote}\n",
            "line 1: embedder: kind: remote needs url: the address of an OpenAI-compatible server",
        ),
        (
            "model:\n  api_key: sk-live-1\n",
            "line 2: model.api_key = ***: a secret does not belong into the file; write env:NAME or file:PATH",
        ),
        (
            "model: {api_key: 'env:NOT_SET'}\n",
            "line 1: model.api_key = env:NOT_SET: that variable or file is not there; set it",
        ),
    ],
)
def test_a_mistake_names_line_field_value_and_the_way_out(text: str, said: str) -> None:
    assert read(text)[1] == [said]


def test_all_mistakes_are_told_at_once() -> None:
    assert len(read("server: {port: -1, hst: x}\nroles:\n  a: {pin: maybe}\n")[1]) == 3


def test_a_role_told_by_its_name_only_is_a_warning() -> None:
    _, findings = inspect(parse("roles:\n  coder: {}\n"), environment(), folder=Path("/srv"))
    assert [(one.line, one.field, one.serious) for one in findings] == [(2, "roles.coder", False)]


def test_what_is_not_yaml_is_told_with_line_and_column() -> None:
    with pytest.raises(ConfigError, match=r"is not YAML: line 2, column 1"):
        parse("roles: {\n")


def test_a_list_is_not_a_configuration() -> None:
    with pytest.raises(ConfigError, match="must hold keys such as `roles:`, not a list"):
        parse("- a\n- b\n")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`agentflow init` writes one"):
        load(tmp_path / "agentflow.yaml", environment())


def test_the_environment_overrides_the_file() -> None:
    settings, _ = read("server: {port: 1}\n", DATABASE_URL="postgresql://db/x", AGENTFLOW_PORT="2")
    assert settings is not None
    assert settings.postgres.url is not None
    assert (settings.postgres.url.get_secret_value(), settings.server.port) == ("postgresql://db/x", 2)


def test_a_secret_comes_from_a_variable_or_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    text = "model: {api_key: 'env:KEY'}\nembedder: {api_key: 'file:key'}\n"
    settings, mistakes = read(text, tmp_path, KEY="from-env")
    assert mistakes == []
    assert settings is not None
    assert settings.model.api_key is not None
    assert settings.embedder.api_key is not None
    assert settings.model.api_key.get_secret_value() == "from-env"
    assert settings.embedder.api_key.get_secret_value() == "from-file"
    assert "from-" not in repr(settings)


def test_relative_data_folders_start_at_the_file() -> None:
    settings, _ = read("postgres: {data: db}\n", Path("/srv/agent"))
    assert settings is not None
    assert settings.postgres.data == Path("/srv/agent/db")


@pytest.mark.parametrize(
    ("text", "value"), [("10m", 600.0), ("250ms", 0.25), ("1.5h", 5400.0), ("7", 7.0), (3, 3)]
)
def test_durations_are_seconds(text: str | int, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("16GB", 16 * 10**9), ("2 MiB", 2 * 2**20), ("5", 5), (7, 7)])
def test_sizes_are_bytes(text: str | int, value: int) -> None:
    assert octets(text) == value


@given(st.text(max_size=200))
def test_any_text_is_settings_or_a_readable_error(text: str) -> None:
    try:
        document = parse(text)
    except ConfigError:
        return
    settings, findings = inspect(document, environment(), folder=Path("/srv"))
    assert settings is not None or findings


RESIDENT = """
model: {slots: 2, ram: 4GB, disk: {max: 1GB, path: cache}}
roles:
  a: {lora_path: x, pin: true, when_cold: fallback b, cold_budget_ms: 2s, description: x}
  b: {lora_path: hf://x/y, location: remote, warm: schedule, warm_at: 0 8 * * 1-5, description: x}
"""


def test_tiers_pins_and_cold_budgets_have_short_forms() -> None:
    settings, mistakes = read(RESIDENT)
    assert mistakes == []
    assert settings is not None
    model, a, b = settings.model, settings.roles["a"], settings.roles["b"]
    assert (model.ram.max, model.disk.max, model.disk.path) == (4 * 10**9, 10**9, Path("/srv/cache"))
    assert (a.pin, a.cold_budget_ms, a.when_cold.do, a.when_cold.role) == ("vram", 2000, "fallback", "b")
    assert (b.pin, b.warm_at, b.when_cold.do) == (None, "0 8 * * 1-5", "wait")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fallback b", "fallback c", "line 4: roles.a.when_cold = c: no such other role; known: b"),
        ("fallback b", "fallback a", "line 4: roles.a.when_cold = a: no such other role; known: b"),
        ("fallback b", "fallback", "fallback needs a role, and only fallback has one"),
        ("0 8 * * 1-5", "8 o'clock", "is no cron line; write minute, hour, day, month and weekday"),
        ("warm: schedule, ", "", "warm: schedule and warm_at: a cron line such as 0 8 * * 1-5 go together"),
        ("location: remote", "pin: VRAM, location: remote, cold_max_ms: 0", "roles.b.cold_max_ms = 0"),
        ("slots: 2", "slots: 1", "1 roles are pinned in VRAM (a), but model.slots = 1 has room for 0"),
    ],
)
def test_what_cannot_be_kept_is_told_before_anything_starts(old: str, new: str, said: str) -> None:
    assert said in "\n".join(read(RESIDENT.replace(old, new))[1])


def test_pins_may_fill_vram_if_nobody_else_needs_a_slot() -> None:
    text = "model: {slots: 1}\nroles: {a: {lora_path: x, pin: vram, description: x}, b: {description: x}}\n"
    assert read(text)[1] == []
