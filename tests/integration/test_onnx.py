"""Exported models in onnxruntime: every public layer and operation, at several batch sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.tensor import (
    Backend,
    Expr,
    Generator,
    Kernel,
    Parameter,
    Tensor,
    arange,
    concat,
    elementwise,
    no_grad,
    pad,
    split,
    stack,
    tensor,
    zeros,
)
from rumus.tensor.expression.expr import OPERATIONS
from rumus.tensor.expression.kernel import COMPARISONS
from rumus.tensor.graph.operators import run

T = TypeVar("T", Tensor, Expr)
BATCHES: Final = (1, 3, 8)


def given(batch: int, shape: Sequence[int], seed: int = 0, kind: str = "float") -> NDArray[Any]:
    random = np.random.default_rng(seed)
    if kind == "int":
        return random.integers(0, 5, (batch, *shape)).astype(np.int32)
    return random.normal(size=(batch, *shape)).astype(np.float32)


def exported(model: nn.Module, path: Path, *inputs: NDArray[Any], **options: Any) -> Any:
    nn.export_onnx(model, path, *inputs, **options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def answers(session: Any, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
    names = [each.name for each in session.get_inputs()]
    found: list[NDArray[Any]] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


def compare(
    model: nn.Module,
    path: Path,
    *shapes: Sequence[int],
    kind: str = "float",
    tolerance: float = 1e-5,
) -> Any:
    """Compare a file with the model, at batch sizes that it was not exported with."""
    session = exported(model, path, *(given(2, shape, kind=kind) for shape in shapes))
    model.eval()
    for batch in BATCHES:
        inputs = [given(batch, shape, batch + i, kind) for i, shape in enumerate(shapes)]
        with no_grad():
            result = model(*map(tensor, inputs))
        results = flat(result)
        for wanted, found in zip(results, answers(session, *inputs), strict=True):
            assert found.dtype == wanted.dtype
            assert found.shape == wanted.shape
            scale = max(1.0, float(np.abs(wanted.numpy()).max(initial=0)))
            np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=tolerance * scale)
    return onnx.load(path)


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def moved(model: nn.Module) -> nn.Module:
    """A model whose norms are not trivial."""
    for i, (name, value) in enumerate(sorted(model._state().items())):
        if value.dtype.kind == "f" and not isinstance(value, Parameter):
            value.assign(np.random.default_rng(i).uniform(0.5, 1.5, value.shape))
        elif value.dtype.kind == "f" and ("norm" in name or isinstance(model, NORMS)):
            value.assign(np.random.default_rng(i).uniform(-1, 1, value.shape))
    return model


NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def linear() -> nn.Linear:
    return nn.Linear(5, 3, generator=Generator(0))


class Own(nn.Activation):
    """A user-defined activation."""

    @property
    def function(self) -> Callable[[Tensor], Tensor]:
        return _own


@elementwise
def _own(x: T) -> T:
    return (x > 0).where(x.sin() * x, x.expm1() + 0.5)


# Every public layer: a function that makes it, and its input shapes without the batch.
LAYERS: Final[dict[str, list[tuple[Callable[[], nn.Module], list[tuple[int, ...]]]]]] = {
    "Activation": [(Own, [(7,)])],
    "AdaptiveAvgPool1d": [(lambda: nn.AdaptiveAvgPool1d(3), [(2, 7)])],
    "AdaptiveMaxPool1d": [(lambda: nn.AdaptiveMaxPool1d(3), [(2, 7)])],
    "AdaptiveMaxPool2d": [(lambda: nn.AdaptiveMaxPool2d((3, 2)), [(2, 7, 5)])],
    "AdaptiveAvgPool2d": [
        (lambda: nn.AdaptiveAvgPool2d(1), [(3, 7, 5)]),
        (lambda: nn.AdaptiveAvgPool2d((3, 2)), [(3, 7, 5)]),
    ],
    "AvgPool1d": [
        (lambda: nn.AvgPool1d(3, stride=2, padding=1, count_include_pad=False), [(3, 7)]),
        (lambda: nn.AvgPool1d(2, ceil_mode=True), [(3, 7)]),
    ],
    "AvgPool2d": [
        (lambda: nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), [(3, 8, 9)]),
        (lambda: nn.AvgPool2d(3, stride=2, padding=1), [(3, 7, 9)]),
        (lambda: nn.AvgPool2d(2), [(3, 7, 9)]),
    ],
    "BatchNorm1d": [
        (lambda: nn.BatchNorm1d(5), [(5,)]),
        (lambda: nn.BatchNorm1d(5, affine=False), [(5, 7)]),
    ],
    "BatchNorm2d": [(lambda: nn.BatchNorm2d(3), [(3, 5, 7)])],
    **{
        name: [(getattr(nn, name), [(7,)])]
        for name in (
            "CELU",
            "Hardsigmoid",
            "Hardswish",
            "Hardtanh",
            "LogSigmoid",
            "LogSoftmax",
            "Mish",
            "ReLU",
            "ReLU6",
            "SELU",
            "SiLU",
            "Sigmoid",
            "Softmax",
            "Softplus",
            "Softsign",
            "Tanh",
        )
    },
    "Conv1d": [(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), [(4, 11)])],
    "Conv2d": [
        (lambda: nn.Conv2d(3, 5, 3, padding="same", padding_mode="reflect"), [(3, 9, 7)]),
        (lambda: nn.Conv2d(3, 5, 4, padding="same"), [(3, 9, 7)]),
        (lambda: nn.Conv2d(3, 5, 3, padding=1), [(3, 9, 7)]),
        (lambda: nn.Conv2d(2, 4, (3, 1), stride=(2, 1), dilation=2, bias=False), [(2, 9, 7)]),
        (lambda: nn.Conv2d(4, 4, 3, groups=4), [(4, 5, 7)]),
    ],
    "ConvTranspose1d": [(lambda: nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1), [(2, 5)])],
    "ConvTranspose2d": [
        (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), [(4, 5, 7)]),
        (lambda: nn.ConvTranspose2d(2, 3, (4, 3), padding=1, dilation=2), [(2, 6, 7)]),
    ],
    "Dropout": [(lambda: nn.Dropout(0.5), [(4,)])],
    "Dropout2d": [(lambda: nn.Dropout2d(0.5), [(3, 2, 2)])],
    "DropPath": [(lambda: nn.DropPath(0.5), [(4,)])],
    "ELU": [(lambda: nn.ELU(0.7), [(7,)])],
    "FeedForward": [(lambda: nn.FeedForward(5), [(3, 5)])],
    "Flatten": [(nn.Flatten, [(3, 5, 2)])],
    "FrozenLinear": [
        (lambda: nn.FrozenLinear(linear(), storage="8bit"), [(5,)]),
        (lambda: nn.FrozenLinear(linear(), storage="float16"), [(2, 5)]),
    ],
    "GELU": [(nn.GELU, [(7,)]), (lambda: nn.GELU("tanh"), [(7,)])],
    "GRU": [
        (lambda: nn.GRU(3, 5, layers=2, bidirectional=True, dropout=0.5), [(7, 3)]),
        (lambda: nn.GRU(3, 5, bias=False), [(4, 3)]),
    ],
    "GlobalAvgPool": [(nn.GlobalAvgPool, [(3, 5, 7)])],
    "GlobalMaxPool": [(nn.GlobalMaxPool, [(3, 7)])],
    "GLU": [(nn.GLU, [(3, 8)])],
    "GroupNorm": [
        (lambda: nn.GroupNorm(2, 6), [(6, 5)]),
        (lambda: nn.GroupNorm(3, 6, affine=False), [(6, 3, 5)]),
    ],
    "InstanceNorm1d": [(lambda: nn.InstanceNorm1d(3, affine=True), [(3, 7)])],
    "InstanceNorm2d": [
        (lambda: nn.InstanceNorm2d(3), [(3, 5, 7)]),
        (lambda: nn.InstanceNorm2d(3, affine=True), [(3, 5, 7)]),
    ],
    "Identity": [(nn.Identity, [(3,)])],
    "LSTM": [
        (lambda: nn.LSTM(3, 5), [(7, 3)]),
        (lambda: nn.LSTM(3, 4, layers=2, bidirectional=True), [(5, 3)]),
    ],
    "LayerNorm": [
        (lambda: nn.LayerNorm(7), [(3, 7)]),
        (lambda: nn.LayerNorm((3, 5), bias=False), [(2, 3, 5)]),
        (lambda: nn.LayerNorm(7, elementwise_affine=False), [(7,)]),
    ],
    "LeakyReLU": [(lambda: nn.LeakyReLU(0.3), [(7,)])],
    "Linear": [(linear, [(5,)]), (lambda: nn.Linear(5, 3, bias=False), [(4, 2, 5)])],
    "LoraLinear": [(lambda: nn.LoraLinear(linear(), 2), [(5,)])],
    "MaxPool1d": [(lambda: nn.MaxPool1d(3, stride=2, ceil_mode=True), [(3, 8)])],
    "PixelShuffle": [(lambda: nn.PixelShuffle(2), [(8, 3, 5)])],
    "PixelUnshuffle": [(lambda: nn.PixelUnshuffle(2), [(2, 6, 4)])],
    "MaxPool2d": [
        (lambda: nn.MaxPool2d(3, stride=2, padding=1), [(3, 7, 9)]),
        (lambda: nn.MaxPool2d(2, stride=1, dilation=2), [(3, 7, 9)]),
    ],
    "MultiHeadAttention": [
        (lambda: nn.MultiHeadAttention(6, 2, causal=True), [(5, 6)]),
        (lambda: nn.MultiHeadAttention(8, 4, kv_heads=2, context_size=3), [(5, 8), (7, 3)]),
    ],
    "PReLU": [(nn.PReLU, [(3, 5)]), (lambda: nn.PReLU(3), [(3, 5)])],
    "RMSNorm": [
        (lambda: nn.RMSNorm(7), [(3, 7)]),
        (lambda: nn.RMSNorm((3, 5), elementwise_affine=False), [(3, 5)]),
    ],
    "RNN": [(lambda: nn.RNN(3, 5, bidirectional=True), [(5, 3)])],
    "RotaryEmbedding": [(lambda: nn.RotaryEmbedding(6), [(2, 5, 6)])],
    "Sequential": [(lambda: nn.Sequential(linear(), nn.ReLU(), nn.Linear(3, 2)), [(5,)])],
    "SwiGLU": [(lambda: nn.SwiGLU(5), [(3, 5)])],
    "Upsample": [
        (lambda: nn.Upsample(scale_factor=2), [(3, 5, 7)]),
        (lambda: nn.Upsample((9, 4), mode="bilinear"), [(3, 5, 7)]),
        (lambda: nn.Upsample(scale_factor=1.5, mode="linear", align_corners=True), [(2, 6)]),
    ],
    "TransformerBlock": [
        (lambda: nn.TransformerBlock(6, 2, causal=True, dropout=0.1), [(5, 6)]),
        (
            lambda: nn.TransformerBlock(
                8, 4, kv_heads=2, rotary=nn.RotaryEmbedding(2), norm="rms", activation="swiglu"
            ),
            [(5, 8)],
        ),
    ],
}
ELSEWHERE: Final = {
    "Embedding": "of integers: test_tokens",
    "Module": "is not a layer",
    "ModuleDict": "has no forward",
    "ModuleList": "has no forward",
}
CASES: Final = [(name, i) for name, cases in LAYERS.items() for i in range(len(cases))]


def test_every_public_layer_is_here() -> None:
    public = {name: getattr(nn, name) for name in nn.__all__}
    layers = {n for n, v in public.items() if inspect.isclass(v) and issubclass(v, nn.Module)}
    assert layers == set(LAYERS) | set(ELSEWHERE)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_layers(name: str, number: int, tmp_path: Path) -> None:
    make, shapes = LAYERS[name][number]
    compare(moved(make()), tmp_path / "layer.onnx", *shapes)


def test_tokens(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Embedding(5, 6, generator=Generator(0), padding_idx=1)
            self.block = nn.TransformerBlock(6, 2, causal=True, generator=Generator(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.table(x) + self.table.weight[1:])[:, -1].argmax(axis=-1)

    compare(Model(), tmp_path / "m.onnx", (4,), kind="int")


def test_the_operations_of_runtimes_are_used(tmp_path: Path) -> None:
    """Those that runtimes run fast, and weight names that a reader recognizes."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4 * 3 * 2, 5), nn.LayerNorm(5),
    )  # fmt: skip
    file = compare(model, tmp_path / "m.onnx", (3, 8, 7))
    assert [node.op_type for node in file.graph.node] == [
        "Conv", "BatchNormalization", "Relu", "MaxPool", "Reshape", "Gemm", "LayerNormalization",
    ]  # fmt: skip
    names = {each.name for each in file.graph.initializer}
    assert {"0.weight", "0.bias", "1.running_mean", "5.weight", "6.bias"} <= names
    lengths = [
        each.dim_param or each.dim_value for each in file.graph.output[0].type.tensor_type.shape.dim
    ]
    assert lengths == ["batch", 5]


