"""`backward`: what it refuses, what it frees, and what it leaves unchanged."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from rumus.tensor import (
    Arena,
    Backend,
    GradientStore,
    GraphError,
    ModifiedTensorError,
    NumpyBackend,
    Parameter,
    Tensor,
    float32,
    no_grad,
    relu,
    softmax,
    tensor,
)


@pytest.fixture
def weight(backend: Backend) -> Parameter:
    return Parameter([1.0, -2.0, 3.0], name="weight", backend=backend)


REFUSED: list[tuple[str, Callable[[Parameter], Tensor], str]] = [
    ("not a scalar", lambda w: w * 2, r"starts at a scalar; this tensor has shape \(3,\)"),
    ("integer", lambda w: tensor(3, backend=w.backend), "floating scalar; this one is int32"),
    ("no graph", lambda w: tensor(3.0, backend=w.backend), "does not depend on any parameter"),
    ("detached", lambda w: w.sum().detach(), "does not depend on any parameter"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_refused_backward_calls(
    case: tuple[str, Callable[[Parameter], Tensor], str], weight: Parameter
) -> None:
    _, make, message = case
    store = (weight * weight).sum().backward()
    before = store[weight].tolist()
    with pytest.raises(GraphError, match=message):
        make(weight).backward(into=store)
    assert store[weight].tolist() == before


def test_backward_twice(weight: Parameter) -> None:
    shared = weight.exp()
    first, second = shared.sum(), (shared * 2).sum()
    first.backward()
    for used in (first, second):
        store = GradientStore()
        with pytest.raises(GraphError, match=r"already run through this graph \(at '.*'\)"):
            used.backward(into=store)
        assert len(store) == 0


CHANGES: list[tuple[str, Callable[[Parameter, Tensor], object], str]] = [
    ("assign", lambda w, x: w.assign(0.0), "parameter 'weight' was changed in place"),
    ("element", lambda w, x: w.__setitem__(0, 5.0), "parameter 'weight' was changed"),
    ("view of it", lambda w, x: w.detach()[1:].assign(0.0), "parameter 'weight' was changed"),
    ("input", lambda w, x: x.assign(0.0), r"a tensor of shape \(3,\) was changed"),
    ("view of input", lambda w, x: x.reshape(3, 1)[1].assign(1.0), r"a tensor of shape \(3,\)"),
    ("move", lambda w, x: w.move(NumpyBackend()), "parameter 'weight' was changed"),
]


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case[0])
def test_changes_between_forward_and_backward(
    case: tuple[str, Callable[[Parameter, Tensor], object], str], weight: Parameter
) -> None:
    _, change, message = case
    x = tensor([1.0, 2.0, 3.0], backend=weight.backend)
    loss = (weight * x).sum()
    store = GradientStore()
    change(weight, x)
    with pytest.raises(ModifiedTensorError, match=message):
        loss.backward(into=store)
    assert len(store) == 0


@pytest.mark.parametrize("function", [softmax, lambda w: w.log_softmax(), lambda w: w.max(0)])
def test_a_changed_result_that_backward_reads(
    function: Callable[[Tensor], Tensor], weight: Parameter
) -> None:
    result = function(weight)
    loss = (result * 2).sum()
    result.detach().assign(0.5)
    with pytest.raises(ModifiedTensorError):
        loss.backward()


def test_a_parameter_changed_that_is_only_added_is_an_error_too(weight: Parameter) -> None:
    loss = (weight + 1).sum()
    weight.assign(0.0)
    with pytest.raises(ModifiedTensorError):
        loss.backward()


def test_an_arena_written_makes_graphs_stale_and_moving_in_and_out_does_not(
    weight: Parameter,
) -> None:
    loss = (weight * 2).sum()
    arena = Arena([weight], float32, weight.backend)
    arena.adopt()
    assert loss.backward()[weight].tolist() == [2.0, 2.0, 2.0]
    loss = (weight * 2).sum()
    arena.release()
    assert loss.backward()[weight].tolist() == [2.0, 2.0, 2.0]
    arena.adopt()
    loss = (weight * 2).sum()
    arena.written()
    with pytest.raises(ModifiedTensorError, match="'weight'"):
        loss.backward()


def test_results_on_the_tape_are_not_changed_in_place(weight: Parameter) -> None:
    result = weight * 2
    with pytest.raises(GraphError, match="cannot be changed in place"):
        result[0] = 1.0
    with pytest.raises(GraphError, match="cannot be changed in place"):
        weight[1:].assign(0.0)
    assert weight.tolist() == [1.0, -2.0, 3.0]


def test_no_grad(weight: Parameter) -> None:
    with no_grad():
        assert not (weight * 2).requires_grad
        with no_grad():
            pass
        assert not (weight * 2).requires_grad
        weight[0] = 4.0
    assert (weight * 2).requires_grad
    assert not no_grad()(lambda: weight * 2)().requires_grad


def test_no_grad_ends_with_an_error(weight: Parameter) -> None:
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (weight * 2).requires_grad


def test_no_grad_belongs_to_its_thread(weight: Parameter) -> None:
    seen: list[bool] = []
    with no_grad():
        worker = threading.Thread(target=lambda: seen.append((weight * 2).requires_grad))
        worker.start()
        worker.join()
    assert seen == [True]


def test_frozen_parameters_get_nothing(weight: Parameter) -> None:
    frozen = Parameter([2.0], name="frozen", backend=weight.backend, requires_grad=False)
    store = (weight * frozen).sum().backward()
    assert list(store) == [weight] or [p.name for p in store] == ["weight"]
    assert not (frozen * 2).requires_grad


def test_a_parameter_is_its_own_loss(backend: Backend) -> None:
    weight = Parameter(2.0, backend=backend)
    assert weight.backward()[weight].item() == 1.0


def test_a_deep_graph_needs_no_recursion(backend: Backend) -> None:
    depth = 10 * sys.getrecursionlimit()
    weight = Parameter(1.0, backend=backend)
    x: Tensor = weight
    for _ in range(depth):
        x = x + weight
    assert x.backward()[weight].item() == depth + 1
    for _ in range(depth):
        x = x + weight
    del x  # forgetting one does not either


def test_a_diamond_is_visited_once(weight: Parameter) -> None:
    x: Tensor = weight
    for _ in range(40):  # 2**40 paths
        x = x * 0.5 + x * 0.5
    assert x.sum().backward()[weight].tolist() == [1.0, 1.0, 1.0]


class Remembering(NumpyBackend):
    """Keeps weak references to each array that it allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.arrays: list[weakref.ref[np.ndarray]] = []

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        array = np.empty(shape, dtype)
        self.arrays.append(weakref.ref(array))
        return array


