"""Modules: their parts, names, saving, moving and printing."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rumus.nn.module
from rumus import nn
from rumus.tensor import (
    Backend,
    Generator,
    NumpyBackend,
    Parameter,
    Parameters,
    StateMismatchError,
    Tensor,
    float64,
    ones,
    tensor,
    zeros,
)


class Block(nn.Module):
    def __init__(self, generator: Generator) -> None:
        self.scale = Parameter([2.0], name="mine")
        self.linear = nn.Linear(3, 3, generator=generator)
        self.steps = tensor([0])
        self.label = "block"

    def forward(self, x: Tensor, *, times: int = 1) -> Tensor:
        for _ in range(times):
            x = self.linear(x) * self.scale
        return x


class Model(nn.Module):
    def __init__(self, generator: Generator) -> None:
        self.blocks = nn.ModuleList([Block(generator), Block(generator)])
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 1, generator=generator)})
        self.running = zeros((3,))
        self.drop = nn.Dropout(0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.heads["a"](self.drop(x))


def any_of(value: object) -> Any:
    """Passes what a type checker would refuse, to test the error at run time."""
    return value


def model() -> Model:
    return Model(Generator(0))


NAMES = (
    "blocks.0.scale",
    "blocks.0.linear.weight",
    "blocks.0.linear.bias",
    "blocks.1.scale",
    "blocks.1.linear.weight",
    "blocks.1.linear.bias",
    "heads.a.weight",
    "heads.a.bias",
)
BUFFERS = ("running", "blocks.0.steps", "blocks.1.steps")


# Calling


def test_calling_is_forward() -> None:
    block, x = Block(Generator(0)), tensor([[1.0, 2.0, 3.0]])
    assert block(x, times=2).tolist() == block.forward(x, times=2).tolist()


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(TypeError, match="ModuleList has no forward; write one"):
        nn.ModuleList([nn.ReLU()])(tensor([1.0]))


@pytest.mark.parametrize("make", [nn.Sequential, lambda *layers: nn.ModuleList(layers)])
def test_a_number_that_no_module_of_a_container_has(make: Callable[..., Any]) -> None:
    """Python's own message is of a list, which no one sees."""
    layers = make(nn.ReLU(), nn.Tanh())

    def put(index: Any) -> None:
        layers[index] = nn.ReLU()

    acts: list[Callable[[Any], Any]] = [layers.__getitem__, put, layers.__delitem__, layers.pop]
    for act in acts:
        for index in (2, -3):
            with pytest.raises(IndexError, match=f"has 2 modules, and none of number {index}$"):
                act(index)
        with pytest.raises(TypeError, match=r"\[...\] takes the number of a module, not 'conv1'"):
            act("conv1")
    assert len(layers) == 2
    assert layers[np.int64(-1)] is layers[1]


# Its parts


def test_names_and_order() -> None:
    found = model()
    parameters = found.parameters()
    assert isinstance(parameters, Parameters)
    assert parameters.names == NAMES
    assert tuple(name for name, _ in found.named_parameters()) == NAMES
    assert [p.name for p in parameters] == list(NAMES)
    assert tuple(name for name, _ in found.named_buffers()) == BUFFERS
    assert [b.shape for b in found.buffers()] == [(3,), (1,), (1,)]
    assert [name for name, _ in found.named_generators()] == ["drop.generator"]


def test_modules_are_found_before_their_parts() -> None:
    names = [name for name, _ in model().named_modules()]
    assert names == [
        "", "blocks", "blocks.0", "blocks.0.linear", "blocks.1", "blocks.1.linear",
        "heads", "heads.a", "drop",
    ]  # fmt: skip
    assert len(list(model().modules())) == len(names)


def test_assignment_declares_and_deletion_removes() -> None:
    found = model()
    found.extra = nn.Linear(2, 2, bias=False, generator=Generator(1))  # type: ignore[attr-defined]
    assert "extra.weight" in found.parameters().names
    del found.extra  # type: ignore[attr-defined]
    found.heads["a"] = nn.Linear(3, 2, bias=False, generator=Generator(1))
    assert found.parameters().names == NAMES[:-1]


