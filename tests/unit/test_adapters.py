import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from agentflow.adapters import (
    CONFIG,
    WEIGHTS,
    BaseShape,
    Header,
    Tensor,
    check,
    digest,
    identity,
    inspect,
    read_header,
)
from agentflow.adapters.report import Expected, examine
from agentflow.errors import InvalidAdapter

BASE = BaseShape(2, {"self_attn.q_proj": (8, 16), "mlp.down_proj": (12, 8)})
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def _pair(rank=4, features=(8, 16), fill=0.5, module=Q):
    a = np.zeros((rank, features[0]), np.float32)
    return {
        f"{module}.lora_A.weight": a,
        f"{module}.lora_B.weight": np.full((features[1], rank), fill, np.float32),
    }


def _config(**changes):
    return {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "bias": "none",
    } | changes


@pytest.fixture
def adapter(tmp_path):
    def write(tensors=None, name="adapter", **changes) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(_config(**changes)))
        save_file(_pair() if tensors is None else tensors, folder / WEIGHTS)
        return folder

    return write


def _raw(folder: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def _refusal(folder, base=BASE, max_rank=8) -> InvalidAdapter:
    with pytest.raises(InvalidAdapter) as caught:
        inspect(folder, base=base, max_rank=max_rank)
    return caught.value


def _refused(action) -> InvalidAdapter | None:
    try:
        action()
    except InvalidAdapter as error:
        return error
    return None


def test_a_valid_adapter_is_described(adapter):
    folder = adapter()
    found = inspect(folder, base=BASE, max_rank=8)
    assert found.folder == folder
    assert (found.rank, found.modules, found.dtype, found.tensors) == (4, ("q_proj",), "F32", 2)
    assert found.bytes == (folder / WEIGHTS).stat().st_size
    assert found.sha256 == digest(folder)


def test_checking_alone_gives_the_same_facts_without_the_hash(adapter):
    folder = adapter()
    assert check(folder, base=None, max_rank=8).sha256 == ""


def test_the_digest_covers_configuration_and_weights(adapter):
    one = digest(adapter(name="one"))
    assert digest(adapter(name="same")) == one
    assert digest(adapter(name="config", lora_alpha=9)) != one
    assert digest(adapter(_pair(fill=0.25), name="weights")) != one


def test_an_identity_is_role_and_twelve_digits():
    assert identity("coder", "0123456789abcdef") == "coder@0123456789ab"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ({"auto_mapping": {"parent_library": "evil"}}, "auto_mapping"),
        ({"auto_mapping": {"parent_library": 7}}, "auto_mapping"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"r": 16}, "r"),
        ({"r": 0}, "r"),
        ({"r": True}, "r"),
        ({"r": "4"}, "r"),
        ({"rank_pattern": {"v_proj": 64}}, "r"),
        ({"rank_pattern": [4]}, "rank_pattern"),
        ({"rank_pattern": {"(a+)+": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"(a*)*": 4}}, "alpha_pattern"),
        ({"target_modules": "(.*)*x"}, "target_modules"),
        ({"target_modules": ["v_proj"]}, "target_modules"),
        ({"target_modules": 7}, "target_modules"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": 1e300}, "lora_alpha"),
    ],
)
def test_a_configuration_that_engines_misread_is_refused(adapter, changes, field):
    assert _refusal(adapter(**changes)).field == field


def test_a_rank_pattern_may_give_modules_ranks_of_their_own(adapter):
    folder = adapter(_pair(rank=2), rank_pattern={r".*\.q_proj": 2})
    assert inspect(folder, base=BASE, max_rank=8).rank == 4