# Operations


def module(function: Callable[..., Any]) -> nn.Module:
    class Function(nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return function(*inputs)

    return Function()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["float", "int"])
def test_each_elementwise_operation(operation: str, kind: str, tmp_path: Path) -> None:
    count = {"where": 3}.get(operation, 2 if operation in TWO else 1)
    leaves = [Expr.array(name) for name in "abc"[:count]]
    first = leaves[0] > 0 if operation == "where" else leaves[0]
    kernel = Kernel(operation, {"out": first._apply(operation, first, *leaves[1:])}, "abc"[:count])
    is_signed = operation not in ("log", "log1p", "sqrt", "pow")

    def call(*inputs: Tensor) -> Tensor:
        ready = [x if is_signed else abs(x) + 1 for x in inputs]
        if operation in ("div", "mod", "floor_divide"):
            ready[1] = (ready[1] >= 0).where(ready[1] + 1, ready[1] - 1)
        return run(kernel, ready, {})

    tolerance = 2e-5 if operation == "pow" else 1e-5
    compare(module(call), tmp_path / "m.onnx", *[(7,)] * count, kind=kind, tolerance=tolerance)


# Operations of two operands
TWO: Final = frozenset(
    {"add", "sub", "mul", "div", "pow", "floor_divide", "mod", "maximum", "minimum"} | COMPARISONS
)