def test_parameters_have_the_longest_path() -> None:
    found = model()
    assert found.blocks[0].linear.weight.name == "weight"
    found.parameters()
    inner = found.blocks[0].linear.parameters()
    assert inner.names == ("weight", "bias")
    assert [p.name for p in inner] == ["blocks.0.linear.weight", "blocks.0.linear.bias"]


def test_gradient_errors_name_the_path() -> None:
    found = model().eval()
    found.parameters()
    loss = found(tensor([[1.0, 2.0, 3.0]])).sum()
    found.blocks[1].linear.weight.assign(0.0)
    with pytest.raises(RuntimeError, match=r"'blocks\.1\.linear\.weight' was changed in place"):
        loss.backward()


def test_computed_values_are_not_buffers() -> None:
    block = Block(Generator(0))
    block.last = block(tensor([[1.0, 2.0, 3.0]]))  # type: ignore[attr-defined]
    assert [name for name, _ in block.named_buffers()] == ["steps"]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([nn.ReLU()], r"Block\.held is a list of modules.*ModuleList or Sequential"),
        ((nn.ReLU(),), "is a tuple of modules"),
        ({"a": nn.ReLU()}, "is a dict of modules.*ModuleDict"),
        ([1, Parameter([1.0])], "is a list of parameters"),
        ({nn.ReLU()}, "is a set of modules"),
        ([[nn.ReLU()], [nn.ReLU()]], "is a list of modules in a list, .*ModuleList or Sequential"),
        ([(2, nn.ReLU())], "is a list of modules in a tuple"),
        ({"a": [1, Parameter([1.0])]}, "is a dict of parameters in a list, .*ModuleDict"),
        (deque([nn.ReLU()]), "is a deque of modules, .*ModuleList"),
        (frozenset([nn.ReLU()]), "is a frozenset of modules, .*ModuleList"),
        (SimpleNamespace(a=nn.ReLU()), "is a SimpleNamespace of modules, .*ModuleDict"),
        (np.array([nn.ReLU(), None]), "is a ndarray of modules, .*ModuleList"),
        ([[{"a": (nn.ReLU(),)}]], "is a list of modules in a tuple, .*ModuleList"),
    ],
)
def test_a_plain_container_is_refused(held: object, message: str) -> None:
    block = Block(Generator(0))
    block.held = held  # type: ignore[attr-defined]
    for ask in (block.parameters, block.state_dict, block.eval, block.freeze):
        with pytest.raises(TypeError, match=message):
            ask()
    assert block.training


def test_plain_containers_of_other_things_are_fine() -> None:
    block = Block(Generator(0))
    block.sizes = [1, 2]  # type: ignore[attr-defined]
    block.names = {"a": 1}  # type: ignore[attr-defined]
    block.counts = SimpleNamespace(a=1)  # type: ignore[attr-defined]
    block.array = np.array([None, "a"])  # type: ignore[attr-defined]
    block.pairs = [(1, 2), [], {"a": [tensor([1.0])]}]  # type: ignore[attr-defined]
    assert len(block.parameters()) == 3


def test_what_slots_hold_is_a_part() -> None:
    """`__slots__` and dataclass(slots=True) hid it: it was neither trained nor saved."""

    class Slotted(nn.Module):
        __slots__ = ("inner", "unset")

        def __init__(self) -> None:
            self.inner = nn.Linear(1, 2)

    @dataclass(slots=True, eq=False)
    class Data(nn.Module):
        inner: nn.Module
        scale: Parameter

    names = ("inner.weight", "inner.bias")
    assert Slotted().parameters().names == names
    data = Data(Slotted(), Parameter([1.0]))
    assert data.parameters().names == ("scale", "inner.inner.weight", "inner.inner.bias")
    assert not data.eval().inner.training


def test_a_parameter_of_ones_own_is_replaced_by_another_shape() -> None:
    layer: Any = nn.Linear(2, 3)
    layer.scale = Parameter([1.0])
    layer.scale = Parameter([1.0, 2.0])
    assert layer.parameters().names == ("weight", "bias", "scale")
    with pytest.raises(ValueError, match="weight has the shape"):
        layer.weight = Parameter([1.0])


def test_a_buffer_of_a_layer_keeps_its_shape() -> None:
    """Running statistics of another shape were taken, and ignored or broadcast later."""
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match=r"running_mean has the shape \(3,\).* and not \(1,\)"):
        norm.running_mean = tensor([0.0])
    norm.running_mean = tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("name", ["requires_grad", "trainable"])
