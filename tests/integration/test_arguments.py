"""Unknown arguments of public callables: one message, which says what they accept instead."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus import nn, optim, tensor, train
from rumus.optim import SAM, AdamW, Muon, ParameterGroup
from rumus.tensor import Parameter
from rumus.tensor.expression.arguments import checked_arguments
from rumus.train import ArrayDataset, Checkpoints, CsvDataset, DataLoader, Trainer

ANY: Any = tensor  # a type checker would refuse it
LAYER: Any = nn
ANY_NEW: Any = nn.Module.__new__
ANY_ADAMW: Any = AdamW
ANY_TRAIN: Any = train


def _parameters() -> list[Parameter]:
    return [Parameter(np.ones((2, 2), np.float32), name="weight")]


def _loader(**options: Any) -> Any:
    return DataLoader(ArrayDataset(np.ones((4, 2), np.float32)), 2, **options)


def _adamw(**options: Any) -> Any:
    return AdamW(_parameters(), **options)


MISSPELLED: list[tuple[Callable[..., Any], str, str]] = [
    (_adamw, "weigth_decay", "weight_decay"),
    (_adamw, "esp", "eps"),
    (_adamw, "maximise", "maximize"),
    (lambda **o: Muon(_parameters(), **o), "momentun", "momentum"),
    (lambda **o: AdamW([ParameterGroup(_parameters(), **o)]), "weigth_decay", "weight_decay"),
    (lambda **o: SAM(_adamw(), **o), "roh", "rho"),
    (lambda **o: nn.Linear(2, 2, **o), "biass", "bias"),
    (lambda **o: nn.Conv2d(1, 2, 3, **o), "paddding", "padding"),
    (lambda **o: nn.LSTM(2, 2, **o), "bidirectinal", "bidirectional"),
    (_loader, "shufle", "shuffle"),
    (lambda **o: CsvDataset("a.csv", **o), "colums", "columns"),
    (lambda **o: CsvDataset("a.csv", **o), "standardise", "standardize"),
    (lambda **o: Checkpoints("folder", **o), "keep_lst", "keep_last"),
    (lambda **o: Trainer(_adamw(), **o), "captures", "capture"),
    (lambda **o: Trainer(_adamw()).fit(_loader(), ANY.ones, **o), "epoch", "epochs"),
    (lambda **o: ANY.ones((2, 2)).sum(**o), "axes", "axis"),
    (lambda **o: ANY.ones((2, 2)).mean(**o), "keepdim_s", "keepdims"),
    (lambda **o: ANY.max_pool(ANY.ones((1, 1, 4)), 2, **o), "strid", "stride"),
]


@pytest.mark.parametrize(("make", "wrong", "right"), MISSPELLED, ids=[row[1] for row in MISSPELLED])
def test_a_misspelled_keyword_gets_the_nearest_name(
    make: Callable[..., Any], wrong: str, right: str
) -> None:
    with pytest.raises(TypeError, match=rf"{wrong!r}; did you mean {right!r}\?$"):
        make(**{wrong: 1})


def test_an_unrelated_keyword_gets_all_names() -> None:
    with pytest.raises(TypeError, match=r"^Linear takes no 'q'; it takes backend, bias, dtype, "):
        LAYER.Linear(2, 2, q=1)
    with pytest.raises(TypeError, match=r"^Sequential takes no 'x'; it takes nothing by name$"):
        LAYER.Sequential(x=1)


TEXTS: list[tuple[Callable[..., Any], str]] = [
    (lambda t: nn.Linear(t, 4), "Linear: inputs must be a whole number"),
    (lambda t: nn.Linear(3, t), "Linear: outputs must be a whole number"),
    (lambda t: nn.Conv2d(t, 2, 3), "Conv2d: inputs must be a whole number"),
    (lambda t: nn.Conv2d(1, 2, t), "Conv2d: kernel must be whole numbers"),
    (lambda t: nn.Conv2d(1, 2, 3, stride=t), "Conv2d: stride must be whole numbers"),
    (lambda t: nn.MaxPool2d(t), "MaxPool2d: kernel must be whole numbers"),
    (lambda t: nn.LayerNorm(t), "LayerNorm: normalized_shape must be whole numbers"),
    (lambda t: nn.GroupNorm(t, 4), "GroupNorm: groups must be a whole number"),
    (lambda t: nn.BatchNorm1d(3, momentum=t), "BatchNorm1d: momentum must be a number"),
    (lambda t: nn.Embedding(t, 4), "Embedding: count must be a whole number"),
    (lambda t: nn.LSTM(3, t), "LSTM: hidden must be a whole number"),
    (lambda t: nn.MultiHeadAttention(t, 2), "MultiHeadAttention: size must be a whole number"),
    (lambda t: _loader(workers=t), "DataLoader: workers must be a whole number"),
    (lambda t: ANY.max_pool(ANY.ones((1, 1, 4)), t), "max_pool: kernel must be whole numbers"),
    (lambda t: ANY.ones((2, 2)).softmax(t), "Tensor.softmax: axis must be a whole number"),
    (lambda t: optim.SGD(t), "pass a sequence of parameters, not str"),
    (lambda t: optim.SGD(_parameters(), t), "lr must be a number or a function of the step"),
]


@pytest.mark.parametrize(("make", "message"), TEXTS, ids=[row[1] for row in TEXTS])
def test_a_text_where_numbers_are_declared(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        make("3")


def classes() -> Iterator[type]:
    for package in (nn, optim, train):
        for name in package.__all__:
            thing = getattr(package, name)
            if inspect.isclass(thing) and issubclass(thing, (nn.Module, optim.Optimizer)):
                yield thing


@pytest.mark.parametrize("cls", list(classes()), ids=lambda cls: cls.__name__)
def test_no_class_uses_pythons_own_message(cls: Any) -> None:
    """Nor is it ignored: a class without `__init__` used to accept anything."""
    if inspect.isabstract(cls):
        return
    with pytest.raises(TypeError) as said:
        cls(surely_no_keyword=1)
    assert "unexpected keyword argument" not in str(said.value)


MADE: tuple[Any, ...] = (
    optim.cosine, optim.warmup, optim.multi_step, optim.LossScale, optim.EMA, optim.SWA,
    optim.Accumulation, train.ArrayDataset, train.NpyDataset,
    train.BalancedSampler, train.WeightedSampler, train.Every, train.RunFolder,
    train.images.Augment, tensor.NumbaBackend, tensor.NumpyBackend, tensor.GradientStore,
)  # fmt: skip


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_nothing_else_that_is_made_does(make: Any) -> None:
    with pytest.raises(TypeError, match="takes no 'surely_no_keyword'; it takes ") as said:
        make(surely_no_keyword=1)
    assert "unexpected keyword argument" not in str(said.value)


@pytest.mark.parametrize("make", [train.ArrayDataset, train.NpyDataset])
@pytest.mark.parametrize("name", ["transform", "shuffle", "batch_size"])
def test_a_dataset_says_what_the_loader_takes(make: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"no '{name}'; here it is DataLoader\(dataset, batch_s"):
        make(**{name: 1})


@pytest.mark.parametrize("make", [nn.Softplus, nn.Identity, nn.Tanh])
def test_classes_without_arguments_say_so(make: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{make.__name__} takes no arguments, but was given 2$"):
        make(2)

    class Net(nn.Module):
        """A model without `__init__`."""

    wrong: Any = Net
    with pytest.raises(TypeError, match=r"^Net takes no arguments, but was given 'hidden'$"):
        wrong(hidden=2)
    Net()


class Numbered(nn.Module):
    """A model with its own `__new__`, and no `__init__`."""

    number: int

    def __new__(cls, number: int = 0) -> Numbered:
        made: Numbered = ANY_NEW(cls, number)
        made.number = number
        return made


@dataclass(eq=False)
class Sized(nn.Module):
    """A model that is a dataclass."""

    hidden: int
    bias: bool = True


class Named:
    """A class that is not a layer."""

    def __init__(self, name: str) -> None:
        self.name = name


class Mixed(nn.Module, Named):
    """A model with another class's `__init__`."""