def test_the_message_names_value_and_way_out(adapter):
    error = _refusal(adapter(r=16))
    assert (error.field, error.value) == ("r", 16)
    assert str(error) == (
        "r: 16 is above the highest allowed rank 8. "
        "Raise the engine's highest rank (vLLM: --max-lora-rank) or train with a lower one."
    )


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (_pair(features=(9, 16)), "other (in, out) sizes"),
        (_pair(features=(8, 15)), "other (in, out) sizes"),
        (_pair(rank=3), "does not name"),
        (_pair(fill=0.0), "zero everywhere"),
        (_pair(fill=-0.0), "zero everywhere"),
        (_pair(module=Q.replace("layers.0", "layers.2")), "does not exist in the base"),
        (_pair(module=Q.replace("self_attn", "cross")), "does not exist in the base"),
        (_pair(module="base_model.model.q_proj"), "does not exist in the base"),
        ({**_pair(), "base_model.model.lm_head.weight": np.ones(2, np.float32)}, "not a LoRA matrix"),
        ({f"{Q}.lora_B.weight": np.ones((16, 4), np.float32)}, "only one of"),
        ({name: value.astype(np.int8) for name, value in _pair().items()}, "not bfloat16"),
        (
            {f"{Q}.lora_A.weight": np.ones((4, 8), "f4"), f"{Q}.lora_B.weight": np.ones(16, "f4")},
            "pair of matrices",
        ),
        ({}, "holds no tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(adapter, tensors, reason):
    assert reason in str(_refusal(adapter(tensors)))


def test_without_a_base_shapes_are_not_compared(adapter):
    assert inspect(adapter(_pair(features=(9, 15))), base=None, max_rank=8).rank == 4


def test_a_late_value_in_a_large_matrix_is_found(adapter):
    tensors = _pair(features=(8, 40_000))
    values = tensors[f"{Q}.lora_B.weight"]
    values[:20_000] = 0.0
    assert inspect(adapter(tensors), base=None, max_rank=8).rank == 4


def test_a_missing_folder_is_named(tmp_path):
    error = _refusal(tmp_path / "nowhere")
    assert (error.field, error.value) == ("lora_path", str(tmp_path / "nowhere"))


def test_a_file_is_not_a_folder(adapter):
    assert "is not a folder" in str(_refusal(adapter() / CONFIG))


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(adapter, missing):
    folder = adapter()
    (folder / missing).unlink()
    assert f"has no {missing}" in str(_refusal(folder))


def test_a_pickle_is_never_opened_and_the_way_out_is_told(adapter):
    folder = adapter()
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    assert "adapter_model.bin is a pickle" in str(_refusal(folder))


def test_a_link_out_of_the_folder_is_refused(adapter, tmp_path):
    folder = adapter()
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    assert "link out of its folder" in str(_refusal(folder))


def test_a_folder_outside_the_allowed_roots_is_refused_wherever_links_lead(adapter, tmp_path):
    folder, allowed = adapter(), tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(folder)
    for named in (folder, allowed / "link"):
        with pytest.raises(InvalidAdapter, match="lies outside the allowed folders"):
            check(named, base=BASE, max_rank=8, roots=[allowed])
    assert check(folder, base=BASE, max_rank=8, roots=[allowed, tmp_path]).rank == 4


@pytest.mark.parametrize("program", ["modeling.py", "kernel.so", "RUN.SH"])
def test_programs_beside_the_weights_are_refused(adapter, program):
    folder = adapter()
    (folder / program).touch()
    assert f"holds code ({program})" in str(_refusal(folder))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_values_that_are_no_numbers_are_refused(adapter, value, dtype):
    tensors = {name: matrix.astype(dtype) for name, matrix in _pair().items()}
    tensors[f"{Q}.lora_A.weight"][1, 2] = value
    assert "nan or inf" in str(_refusal(adapter(tensors)))


def test_a_huge_adapter_is_refused_from_its_header_alone(adapter):
    rows = 1 << 34
    header = {
        f"{Q}.lora_A.weight": _entry((4, 8), (0, 128)),
        f"{Q}.lora_B.weight": _entry((rows, 4), (128, 128 + rows * 16)),
    }
    folder = _raw(adapter(), header)
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + 128 + rows * 16)
    assert "is larger than 17179869184 bytes" in str(_refusal(folder, base=None))


def test_a_link_to_the_whole_folder_is_fine(adapter, tmp_path):
    (tmp_path / "link").symlink_to(adapter())
    assert inspect(tmp_path / "link", base=BASE, max_rank=8).rank == 4


def test_a_pipe_is_not_waited_for(adapter):
    folder = adapter()
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    assert "not a regular file" in str(_refusal(folder))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"r": NaN}', "[" * 100_000, "\x00", '{"a": ' * 5_000]
)
def test_a_configuration_that_is_not_an_object_is_refused(adapter, text):
    folder = adapter()
    (folder / CONFIG).write_text(text)
    assert _refusal(folder).field == CONFIG


def test_a_huge_configuration_is_not_parsed(adapter):
    folder = adapter()
    (folder / CONFIG).write_text(json.dumps({"x": "y" * (1 << 20)}))
    assert "larger than 1 MiB" in str(_refusal(folder))


def test_every_truncation_is_refused(adapter):
    folder = adapter()
    whole = (folder / WEIGHTS).read_bytes()
    for length in range(0, len(whole), 7):
        (folder / WEIGHTS).write_bytes(whole[:length])
        assert _refusal(folder)


def _entry(shape=(2, 2), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header",
    [
        {"a": _entry(offsets=(-16, 0))},
        {"a": _entry(offsets=(16, 0))},
        {"a": _entry(offsets=(0, 12))},
        {"a": _entry(offsets=(0, 1 << 70), shape=(1 << 61, 4))},
        {"a": _entry(offsets=(0.0, 16.0))},
        {"a": _entry(shape=(2, -2))},
        {"a": _entry(shape=(1,) * 9, offsets=(0, 4))},
        {"a": _entry(dtype="F128")},
        {"a": _entry(dtype=["F32"])},
        {"a": _entry(), "b": _entry()},
        {"a": _entry(), "b": _entry(offsets=(20, 36))},
        {"a": 3},
        {"a": {"dtype": "F32"}},
        {"\ud800": 3},
        [],
        b'{"a": Infinity}',
        b'{"a": 1, "a": 1}',
        b"[" * 200_000,
        b"\xff\xfe",
    ],
)
def test_a_header_that_lies_is_refused(adapter, header):
    error = _refusal(_raw(adapter(), header, bytes(16)))
    assert str(error).encode()