def test_an_attribute_that_would_freeze_nothing(name: str) -> None:
    """As Keras freezes; a class of the user's may have an attribute of that name itself."""

    class Own(nn.Module):
        def __init__(self) -> None:
            setattr(self, name, True)
            self.inner = nn.Linear(1, 1)

    def freeze(module: nn.Module) -> None:
        setattr(module, name, False)

    for module in (nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1)), Block(Generator(0))):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is model.freeze\(\)"):
            freeze(module)
    own = Own()
    freeze(own)
    assert getattr(own, name) is False


def test_all_parameters_are_saved_whatever_an_optimizer_is_given() -> None:
    """A class that overrode parameters() lost the others when it was saved, under other names."""

    class Head(nn.Module):
        def __init__(self) -> None:
            self.body, self.head = nn.Linear(1, 2), nn.Linear(2, 1)

        def parameters(self) -> Any:
            return self.head.parameters()

        def named_buffers(self) -> Any:
            return iter(())

    model = Head()
    names = ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert model.parameters().names == ("weight", "bias")
    assert list(model.state_dict()) == names
    assert [p.dtype for p in model.to_dtype(float64).body.parameters()] == [float64, float64]
    backend = NumpyBackend()
    assert model.to(backend).body.weight.backend is backend


def test_names_with_dots_that_are_taken() -> None:
    """One of two parameters of a name was lost when the model was saved."""
    model: Any = nn.Sequential(nn.Linear(1, 2))
    setattr(model, "0.weight", Parameter([1.0]))
    for ask in (model.parameters, model.state_dict, lambda: model.to_dtype(float64)):
        with pytest.raises(ValueError, match=r"two parts of Sequential are called '0\.weight'"):
            ask()
    layer: Any = nn.Linear(1, 2)
    setattr(layer, "mean.part", Parameter([1.0]))
    assert layer.parameters().names == ("weight", "bias", "mean.part")


class Doubled(nn.Linear):
    """With less than a `Linear` takes."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * 2.0


class Passed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_parts_of_a_block_are_replaced_by_any_module() -> None:
    """They were called with arguments that only layers of rumus take."""
    g = Generator(0)
    x = g.normal((2, 3, 8))
    for name in ("attention", "feed_forward", "attention_norm", "feed_forward_norm", "dropout"):
        for part in (Passed(), nn.Sequential(nn.Linear(8, 8, generator=g), nn.GELU())):
            block: Any = nn.TransformerBlock(8, 2, dropout=0.5, generator=g)
            setattr(block, name, part)
            for mode in (True, False):
                assert block.train(mode)(x).shape == x.shape
    block = nn.TransformerBlock(8, 2, generator=g)
    block.attention, block.feed_forward = Passed(), Passed()
    once = x + block.attention_norm(x)
    expected = once + block.feed_forward_norm(once)
    assert block(x).tolist() == expected.tolist()
    with pytest.raises(TypeError, match="mask"):
        block(x, mask=ones((3, 3)))


@pytest.mark.parametrize("path", ["feed_forward.up", "feed_forward.down", "attention.output"])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_products_of_a_block_are_replaced(path: str, activation: Any) -> None:
    """By a class derived from `Linear` whose forward takes x alone."""
    g = Generator(0)
    x = g.normal((2, 3, 8))
    block: Any = nn.TransformerBlock(8, 2, activation=activation, generator=g)
    whole, name = path.split(".")
    inside = getattr(block, whole)
    old = getattr(inside, name)
    new: Any = Doubled(old.inputs, old.outputs, generator=g)
    new.weight.assign(old.weight.numpy() / 2)
    new.bias.assign(old.bias.numpy() / 2)
    before = block(x).numpy()
    setattr(inside, name, new)
    np.testing.assert_allclose(block(x).numpy(), before, rtol=1e-5, atol=1e-6)


def test_dropout_of_attention_follows_its_module() -> None:
    """A class of one's own was passed over, and so was train() of the dropout alone."""

    class Nothing(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0.0

    g = Generator(0)
    x = g.normal((1, 3, 8))
    attention: Any = nn.MultiHeadAttention(8, 2, dropout=0.9, bias=False, generator=g).eval()
    still = attention(x).tolist()
    attention.dropout.train()  # as for Monte-Carlo dropout
    assert attention(x).tolist() != still
    attention.dropout = nn.Identity()
    np.testing.assert_allclose(attention(x).numpy(), still, rtol=1e-5, atol=1e-6)
    attention.dropout = Nothing(0.0)
    assert not attention(x).numpy().any()


def test_a_called_attribute_is_explained() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape((x.size(0), -1))  # type: ignore[operator]

    with pytest.raises(TypeError, match="'int' object is not callable") as caught:
        Net()(tensor([[1.0]]))
    assert "x.shape[0] for x.size(0)" in caught.value.__notes__[0]


def test_a_call_of_something_else_has_no_note_of_attributes() -> None:
    class Net(nn.Module):
        activation: Any = None

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(x.reshape((x.shape[0], -1)))  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match="'NoneType' object is not callable") as caught:
        Net()(tensor([[1.0]]))
    assert not hasattr(caught.value, "__notes__")