class Wide(nn.Linear):
    """A layer with arbitrary argument names."""

    def __init__(self, bias: str, inputs: str) -> None:
        super().__init__(len(bias), len(inputs))


class Same(nn.Linear):
    """A layer with rumus's argument names."""


def test_user_classes_take_what_they_declare() -> None:
    assert Numbered(3).number == 3
    assert (Sized(hidden=2).hidden, Sized(2, bias=False).bias) == (2, False)
    assert Mixed(name="a").name == "a"
    assert Wide(bias="no", inputs="abc").weight.shape == (3, 2)
    wrong: Any = Same
    with pytest.raises(TypeError, match=r"^Same takes no 'biass'; did you mean 'bias'\?$"):
        wrong(2, 3, biass=False)
    with pytest.raises(TypeError, match=r"^Same: outputs must be a whole number, not '3'$"):
        wrong(2, "3")


@pytest.mark.parametrize(
    "make", [nn.Softplus, lambda: nn.Linear(2, 3), lambda: Numbered(3), lambda: Sized(2)]
)
def test_copies_and_pickles_are_made_without_arguments(make: Callable[[], nn.Module]) -> None:
    module = make()
    made_again = [copy.copy(module), copy.deepcopy(module)]
    if not module.parameters():  # tensors cannot be pickled
        made_again.append(pickle.loads(pickle.dumps(module)))
    for made in made_again:
        assert type(made) is type(module)
        assert vars(made).keys() == vars(module).keys()
    assert isinstance(nn.Module.__new__(type(module)), type(module))