FUNCTIONS: Final[dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]]] = {
    "slices": (lambda x: x[:, 1:4, ::2] + x[:, :3, 1::2], [(5, 6)]),
    "backwards": (lambda x: x[:, ::-1], [(5,)]),
    "numbers in an index": (lambda x: x[:, 2, None, -1], [(5, 6)]),
    "concat": (lambda x, y: concat([x, y, x * 2], axis=1), [(3, 2), (4, 2)]),
    "stack": (lambda x, y: stack([x, y], axis=1), [(3,), (3,)]),
    "split": (lambda x: split(x, [1, 3], axis=-1), [(4,)]),
    "pad": (lambda x: pad(x, [(0, 0), (1, 2), (0, 3)], value=-1.5), [(3, 4)]),
    "permute": (lambda x: x.permute(0, 3, 1, 2).transpose(), [(3, 4, 5)]),
    "reshape": (lambda x: x.reshape(-1, 2).sum(axis=1).reshape(x.shape[0], 6), [(3, 4)]),
    "broadcast": (lambda x: x[:, None].broadcast_to((x.shape[0], 3, 4)), [(4,)]),
    "matmul": (lambda x, y: x @ y.transpose() @ y, [(3, 4), (5, 4)]),
    "reductions": (
        lambda x: (x.sum(axis=1), x.mean((1, 2)), x.max(axis=-1, keepdims=True), x.min(axis=2)),
        [(3, 4)],
    ),
    "argmax": (lambda x: x.argmax(axis=1), [(7,)]),
    "variance": (lambda x: x.var(axis=1), [(7,)]),
    "softmax": (lambda x: (x.softmax(axis=1), x.log_softmax()), [(3, 4)]),
    "logsumexp": (lambda x: x.logsumexp(), [(5,)]),
    "masks": (lambda x: ((x > 0) & ~(x > 1) | (x < -1)).where(x, 0.0), [(9,)]),
    "casts": (lambda x: (x * 3).astype(np.int32).astype(np.float32) / 2, [(9,)]),
    "zeros": (lambda x: zeros((x.shape[0], 3), backend=x.backend) + x, [(3,)]),
    "constants": (lambda x: x * arange(4, backend=x.backend).astype(np.float32).sin(), [(4,)]),
    "gather": (lambda x: x.transpose(0, 1)[[2, 0, 2]], [(3,)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, tmp_path: Path) -> None:
    function, shapes = FUNCTIONS[name]
    compare(module(function), tmp_path / "m.onnx", *shapes)


def test_a_recurrence(tmp_path: Path) -> None:
    class Cell(nn.Module):
        """A Python loop over the steps, whose number is the example's."""

        def __init__(self) -> None:
            self.first = nn.Linear(3, 4, generator=Generator(0))
            self.again = nn.Linear(4, 4, bias=False, generator=Generator(1))

        def forward(self, x: Tensor) -> Tensor:
            state = zeros((x.shape[0], 4), backend=x.backend)
            for step in range(x.shape[1]):
                state = (self.first(x[:, step]) + self.again(state)).tanh()
            return state

    compare(Cell(), tmp_path / "m.onnx", (6, 3))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_sequences_of_other_lengths(name: str, bidirectional: bool, tmp_path: Path) -> None:
    """One operation per layer and direction, with a first state and the lengths as inputs."""

    class Model(nn.Module):
        def __init__(self) -> None:
            layer = getattr(nn, name)
            self.layer = layer(3, 4, bidirectional=bidirectional, generator=Generator(0))

        def forward(self, x: Tensor, first: Tensor, lengths: Tensor) -> Any:
            state = first.permute(1, 0, 2)
            return self.layer(x, (state, state * 2) if name == "LSTM" else state, lengths=lengths)

    model, count = Model(), 2 if bidirectional else 1
    shapes: list[tuple[int, ...]] = [(6, 3), (count, 4)]
    lengths = np.array([6, 1, 4], np.int32)
    inputs = [given(3, shape, i) for i, shape in enumerate(shapes)]
    session = exported(model, tmp_path / "m.onnx", *inputs, lengths)
    with no_grad():
        wanted = flat(model(tensor(inputs[0]), tensor(inputs[1]), tensor(lengths)))
    for mine, found in zip(wanted, answers(session, *inputs, lengths), strict=True):
        np.testing.assert_allclose(found, mine.numpy(), atol=1e-5)
    nodes = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert nodes.count(name) == count
    assert len(nodes) < 50


# Calls


def test_names_and_results(tmp_path: Path) -> None:
    model = module(
        lambda a, b: {"sum": a + b, "same": a, "constant": tensor([1.0], backend=a.backend)}
    )
    session = exported(model, tmp_path / "m.onnx", given(2, (3,)), given(2, (3,)),
                       input_names=["left", "right"])  # fmt: skip
    assert [each.name for each in session.get_inputs()] == ["left", "right"]
    assert [each.name for each in session.get_outputs()] == ["sum", "same", "constant"]
    x, y = given(4, (3,)), given(4, (3,), 1)
    found = session.run(None, {"left": x, "right": y})
    np.testing.assert_allclose(found[0], x + y)
    np.testing.assert_array_equal(found[1], x)
    assert found[2].tolist() == [1.0]


def test_fixed_lengths_and_other_axes(tmp_path: Path) -> None:
    model = nn.Linear(3, 2, generator=Generator(0))
    x = given(4, (5, 3))
    fixed = exported(model, tmp_path / "fixed.onnx", x, batch_axis=None)
    assert fixed.get_inputs()[0].shape == [4, 5, 3]
    middle = exported(model, tmp_path / "middle.onnx", x, batch_axis=1)
    assert middle.get_inputs()[0].shape == [4, "batch", 3]
    y = given(4, (9, 3))
    np.testing.assert_allclose(answers(middle, y)[0], model(tensor(y)).numpy(), atol=1e-6)


def test_the_model_stays_as_it_is(backend: Backend, tmp_path: Path) -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(3), nn.Dropout()).to(backend)
    before = {name: array.tobytes() for name, array in model.state_dict().items()}
    session = exported(model, tmp_path / "m.onnx", given(2, (5,)))
    assert model.training
    assert {name: array.tobytes() for name, array in model.state_dict().items()} == before
    assert all(p.backend is backend for p in model.parameters())
    x = given(3, (5,))
    model.eval()
    found = model(tensor(x, backend=backend)).numpy()
    np.testing.assert_allclose(answers(session, x)[0], found, atol=1e-5)


# Cannot be exported


class Named(nn.Module):
    """A model with a part that cannot be exported."""

    def __init__(self, part: nn.Module) -> None:
        self.first = nn.Linear(3, 3, generator=Generator(0))
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.part(self.first(x))
        return result


REFUSED: Final[dict[str, tuple[Callable[[Tensor], Any], str]]] = {
    "random numbers": (
        lambda x: x + Generator(0).normal(x.shape, backend=x.backend),
        r"part \(Function\) cannot be exported: drawing random numbers has no counterpart",
    ),
    "a branch": (
        lambda x: x if x.sum() > 0 else -x,
        r"part \(Function\) cannot be exported: it reads numbers that depend on its input",
    ),
    "reading": (lambda x: x * x.max().item(), "it reads numbers that depend on its input"),
    "a loop over the batch": (
        lambda x: stack([row * 2 for row in x]),
        "depend.* on the size of the batch",
    ),
    "a constant of the batch": (
        lambda x: x * arange(x.shape[0], backend=x.backend).unsqueeze(1).astype(np.float32),
        "a constant depends on the size of the batch: of shape",
    ),
    "a mean over the batch": (
        lambda x: x - x.mean(axis=0),
        "a constant depends on the size of the batch|its operations depend on",
    ),
    "no tensor": (lambda x: "text", "its result is str, and not tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_exports(name: str, tmp_path: Path) -> None:
    function, message = REFUSED[name]
    with pytest.raises(nn.OnnxExportError, match=message):
        nn.export_onnx(Named(module(function)), tmp_path / "m.onnx", given(2, (3,)))
    assert not (tmp_path / "m.onnx").exists()


def test_wrong_arguments(tmp_path: Path) -> None:
    model, path = linear(), tmp_path / "m.onnx"
    with pytest.raises(ValueError, match="give an example of each input"):
        nn.export_onnx(model, path)
    with pytest.raises(ValueError, match=r"expected 1 different names, got \['a', 'b'\]"):
        nn.export_onnx(model, path, given(2, (5,)), input_names=["a", "b"])
    with pytest.raises(ValueError, match=r"input 0 of shape \(2, 5\) has no axis 2"):
        nn.export_onnx(model, path, given(2, (5,)), batch_axis=2)