def test_parts_may_have_the_names_of_methods() -> None:
    """An ensemble may call its parts members, and a tree may have children."""

    class Ensemble(nn.Module):
        def __init__(self) -> None:
            self.members = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
            self.children = nn.Dropout()
            self.modules = nn.Linear(1, 1)  # type: ignore[assignment]

    found = Ensemble().eval().to(NumpyBackend())
    assert len(found.parameters()) == 6
    assert not found.children.training
    assert "modules: Linear(inputs=1, outputs=1)" in repr(found)


# Tied weights and cycles


class Tied(nn.Module):
    def __init__(self) -> None:
        self.table = nn.Embedding(4, 3, generator=Generator(0))
        self.output = nn.Linear(3, 4, bias=False, generator=Generator(1))
        self.output.weight = self.table.weight
        self.first = nn.ReLU()
        self.second = self.first

    def forward(self, index: Tensor) -> Tensor:
        return self.output(self.table(index))


def test_tied_weights_are_one_parameter() -> None:
    found = Tied()
    assert found.parameters().names == ("table.weight",)
    assert list(found.state_dict()) == ["table.weight"]
    assert [name for name, _ in found.named_modules()] == ["", "table", "output", "first"]
    grads = found(tensor([1, 2])).sum().backward()
    assert len(grads) == 1
    assert "Tied(): 12 parameters" in repr(found)
    found.load_state_dict({"table.weight": np.ones((4, 3), np.float32)})
    assert found.output.weight.tolist() == np.ones((4, 3)).tolist()


def test_tied_weights_stay_tied_in_a_copy() -> None:
    twin = copy.deepcopy(Tied())
    assert twin.output.weight is twin.table.weight
    assert twin.second is twin.first


def test_a_cycle_is_walked_once() -> None:
    block = Block(Generator(0))
    block.linear.owner = block  # type: ignore[attr-defined]
    assert len(block.parameters()) == 3
    assert "owner: Block (shown above)" in repr(block)
    assert not block.eval().training


@pytest.mark.parametrize("depth", [3, 300, 3000])
def test_a_depth_of_sequentials_costs_no_recursion(depth: int) -> None:
    first = found = nn.Sequential(nn.Linear(2, 2, generator=Generator(0)), nn.ReLU())
    for _ in range(depth):
        found = nn.Sequential(found, nn.Identity())
    x = ones((1, 2))
    assert found(x).tolist() == first(x).tolist()
    assert len(found(x).sum().backward()) == 2
    name = "0." * depth + "0.weight"
    assert next(iter(found.state_dict())) == name
    found.load_state_dict(found.state_dict())
    lines = repr(found).splitlines()
    assert lines[0] == "Sequential(): 6 parameters"
    assert [line.strip() for line in lines[depth : depth + 2]] == [
        "0: Sequential(): 6 parameters", "0: Linear(inputs=2, outputs=2): 6 parameters"
    ]  # fmt: skip
    assert len(lines) == 2 * depth + 3
    assert max(map(len, lines)) < 300