X: Any = ANY.ones((2, 3))
PLACES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: LAYER.Linear(2, 3, False),
        "Linear takes inputs and outputs by position, not False: write bias=False",
    ),
    (lambda: LAYER.Linear(2), "Linear needs outputs: Linear(inputs, outputs)"),
    (
        lambda: LAYER.Linear(2, bias=False),
        "Linear needs outputs: Linear(inputs, outputs, bias=Fals",
    ),
    (lambda: LAYER.Linear(2, 3, inputs=2), "Linear: inputs is given by position and by name"),
    (lambda: LAYER.Linear(), "Linear needs inputs and outputs: Linear(inputs, outputs)"),
    (lambda: LAYER.Conv2d(1, 2), "Conv2d needs kernel: Conv2d(inputs, outputs, kernel)"),
    (
        lambda: LAYER.Conv2d(1, 2, 3, 1),
        "Conv2d takes inputs, outputs and kernel by position, not 1; by name it takes stride, pad",
    ),
    (
        lambda: LAYER.LayerNorm(3, 1e-6),
        "LayerNorm takes normalized_shape by position, not 1e-06: wr",
    ),
    (
        lambda: LAYER.ModuleList(nn.ReLU(), nn.ReLU()),
        "ModuleList takes modules as one list: ModuleList([...])",
    ),
    (
        lambda: LAYER.ModuleDict(nn.ReLU(), nn.ReLU()),
        "ModuleDict takes modules as one dict: ModuleDict({name: ...})",
    ),
    (
        lambda: LAYER.Sequential([nn.ReLU()]),
        "Sequential takes modules one by one, not list: Sequential(*modules)",
    ),
    (
        lambda: LAYER.Sequential({"act": nn.ReLU()}),
        "Sequential takes modules one by one, not dict: Sequential(*modules.values())",
    ),
    (lambda: LAYER.Sequential(nn.ReLU(), None), "Sequential[1] must be a Module, not None"),
    (lambda: LAYER.Linear(2, 2)(), "Linear needs x: Linear(x)"),
    (lambda: LAYER.Linear(2, 2).to_dtype(), "Linear.to_dtype needs dtype: Linear.to_dtype(dtype)"),
    (lambda: LAYER.Linear(2, 2).eval(True), "Linear.eval takes no arguments, not True"),
    (lambda: LAYER.Linear(2, 2).half(True), "Linear.half takes no arguments, not True"),
    (
        lambda: LAYER.Linear(2, 2).parameters(recurse=False),
        "Linear.parameters takes no 'recurse'; it takes nothing by name",
    ),
    (
        lambda: LAYER.Linear(2, 2).named_buffers(prefix="a"),
        "Linear.named_buffers takes no 'prefix'; it takes nothing by name",
    ),
    (lambda: ANY.seed(seed=0), "seed takes no 'seed'; it takes value"),
    (
        lambda: ANY_ADAMW(_parameters()).step(3),
        "AdamW.step: grads must be what loss.backward() returned, not 3",
    ),
    (
        lambda: type("Net", (nn.Linear,), {})(2, 2).to_dtype(),
        "Net.to_dtype needs dtype: Net.to_dtype(dtype)",
    ),
    (lambda: LAYER.lora(nn.Sequential(nn.Linear(2, 2))), "lora needs rank: lora(model, rank)"),
    (lambda: LAYER.initialization.uniform(_parameters()[0]), "uniform needs generator: uniform(p"),
    (lambda: LAYER.mse_loss(X, X, "sum"), "mse_loss takes prediction and target by position, not "),
    (lambda: ANY.relu(X, True), "relu takes x by position, not True"),
    (lambda: ANY.prelu(X), "prelu needs weight: prelu(x, weight)"),
    (
        lambda: ANY.zeros((2,), np.float32),
        "zeros takes shape by position, not the class float32: w",
    ),
    (lambda: ANY.tensor(), "tensor needs data: tensor(data)"),
    (lambda: X.softmax(0, 1), "Tensor.softmax takes axis by position, not 1"),
    (lambda: ANY.Generator(), "Generator needs seed: Generator(seed)"),
    (
        lambda: ANY.Parameter(X, "w"),
        "Parameter takes data by position, not 'w'; by name it takes na",
    ),
    (lambda: ANY_ADAMW(lr=0.1), "AdamW needs parameters: AdamW(model.parameters(), lr=0.1)"),
    (
        lambda: ANY_ADAMW(_parameters(), 0.1, 0.9),
        "AdamW takes parameters and lr by position, not 0",
    ),
    (lambda: ANY_TRAIN.Trainer(), "Trainer needs optimizer: Trainer(optimizer)"),
    (
        lambda: ANY_TRAIN.DataLoader(),
        "DataLoader needs dataset and batch_size: DataLoader(dataset, ",
    ),
    (lambda: ANY_TRAIN.Checkpoints(), "Checkpoints needs folder: Checkpoints(folder)"),
]