def test_backward_frees_intermediates() -> None:
    backend = Remembering()
    weight = Parameter(np.ones(10), backend=backend)
    loss = relu(weight * 2).exp().softmax().sum()
    gc.disable()
    try:
        alive = sum(array() is not None for array in backend.arrays)
        grads = loss.backward()
        left = sum(array() is not None for array in backend.arrays)
    finally:
        gc.enable()
    assert alive >= 4
    assert left == 2  # the loss and the gradient
    assert len(grads) == 1


def test_a_failing_operation_leaves_the_store(weight: Parameter) -> None:
    store = (weight * 2).sum().backward()

    class Failing(NumpyBackend):
        def download(self, array: np.ndarray) -> np.ndarray:
            raise RuntimeError("lost")

    elsewhere = Failing()
    loss = weight.to(elsewhere).sum()
    with pytest.raises(RuntimeError, match="lost"):
        loss.backward(into=store)
    assert store[weight].tolist() == [2.0, 2.0, 2.0]


def test_copies_of_a_model_keep_ties(weight: Parameter) -> None:
    first, second = copy.deepcopy([weight, weight])
    assert first is second
    assert first is not weight
    assert (first.name, first.tolist()) == ("weight", weight.tolist())
    assert first.id != weight.id
    first.assign(0.0)
    assert weight.tolist() == [1.0, -2.0, 3.0]