def test_an_item_of_a_container_is_replaced_by_its_place_or_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    tanh, relu = nn.Tanh(), nn.ReLU()
    layers = nn.ModuleList[nn.Module]([relu])
    heads = nn.ModuleDict({"head": relu})
    model[-1] = tanh
    assert list(model)[1] is tanh
    setattr(model, "0", tanh)
    layers[0] = tanh
    setattr(heads, "head", tanh)  # noqa: B010 : the type checker knows no such attribute
    for container, count in ((model, 2), (layers, 1), (heads, 1)):
        assert [child for _, child in container.named_children()] == [tanh] * count
    with pytest.raises(IndexError):
        model[2] = tanh
    with pytest.raises(TypeError, match=r"Sequential\[0\] must be a Module"):
        model[0] = nn.ReLU  # type: ignore[assignment]


def test_a_sequential_that_contains_itself_is_told_of() -> None:
    found = nn.Sequential(nn.Identity())
    found.replace_child("0", found)
    with pytest.raises(RecursionError, match="Sequential contains itself"):
        found(ones((1, 2)))


def test_each_line_counts_shared_parameters_once() -> None:
    shared, other = (nn.Linear(2, 2, generator=Generator(0)) for _ in range(2))
    other.freeze()
    text = repr(nn.Sequential(nn.Sequential(shared, other), nn.Sequential(shared), shared))
    counts = [line.split("): ")[1] for line in text.splitlines()]
    assert counts == [
        "12 parameters, 6 frozen", "12 parameters, 6 frozen", "6 parameters",
        "6 parameters, 6 frozen", "6 parameters", "6 parameters", "6 parameters",
    ]  # fmt: skip


# State


def test_state_is_copied_out_and_in() -> None:
    here, there = model(), Model(Generator(1))
    state = here.state_dict()
    assert tuple(state) == (*NAMES, *BUFFERS)
    assert there.load_state_dict(state) is there
    for name, array in there.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
        array[...] = 7
        state[name][...] = 9
    assert not any((array == 9).any() or (array == 7).any() for array in here.state_dict().values())
    assert there.state_dict()["running"].tolist() == [0.0] * 3
    assert there.blocks[0].steps.dtype == np.int32


def test_loading_keeps_the_parameters_themselves() -> None:
    found = model()
    before = list(found.parameters())
    found.load_state_dict(model().state_dict())
    assert all(a is b for a, b in zip(before, found.parameters(), strict=True))


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    found = model()
    state = {name: array + 1 for name, array in found.state_dict().items()}
    del state["running"]
    del state["heads.a.bias"]
    state["new"] = np.zeros(1)
    state["blocks.0.scale"] = np.zeros((1, 1), np.float32)
    state["blocks.0.steps"] = np.zeros(1, np.float32)
    state["heads.a.weight"] = np.zeros((3, 1), np.float64)
    before = found.state_dict()
    with pytest.raises(StateMismatchError) as caught:
        found.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "this state does not fit Model; nothing was loaded:",
        "  heads.a.bias: missing",
        "  running: missing",
        "  blocks.0.scale: saved shape (1, 1), expected (1,)",
        "  heads.a.weight: saved shape (3, 1), expected (1, 3)",
        "  heads.a.weight: saved dtype float64, expected float32",
        "  blocks.0.steps: saved dtype float32, expected int32",
        "  new: unexpected",
    ]
    for name, array in found.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_failing_upload_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = NumpyBackend()
    found = nn.Sequential(
        *(nn.Linear(2, 2, generator=Generator(i), backend=backend) for i in (0, 1))
    )
    before = found.state_dict()
    calls = iter(range(3))

    def upload(host: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
        next(calls)  # StopIteration at the fourth
        return np.array(host)

    monkeypatch.setattr(backend, "upload", upload)
    with pytest.raises(StopIteration):
        found.load_state_dict({name: array + 1 for name, array in before.items()})
    monkeypatch.undo()
    for name, array in found.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


TREES = st.recursive(
    st.integers(1, 3),
    lambda below: (
        st.lists(below, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), below, min_size=1, max_size=2)
    ),
    max_leaves=8,
)


def grow(tree: object, generator: Generator) -> nn.Module:
    if isinstance(tree, int):
        return nn.Linear(tree, tree, generator=generator)
    if isinstance(tree, dict):
        return nn.ModuleDict({name: grow(part, generator) for name, part in tree.items()})
    assert isinstance(tree, list)
    return nn.ModuleList([grow(part, generator) for part in tree])