def test_a_header_may_not_claim_more_than_a_hundred_megabytes():
    with pytest.raises(InvalidAdapter, match="more than 100000000 bytes"):
        read_header(io.BytesIO(struct.pack("<Q", 1 << 40)), 1 << 50)


def test_a_header_is_read_in_data_order():
    text = json.dumps({"__metadata__": {"x": "y"}, "b": _entry(offsets=(16, 32)), "a": _entry()}).encode()
    file = struct.pack("<Q", len(text)) + text + bytes(32)
    assert read_header(io.BytesIO(file), len(file)) == Header(
        (Tensor("a", "F32", (2, 2), 0, 16), Tensor("b", "F32", (2, 2), 16, 32)), 8 + len(text)
    )


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_header_or_an_invalid_adapter(content):
    error = _refused(lambda: read_header(io.BytesIO(content), len(content)))
    assert error is None or error.field


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_ENTRIES = st.dictionaries(
    st.text(max_size=8) | st.just(f"{Q}.lora_A.weight"),
    _JSON
    | st.fixed_dictionaries(
        {"dtype": st.sampled_from(["F32", "BF16"]) | _JSON, "shape": _JSON, "data_offsets": _JSON}
    ),
    max_size=4,
)


@given(_JSON | _ENTRIES, st.binary(max_size=64))
def test_arbitrary_json_is_a_header_or_an_invalid_adapter(header, data):
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + data
    error = _refused(lambda: read_header(io.BytesIO(content), len(content)))
    assert error is None or str(error).encode()


@given(
    changes=st.dictionaries(
        st.sampled_from([*_config(), "rank_pattern", "alpha_pattern", "layers_pattern"]), _JSON
    )
)
def test_an_arbitrary_configuration_is_valid_or_an_invalid_adapter(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("adapter")
    (folder / CONFIG).write_text(json.dumps(_config(**changes)))
    save_file(_pair(), folder / WEIGHTS)
    error = _refused(lambda: inspect(folder, base=BASE, max_rank=8))
    assert error is None or str(error).encode()


# --- the report ------------------------------------------------------------------------------

EXPECTED = Expected(BASE, "models/base", max_rank=8)


def _verdicts(folder, expected=EXPECTED) -> dict[str, str]:
    return {row.what: row.verdict for row in examine(folder, expected) if row.verdict != "ok"}


def test_a_good_adapter_answers_every_question(adapter):
    rows = examine(adapter(base_model_name_or_path="Base"), EXPECTED)
    assert {row.what: row.verdict for row in rows} == dict.fromkeys(
        (
            "files", "roots", "no code", "pickles", "configuration", "settings and rank", "base model", "header",
            "matrices", "base's shapes", "values", "digest",
        ),
        "ok",
    )  # fmt: skip


def test_one_mistake_does_not_hide_the_others(adapter):
    folder = adapter(_pair(features=(9, 16), fill=0.0), r=4, peft_type="IA3", base_model_name_or_path="base")
    (folder / "run.py").touch()
    (folder / "optimizer.pt").touch()
    assert _verdicts(folder) == {
        "no code": "mistake",
        "pickles": "warning",
        "settings and rank": "mistake",
        "base's shapes": "mistake",
        "values": "mistake",
    }


def test_what_a_mistake_leaves_open_is_said(adapter):
    folder = adapter()
    (folder / WEIGHTS).write_bytes(b"short")
    found = _verdicts(folder)
    assert (found["header"], found["matrices"], found["values"]) == ("mistake", "unknown", "unknown")


def test_a_base_out_of_reach_is_left_to_the_engine(adapter):
    row = next(row for row in examine(adapter(), Expected(None, "Qwen/X", 8)) if row.what == "base's shapes")
    assert (row.verdict, "engine will judge" in row.found) == ("unknown", True)


def test_a_folder_that_is_not_there_has_a_report_too(tmp_path):
    assert _verdicts(tmp_path / "nowhere")["files"] == "mistake"


@given(
    changes=st.dictionaries(
        st.sampled_from([*_config(), "rank_pattern", "alpha_pattern", "base_model_name_or_path"]), _JSON
    )
)
def test_the_report_and_the_check_agree(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("adapter")
    (folder / CONFIG).write_text(json.dumps(_config(**changes)))
    save_file(_pair(), folder / WEIGHTS)
    bad = any(row.verdict == "mistake" for row in examine(folder, EXPECTED))
    assert bad == (_refused(lambda: check(folder, base=BASE, max_rank=8)) is not None)