@pytest.mark.parametrize(("call", "message"), PLACES, ids=[row[1] for row in PLACES])
def test_arguments_that_cannot_be_placed(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}") as said:
        call()
    assert said.value.__context__ is None or said.value.__suppress_context__


def test_the_places_of_a_users_class_are_its_own() -> None:
    class Net(nn.Linear):
        """A layer that leaves out an argument of its base."""

        def __init__(self, inputs: int) -> None:
            super().__init__(inputs)  # type: ignore[call-arg]

    with pytest.raises(TypeError, match=r"^Linear needs outputs: "):
        Net(3)
    wrong: Any = Net
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'inputs'"):
        wrong()

    class Failing(nn.Linear):
        """A layer whose constructor has an error of its own."""

        def __init__(self) -> None:
            super().__init__(2, 2)
            len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        Failing()


def test_pythons_own_message_is_not_shown_as_well() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: ANY.ones((2,)).sum(axes=0),
        lambda: ANY.ones((2,)).softmax("0"),
    ]
    for call in calls:
        with pytest.raises(TypeError) as said:
            call()
        assert said.value.__suppress_context__


def test_an_error_inside_a_call_is_not_changed() -> None:
    @checked_arguments
    def apply(act: Callable[[], object], count: int = 1) -> object:
        return act()

    def fails() -> None:
        raise TypeError("something else")

    with pytest.raises(TypeError, match=r"^something else$"):
        apply(fails, count=2)


def test_signatures_are_unchanged() -> None:
    assert "bias: 'bool' = True" in str(inspect.signature(nn.Linear))
    assert "axis" in inspect.signature(ANY.Tensor.sum).parameters
    assert "epochs" in inspect.signature(Trainer.fit).parameters


@pytest.mark.parametrize("eps", [float("inf"), float("nan"), 0.0, -1.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda eps: nn.LayerNorm(3, eps=eps),
        lambda eps: nn.RMSNorm(3, eps=eps),
        lambda eps: nn.GroupNorm(1, 2, eps=eps),
        lambda eps: nn.InstanceNorm2d(2, eps=eps),
        lambda eps: nn.BatchNorm1d(2, eps=eps),
        lambda eps: nn.TransformerBlock(4, 2, eps=eps),
    ],
)
def test_an_epsilon_is_finite_and_positive(make: Callable[[float], Any], eps: float) -> None:
    with pytest.raises(ValueError, match=rf"Norm.*: eps must be finite and positive, not {eps}"):
        make(eps)


@pytest.mark.parametrize("pool", [nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d])
def test_a_padding_of_more_than_half_a_kernel_is_refused_at_once(pool: Any) -> None:
    with pytest.raises(ValueError, match="is more than half of the kernel"):
        pool(2, padding=2)
    pool(2, padding=1)


def test_a_column_is_not_feature_and_target(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,y\n1,2,0\n3,4,1\n")
    for target in ("b", ["y", "b"]):
        with pytest.raises(ValueError, match=r"'b' is both a target and in columns="):
            CsvDataset(path, columns=["a", "b"], target=target)