@settings(deadline=None)
@given(TREES)
def test_every_tree_saves_and_loads(tree: object) -> None:
    here, there = grow(tree, Generator(0)), grow(tree, Generator(1))
    state = here.state_dict()
    assert tuple(state) == here.parameters().names
    there.load_state_dict(state)
    for name, parameter in there.named_parameters():
        assert parameter.name == name
        np.testing.assert_array_equal(parameter.numpy(), state[name])
    size = sum(array.size for array in state.values())
    assert repr(here).splitlines()[0].endswith(f": {size} parameters")


@settings(deadline=None)
@given(TREES, st.data())
def test_every_missing_name_is_listed(tree: object, data: st.DataObject) -> None:
    found = grow(tree, Generator(0))
    state = found.state_dict()
    gone = data.draw(st.sets(st.sampled_from(sorted(state)), min_size=1))
    with pytest.raises(StateMismatchError) as caught:
        found.load_state_dict({n: a for n, a in state.items() if n not in gone})
    listed = {line.removesuffix(": missing").strip() for line in str(caught.value).splitlines()[1:]}
    assert listed == gone


# Modes


def test_train_and_eval_reach_everything() -> None:
    found = model()
    assert all(m.training for m in found.modules())
    assert found.eval() is found
    assert not any(m.training for m in found.modules())
    assert not found.drop.training
    found.blocks[0].train()
    assert [m.training for m in found.modules()].count(True) == 2
    assert found.train() is found
    assert all(m.training for m in found.modules())


