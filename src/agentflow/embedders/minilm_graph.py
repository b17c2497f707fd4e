"""A BERT sentence encoder as an ONNX graph, from its tensors alone, without torch, in ONNX Runtime's fused
operators.

Inputs input_ids and attention_mask, int64 [batch, tokens]; output, float32 [batch, hidden], rows of
length 1. Importing this imports `onnx`: only for building.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

from agentflow.embedders.weights import Precision, Shape

_FUSED = "com.microsoft"
_OPSETS = (("", 17), (_FUSED, 1))
_IR_VERSION = 9
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # else the quantiser warns on the root logger
_QUANTISED = ["MatMul", "Attention", "Gather"]
_Tensors = Mapping[str, NDArray[Any]]


def build(source: Path, shape: Shape, precision: Precision, target: Path) -> None:
    """Write the graph of the weights in `source` to `target`. Raises KeyError for a missing tensor."""
    model = encoder(read_tensors(source), shape)
    if precision == "fp32":
        onnx.save_model(model, target)
        return
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=_QUANTISED,
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


def read_tensors(source: Path) -> dict[str, NDArray[np.float32]]:
    """All floating-point tensors as float32, without the prefix that some exports carry."""
    tensors = load_file(source)
    return {
        name.removeprefix("bert."): tensor.astype(np.float32, copy=False)
        for name, tensor in tensors.items()
        if np.issubdtype(tensor.dtype, np.floating)
    }


class _Graph:
    """Nodes and constants in order, each output named after its node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def hold(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, name: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, domain=domain, **attributes))
        return name


def encoder(tensors: _Tensors, shape: Shape) -> onnx.ModelProto:
    """The whole graph in float32."""
    graph = _Graph()
    mask = graph.add("Cast", "mask", "attention_mask", to=TensorProto.INT32)
    hidden = _embed(graph, tensors, shape)
    for layer in range(shape.layers):
        hidden = _layer(graph, tensors, shape, layer, hidden, mask)
    _pool(graph, hidden)
    sizes = ["batch", "tokens"]
    body = helper.make_graph(
        graph.nodes,
        "encoder",
        [helper.make_tensor_value_info(n, TensorProto.INT64, sizes) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", shape.hidden])],
        graph.constants,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    model = helper.make_model(body, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="agentflow")
    helper.set_model_props(model, _PREPARED)
    return model


def _embed(graph: _Graph, tensors: _Tensors, shape: Shape) -> str:
    """Word + position + type row 0 (all types are 0, so that row is folded into the positions)."""
    part = "embeddings."
    positions = (
        tensors[f"{part}position_embeddings.weight"] + tensors[f"{part}token_type_embeddings.weight"][0]
    )
    words = graph.hold("words", tensors[f"{part}word_embeddings.weight"])
    start, one = graph.hold("zero", np.array([0])), graph.hold("one", np.array([1]))
    sizes = graph.add("Shape", "sizes", "input_ids")
    length = graph.add("Slice", "length", sizes, one, graph.hold("two", np.array([2])))
    rows = graph.add("Slice", "position_rows", graph.hold("positions", positions), start, length, start)
    total = graph.add("Add", "embedded", graph.add("Gather", "word_rows", words, "input_ids"), rows)
    norm = [graph.hold(f"{part}{n}", tensors[f"{part}LayerNorm.{n}"]) for n in ("weight", "bias")]
    return graph.add("LayerNormalization", "normed", total, *norm, epsilon=shape.epsilon)


def _layer(graph: _Graph, tensors: _Tensors, shape: Shape, layer: int, hidden: str, mask: str) -> str:
    part = f"encoder.layer.{layer}."
    attended = _attend(graph, tensors, shape, part, hidden, mask)
    after = _project(graph, tensors, shape, f"{part}attention.output.", attended, hidden)
    wide = _multiply(graph, tensors, f"{part}intermediate.dense", after)
    bias = graph.hold(f"{part}wide_bias", tensors[f"{part}intermediate.dense.bias"])
    active = graph.add("BiasGelu", f"{part}active", wide, bias, domain=_FUSED)
    return _project(graph, tensors, shape, f"{part}output.", active, after)


def _attend(graph: _Graph, tensors: _Tensors, shape: Shape, part: str, hidden: str, mask: str) -> str:
    names = [f"{part}attention.self.{kind}" for kind in ("query", "key", "value")]
    weights = np.concatenate([tensors[f"{name}.weight"].T for name in names], axis=1)
    biases = np.concatenate([tensors[f"{name}.bias"] for name in names])
    inputs = (hidden, graph.hold(f"{part}qkv", weights), graph.hold(f"{part}qkv_bias", biases), mask)
    return graph.add("Attention", f"{part}attended", *inputs, domain=_FUSED, num_heads=shape.heads)


def _project(graph: _Graph, tensors: _Tensors, shape: Shape, part: str, value: str, residual: str) -> str:
    """Dense, plus the residual, then the layer's norm."""
    product = _multiply(graph, tensors, f"{part}dense", value)
    names = ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")
    rest = [graph.hold(f"{part}{name}", tensors[f"{part}{name}"]) for name in names]
    return graph.add(
        "SkipLayerNormalization", f"{part}out", product, residual, *rest, domain=_FUSED, epsilon=shape.epsilon
    )


def _multiply(graph: _Graph, tensors: _Tensors, name: str, value: str) -> str:
    return graph.add("MatMul", f"{name}.product", value, graph.hold(name, tensors[f"{name}.weight"].T))


def _pool(graph: _Graph, hidden: str) -> None:
    """Masked sum, then length 1: the same direction as the mean."""
    weights = graph.add("Cast", "weights", "attention_mask", to=TensorProto.FLOAT)
    column = graph.add("Unsqueeze", "column", weights, graph.hold("last", np.array([2])))
    kept = graph.add("Mul", "kept", hidden, column)
    total = graph.add("ReduceSum", "total", kept, "one", keepdims=0)
    graph.add("LpNormalization", "embedding", total, axis=-1, p=2)
