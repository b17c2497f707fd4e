"""The encoder on a small random BERT, against the same mathematics in numpy."""

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf, softmax
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from agentflow.embedders import graph_cache, weights
from agentflow.embedders.minilm_graph import read_tensors
from agentflow.embedders.onnx import OnnxEmbedder, Remembered
from agentflow.errors import EmbedderError

LAYERS, HEADS, HIDDEN, WIDE, POSITIONS = 2, 2, 16, 32, 24
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(40))]
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_size": HIDDEN,
    "max_position_embeddings": POSITIONS,
    "layer_norm_eps": 1e-12,
}
TEXTS = ["w1 w2 w3", "", "w9", "w4 w4 w4 unknown w5 w6 w7 w8", "w1 " * 50]


def random_tensors(seed=1):
    rng = np.random.default_rng(seed)
    part = "embeddings."
    shapes = {
        f"{part}word_embeddings.weight": (len(WORDS), HIDDEN),
        f"{part}position_embeddings.weight": (POSITIONS, HIDDEN),
        f"{part}token_type_embeddings.weight": (2, HIDDEN),
        f"{part}LayerNorm.weight": (HIDDEN,),
        f"{part}LayerNorm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        shapes |= layer_shapes(f"encoder.layer.{layer}.")
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def layer_shapes(part):
    dense = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.self.key": (HIDDEN, HIDDEN),
        "attention.self.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (WIDE, HIDDEN),
        "output.dense": (HIDDEN, WIDE),
    }
    shapes = {f"{part}{name}.weight": shape for name, shape in dense.items()}
    shapes |= {f"{part}{name}.bias": shape[:1] for name, shape in dense.items()}
    norms = ("attention.output.LayerNorm", "output.LayerNorm")
    return shapes | {f"{part}{norm}.{kind}": (HIDDEN,) for norm in norms for kind in ("weight", "bias")}