def test_freezing() -> None:
    found = model()
    names = found.parameters().names
    found.blocks[0].freeze()
    assert repr(found).splitlines()[0] == "Model(): 30 parameters, 13 frozen"
    assert repr(found.heads["a"]).endswith("4 parameters")
    grads = found(tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert {p.name for p in grads} == {name for name in names if name > "blocks.1"}
    assert found.requires_grad_() is found
    assert all(p.requires_grad for p in found.parameters())


# Moving


class Owner:
    """Stands in for an optimizer: records what it is asked to move, and moves it."""

    def __init__(self) -> None:
        self.moved: list[tuple[int, Backend]] = []

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        self.moved.append((len(parameters), backend))
        for parameter in parameters:
            parameter._array = backend.upload(parameter.numpy())
            parameter._backend = backend

    def release(self) -> None:
        raise AssertionError("nothing asks for it here")


def test_moving_includes_parameters_buffers_and_the_owner(backend: Backend) -> None:
    found, owner = model(), Owner()
    for parameter in found.blocks.parameters():
        parameter._owner = weakref.ref(owner)
    found.shared = found.running  # type: ignore[attr-defined]
    before, kept = found.state_dict(), list(found.parameters())
    assert found.to(backend) is found
    assert owner.moved == [(6, backend)]
    assert all(p.backend is backend for p in found.parameters())
    assert all(b.backend is backend for b in found.buffers())
    assert found.shared is found.running  # type: ignore[attr-defined]
    assert all(a is b for a, b in zip(kept, found.parameters(), strict=True))
    for name, array in found.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert found.eval()(zeros((2, 3), backend=backend)).backend is backend
    found.to(backend)
    assert len(owner.moved) == 1


def test_to_gpu_asks_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = NumpyBackend()
    monkeypatch.setattr(rumus.nn.module, "gpu_backend", lambda: gpu)
    found = model()
    assert found.to_gpu() is found
    assert {id(t.backend) for t in (*found.parameters(), *found.buffers())} == {id(gpu)}


def test_a_model_on_another_backend_is_named_in_the_error() -> None:
    found = nn.Sequential(nn.Linear(2, 2, generator=Generator(0))).to(NumpyBackend())
    found.parameters()
    with pytest.raises(RuntimeError, match=r"parameter '0\.weight' is on (numpy|another)"):
        found(tensor([[1.0, 2.0]]))


# Printing


def test_the_tree_of_a_model() -> None:
    assert repr(model()).splitlines() == [
        "Model(): 30 parameters",
        "  blocks: ModuleList(): 26 parameters",
        "    0: Block(label='block'): 13 parameters",
        "      linear: Linear(inputs=3, outputs=3): 12 parameters",
        "    1: Block(label='block'): 13 parameters",
        "      linear: Linear(inputs=3, outputs=3): 12 parameters",
        "  heads: ModuleDict(): 4 parameters",
        "    a: Linear(inputs=3, outputs=1): 4 parameters",
        "  drop: Dropout(p=0.5)",
    ]
    assert "training" not in repr(model().eval())
    assert (
        repr(nn.LayerNorm((2, 3))) == "LayerNorm(normalized_shape=(2, 3), eps=1e-05): 12 parameters"
    )


# Containers


def test_sequential_is_a_sequence() -> None:
    layers = [nn.Linear(2, 3, generator=Generator(0)), nn.ReLU(), nn.Linear(3, 1)]
    found = nn.Sequential(*layers)
    assert len(found) == 3
    assert list(found) == layers
    assert found[-1] is layers[-1]
    assert list(found[1:]) == layers[1:]
    assert isinstance(found[1:], nn.Sequential)
    assert found[:1].parameters().names == ("0.weight", "0.bias")
    x = tensor([[1.0, -2.0]])
    assert found(x).tolist() == layers[2](layers[0](x).relu()).tolist()
    assert nn.Sequential()(x) is x
    with pytest.raises(IndexError):
        found[3]


def test_a_layer_used_twice_has_one_set_of_weights() -> None:
    layer = nn.Linear(2, 2, generator=Generator(0))
    found = nn.Sequential(layer, nn.ReLU(), layer)
    assert found.parameters().names == ("0.weight", "0.bias")
    assert len(found(tensor([[1.0, 2.0]])).sum().backward()) == 2


def test_lists_and_dicts() -> None:
    items = nn.ModuleList([nn.ReLU(), nn.Tanh()])
    assert len(items.append(nn.SiLU())) == 3
    assert [type(m).__name__ for m in items[1:]] == ["Tanh", "SiLU"]
    named = nn.ModuleDict({"b": nn.ReLU(), "a": nn.Tanh()})
    assert list(named) == ["b", "a"]
    assert [name for name, _ in named.items()] == ["b", "a"]
    assert len(named) == 2
    assert "a" in named
    assert "c" not in named


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_modules_in_order_are_added_and_removed(kind: str) -> None:
    first, second = nn.Linear(2, 2, generator=Generator(0)), nn.Linear(2, 2, generator=Generator(1))
    a: Any = nn.Sequential() if kind == "Sequential" else nn.ModuleList()
    assert a.append(first).extend([nn.ReLU(), second]).insert(1, nn.Tanh()) is a
    assert [type(m).__name__ for m in a] == ["Linear", "Tanh", "ReLU", "Linear"]
    assert a.parameters().names == ("0.weight", "0.bias", "3.weight", "3.bias")
    del a[1]
    a += nn.ModuleList([nn.SiLU()])
    assert a.pop(1).training
    assert a.parameters().names == ("0.weight", "0.bias", "1.weight", "1.bias")
    del a[-1:]
    assert list(a) == [first, second]
    if kind == "Sequential":
        x = tensor([[1.0, -2.0]])
        assert a(x).tolist() == second(first(x)).tolist()
    acts: list[Callable[[], Any]] = [
        lambda: a.extend([nn.ReLU(), 3]), lambda: a.insert(0, nn.ReLU), lambda: a.append(None)
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(TypeError, match=rf"{kind}\[\d\] must be a Module"):
            act()
    assert list(a) == [first, second]


def test_a_dict_of_modules_has_the_methods_of_a_dict() -> None:
    relu, tanh, silu = nn.ReLU(), nn.Tanh(), nn.SiLU()
    named: nn.ModuleDict[nn.Module] = nn.ModuleDict({"a": relu, "b": tanh})
    named.update({"b": silu, "c": tanh})
    assert (list(named.keys()), list(named.values())) == (["a", "b", "c"], [relu, silu, tanh])
    assert named.pop("b") is silu
    del named["a"]
    assert dict(named.items()) == {"c": tanh}
    with pytest.raises(KeyError):
        del named["a"]


def test_a_subclass_of_a_container_may_hold_more() -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2, generator=Generator(0)))
            self.scale = Parameter([1.0])

    assert Scaled().parameters().names == ("scale", "0.weight", "0.bias")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: nn.Sequential(nn.ReLU(), any_of(abs)),
            TypeError,
            r"\[1\] must be a Module, not <",
        ),
        (lambda: nn.Sequential(any_of(nn.ReLU)), TypeError, r"make it first: ReLU\(\)"),
        (lambda: nn.ModuleList([any_of(1.5)]), TypeError, r"ModuleList\[0\] must be a Module"),
        (lambda: nn.ModuleDict({"a": any_of(1)}), TypeError, r"ModuleDict\['a'\] must be a Module"),
        (lambda: nn.ModuleDict({"a.b": nn.ReLU()}), ValueError, "has no dot, unlike 'a.b'"),
        (lambda: nn.ModuleDict({"": nn.ReLU()}), ValueError, "is not empty"),
        (lambda: nn.ModuleDict(any_of({3: nn.ReLU()})), TypeError, "name is text, unlike 3"),
    ],
)
def test_errors_of_containers(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_float64_models_save_and_load() -> None:
    found = nn.Linear(2, 2, generator=Generator(0), dtype=float64)
    assert found.state_dict()["weight"].dtype == np.float64
    with pytest.raises(StateMismatchError, match="weight: saved dtype float64, expected float32"):
        nn.Linear(2, 2).load_state_dict(found.state_dict())


@pytest.mark.parametrize(
    ("make", "name", "value", "message"),
    [
        (lambda: nn.TransformerBlock(4, 2), "causal", True, "'causal': that is decided when it is"),
        (lambda: nn.FeedForward(4, 8), "hidden", 4, "'hidden': that is decided when it is made"),
        (lambda: nn.LSTM(3, 2), "bias", False, "'bias': that is decided when it is made"),
        (lambda: nn.LeakyReLU(), "negative_slope", 0.2, "'negative_slope'; here it is slope"),
        (lambda: nn.Conv2d(2, 2, 3), "kernel_size", 5, "'kernel_size'; here it is kernel"),
        (lambda: nn.Dropout(0.5), "drop_prob", 0.1, "'drop_prob'; here it is p"),
        (lambda: nn.Conv2d(2, 2, 3), "padding_mode", "reflect", "Conv2d.padding_mode is decided"),
        (
            lambda: nn.Conv2d(2, 2, 2, padding="same"),
            "padding",
            1,
            "Conv2d.padding is decided when",
        ),
        (lambda: nn.Conv2d(2, 2, 2, padding="same"), "dilation", 2, "Conv2d.dilation is decided"),
    ],
)
def test_an_attribute_that_a_layer_would_not_read(
    make: Callable[[], Any], name: str, value: object, message: str
) -> None:
    layer = make()
    before = dict(vars(layer))
    with pytest.raises(AttributeError, match=message):
        setattr(layer, name, value)
    assert vars(layer) == before


@pytest.mark.parametrize(
    ("make", "name", "value", "message"),
    [
        (lambda: nn.LSTM(3, 2), "dropout", 0.5, "LSTM.dropout is a module, Dropout, and no number"),
        (lambda: nn.Linear(2, 2), "bias", False, "Linear.bias is a parameter, which bool would"),
        (lambda: nn.Linear(2, 2), "weight", 0.5, "Linear.weight is a parameter, which float would"),
    ],
)
def test_a_number_is_no_part_of_a_model(
    make: Callable[[], Any], name: str, value: object, message: str
) -> None:
    layer = make()
    with pytest.raises(TypeError, match=message):
        setattr(layer, name, value)


def test_attributes_that_a_layer_reads_or_a_user_adds() -> None:
    layer: Any = nn.Conv2d(2, 2, 3)
    layer.stride, layer.dilation, layer.padding = (2, 2), (2, 2), (2, 2)
    assert layer(zeros((1, 2, 9, 9))).shape == (1, 2, 5, 5)
    layer.bias = None
    layer.tag = "first"
    assert (layer.bias, layer.tag, len(layer.parameters())) == (None, "first", 1)

    class Wide(nn.Linear):
        def __init__(self) -> None:
            self.units = 3
            super().__init__(2, self.units)

    assert Wide().units == 3