def reference(tensors, ids):
    """One text, no padding: the encoder of Devlin et al. 2019, mean pooling, length 1."""

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x, name):
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def heads(x):
        return x.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)

    part = "embeddings."
    x = (
        tensors[f"{part}word_embeddings.weight"][ids]
        + tensors[f"{part}position_embeddings.weight"][: len(ids)]
    )
    x = norm(x + tensors[f"{part}token_type_embeddings.weight"][0], f"{part}LayerNorm")
    for layer in range(LAYERS):
        part = f"encoder.layer.{layer}."
        q, k, v = (heads(dense(x, f"{part}attention.self.{kind}")) for kind in ("query", "key", "value"))
        seen = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(HIDDEN / HEADS), axis=-1) @ v
        seen = seen.transpose(1, 0, 2).reshape(len(ids), HIDDEN)
        x = norm(x + dense(seen, f"{part}attention.output.dense"), f"{part}attention.output.LayerNorm")
        wide = dense(x, f"{part}intermediate.dense")
        wide = wide * (1 + erf(wide / np.sqrt(2))) / 2
        x = norm(x + dense(wide, f"{part}output.dense"), f"{part}output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def write_model(folder, *, tensors=None, config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_tensors() if tensors is None else tensors, folder / "model.safetensors")
    tokenizer = Tokenizer(WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def opened(model, tmp_path):
    """Embedders on the small model, closed at the end."""
    embedders = []

    def make(folder=model, precision="fp32", cache=tmp_path / "cache", progress=lambda _: None):
        embedders.append(OnnxEmbedder(str(folder), precision=precision, cache=cache, progress=progress))
        return embedders[-1]

    yield make
    for embedder in embedders:
        asyncio.run(embedder.close())


async def test_the_graph_is_the_encoder(opened, model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(POSITIONS)
    expected = [reference(random_tensors(), tokenizer.encode(text).ids) for text in TEXTS]
    assert np.abs(await opened().embed(TEXTS) - np.stack(expected)).max() < 1e-5


async def test_tensors_may_carry_the_prefix_of_a_larger_model(opened, model, tmp_path):
    prefixed = write_model(tmp_path / "other", tensors={f"bert.{n}": t for n, t in random_tensors().items()})
    assert np.array_equal(await opened(prefixed).embed(TEXTS), await opened(model).embed(TEXTS))


def test_tensors_of_half_length_are_widened(tmp_path):
    save_file({"a": np.ones(2, np.float16), "ids": np.arange(3)}, tmp_path / "t.safetensors")
    assert {n: t.dtype for n, t in read_tensors(tmp_path / "t.safetensors").items()} == {"a": np.float32}


async def test_neighbours_never_change_an_int8_vector(opened):
    together = await opened(precision="int8").embed(TEXTS)
    alone = [(await opened(precision="int8").embed([text]))[0] for text in TEXTS]
    assert np.array_equal(together, np.stack(alone))


async def test_int8_is_near_fp32(opened):
    vectors = [await opened(precision=precision).embed(TEXTS) for precision in ("int8", "fp32")]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.95


def test_constructing_touches_nothing(tmp_path):
    OnnxEmbedder("/no/such/folder", cache=tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


async def test_the_id_names_model_precision_recipe_and_weights(opened, model):
    embedder = opened(precision="int8")
    await embedder.open()
    assert embedder.id == f"model/int8/r1/{weights.digest(model)[:12]}"
    assert embedder.dim == HIDDEN


async def test_other_weights_have_another_id(opened, model, tmp_path):
    others = write_model(tmp_path / "others" / "", tensors=random_tensors(seed=2))
    first, second = opened(model), opened(others)
    await first.open()
    await second.open()
    assert first.id.rsplit("/", 1)[1] != second.id.rsplit("/", 1)[1]


async def test_weights_changed_in_place_are_noticed(opened, model):
    before = await opened().embed(TEXTS)
    write_model(model, tensors=random_tensors(seed=2))
    assert np.abs(await opened().embed(TEXTS) - before).max() > 0.1


async def test_a_graph_is_built_once(opened, tmp_path):
    said = []
    for _ in range(2):
        await opened(progress=said.append).open()
    assert len(said) == 1
    assert [path.suffix for path in sorted((tmp_path / "cache").iterdir())] == [".onnx", ".sha256"]


async def test_a_damaged_graph_is_built_again(opened, tmp_path):
    await opened().open()
    (graph,) = (tmp_path / "cache").glob("*.onnx")
    graph.write_bytes(graph.read_bytes()[:1000])
    said = []
    await opened(progress=said.append).embed(TEXTS)
    assert [line.split()[1] for line in said] == ["is", "the"]


def test_two_builders_at_once_do_no_harm(model, tmp_path):
    target = tmp_path / "cache" / "graph.onnx"
    with ThreadPoolExecutor(2) as pool:
        builds = [
            pool.submit(graph_cache.build_graph, model, "int8", target, lambda _: None) for _ in range(2)
        ]
    assert [build.exception() for build in builds] == [None, None]
    assert [path.name for path in target.parent.iterdir()] == ["graph.onnx"]


def test_a_warm_start_never_imports_the_builder(opened, model, tmp_path):
    asyncio.run(opened().open())
    script = (
        "import asyncio, sys; from pathlib import Path; from agentflow.embedders.onnx import OnnxEmbedder\n"
        "asyncio.run(OnnxEmbedder(sys.argv[1], precision='fp32', cache=Path(sys.argv[2])).embed(['w1']))\n"
        "print([name for name in ('onnx', 'torch', 'huggingface_hub') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(model), str(tmp_path / "cache")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


async def test_missing_files_are_named(opened, model):
    (model / "tokenizer.json").unlink()
    with pytest.raises(EmbedderError, match=r"lacks tokenizer\.json"):
        await opened().open()


@pytest.mark.parametrize("odd", [{"model_type": "roberta"}, {"hidden_act": "relu"}])
async def test_another_architecture_is_refused_by_name(opened, tmp_path, odd):
    folder = write_model(tmp_path / "odd", config=CONFIG | odd)
    with pytest.raises(EmbedderError, match=next(iter(odd.values()))):
        await opened(folder).open()


async def test_pooling_by_the_first_token_is_refused(opened, model):
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(EmbedderError, match="not the mean"):
        await opened().open()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"num_hidden_layers": "many"}'])
async def test_a_config_that_says_nothing_is_refused(opened, model, text):
    (model / "config.json").write_text(text)
    with pytest.raises(EmbedderError, match=r"config\.json"):
        await opened().open()


async def test_weights_without_a_tensor_are_refused_by_its_name(opened, tmp_path):
    tensors = random_tensors()
    del tensors["encoder.layer.1.output.dense.bias"]
    with pytest.raises(EmbedderError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        await opened(write_model(tmp_path / "torn", tensors=tensors)).open()


async def test_damaged_weights_are_refused(opened, model):
    (model / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(EmbedderError, match="Fetch the model again"):
        await opened().open()


async def test_a_damaged_tokenizer_is_refused(opened, model):
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(EmbedderError, match="no usable tokenizer"):
        await opened().open()


async def test_a_cache_that_cannot_be_written_is_named(opened, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbedderError, match="AGENTFLOW_CACHE"):
        await opened(cache=tmp_path / "file" / "cache").open()


async def test_an_unreachable_hub_is_told_with_the_ways_out(opened, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(EmbedderError, match=r"some/model.*no route to host.*embedder\.model"):
        await opened("some/model").open()


async def test_what_the_hub_brought_is_used(opened, model, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _, **__: str(model))
    said = []
    embedder = opened("some/model", progress=said.append)
    await embedder.open()
    assert (embedder.id.split("/")[0], said[0]) == ("model", "fetching some/model from the hub")


async def test_a_megabyte_of_text_is_cut(opened):
    long = await opened().embed(["w1 " * 400_000])
    assert np.array_equal(long, await opened().embed(["w1 " * 1000]))


def test_only_the_latest_texts_are_remembered():
    remembered = Remembered(2)
    for number, text in enumerate("abc"):
        remembered.put(text, np.full(1, number, np.float32))
    assert [remembered.get(text) for text in "abc"] == [None, np.float32(1), np.float32(2)]


def test_asking_for_a_text_keeps_it():
    remembered = Remembered(2)
    for text in ("a", "b"):
        remembered.put(text, np.zeros(1, np.float32))
    remembered.get("a")
    remembered.put("c", np.zeros(1, np.float32))
    assert [remembered.get(text) is None for text in "abc"] == [False, True, False]


async def test_what_was_embedded_just_now_does_not_wait_for_the_thread(opened):
    embedder, done = opened(), threading.Event()
    first = await embedder.embed(["w1", "w2"])
    embedder._thread.submit(done.wait)
    try:
        again = await asyncio.wait_for(embedder.embed(["w2", "w1"]), 20)
    finally:
        done.set()
    assert again.tolist() == first[::-1].tolist()
