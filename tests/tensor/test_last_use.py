"""A gradient overwrites only arrays that nothing else references."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Tensor,
    cross_entropy,
    float16,
    float32,
    linear,
    tensor,
)
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.last_use import Kept

ROWS, CLASSES, WIDTH = 70, 300, 4
held: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    yield
    held.clear()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The answers to each operation that asked whether it may reuse its array."""
    found: list[bool] = []
    take = Kept.take

    def noted(self: Kept, backend: Backend) -> tuple[Array, bool]:
        array, is_free = take(self, backend)
        found.append(is_free)
        return array, is_free

    monkeypatch.setattr(Kept, "take", noted)
    return found


def plain(logits: Tensor) -> Tensor:
    return logits


def as_batch(logits: Tensor) -> Tensor:
    return logits.reshape(7, 10, CLASSES).reshape(ROWS, CLASSES)


def holding(what: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def hold(logits: Tensor) -> Tensor:
        held.append(what(logits))
        return logits

    return hold


NOBODY = {
    "nobody": plain,
    "views that are gone": as_batch,
    "a copy": holding(lambda logits: logits.detach().clone()),
    "NumPy's copy": holding(Tensor.numpy),
    "a result of theirs": holding(lambda logits: logits.sum()),
}
SOMEBODY = {
    "a variable": holding(lambda logits: logits),
    "a detached tensor": holding(Tensor.detach),
    "a view": holding(lambda logits: logits[3:, :2]),
    "a transposed view": holding(lambda logits: logits.detach().T),
    "an operation that reads them": holding(lambda logits: logits * logits),
    "an operation that made them": lambda logits: logits.softmax(),
    "nobody, but columns lie dense": lambda logits: logits.T.clone().T,
}


def gradients(backend: Backend, use: Callable[[Tensor], Tensor], dtype: Any = float32) -> Any:
    """The gradients of a weight and an input behind logits that are used in some way."""
    generator = Generator(3)
    weight = Parameter(generator.normal((CLASSES, WIDTH)), backend=backend, dtype=dtype)
    x = Parameter(generator.normal((ROWS, WIDTH)), backend=backend, dtype=dtype)
    targets = tensor(np.arange(ROWS) * 7 % CLASSES, backend=backend)
    loss = cross_entropy(use(linear(x, weight)), targets, 0.1).mean()
    before = [t.numpy() for t in held if isinstance(t, Tensor)]
    grads = loss.backward()
    for old, now in zip(before, (t for t in held if isinstance(t, Tensor)), strict=True):
        np.testing.assert_array_equal(now.numpy(), old)
    return grads[weight].numpy(), grads[x].numpy()


@pytest.mark.parametrize("dtype", [float32, float16])
@pytest.mark.parametrize("name", NOBODY)
def test_unreferenced_logits_become_their_gradient(
    name: str, dtype: Any, backend: Backend, answers: list[bool]
) -> None:
    found = gradients(backend, NOBODY[name], dtype)
    wanted = gradients(backend, SOMEBODY["a variable"], dtype)
    assert answers == [True, False]
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", SOMEBODY)
def test_logits_held_elsewhere_stay(name: str, backend: Backend, answers: list[bool]) -> None:
    gradients(backend, SOMEBODY[name])
    assert answers == [False]


def test_logits_that_a_later_backward_needs_stay(backend: Backend, answers: list[bool]) -> None:
    w = Parameter(np.linspace(-1, 1, 12).reshape(3, 4), backend=backend)
    targets = tensor([0, 2, 3], backend=backend)

    def both(first: bool, second: bool) -> Any:
        logits = w * 2.0
        parts = [(logits * logits).sum()] if first else []
        parts += [cross_entropy(logits, targets).sum()] if second else []
        total = sum(parts[1:], parts[0])
        del logits, parts
        return total.backward()[w].numpy()

    together = both(True, True)
    np.testing.assert_allclose(together, both(True, False) + both(False, True), rtol=1e-6)
    assert answers == [False, True]  # alone, nobody needs them


def test_logits_that_are_a_parameter_stay(backend: Backend, answers: list[bool]) -> None:
    logits = Parameter([[1.0, 2.0], [3.0, 5.0]], backend=backend)
    cross_entropy(logits, tensor([0, 1], backend=backend)).sum().backward()
    assert logits.tolist() == [[1.0, 2.0], [3.0, 5.0]]
    assert answers == [False]


def test_logits_changed_through_a_view_are_an_error(backend: Backend) -> None:
    w = Parameter([[1.0, 2.0]], backend=backend)
    logits = w * 1.0
    loss = cross_entropy(logits, tensor([0], backend=backend)).sum()
    logits.detach()[0, 0] = 5.0
    with pytest.raises(RuntimeError, match="changed in place after 'cross_entropy' used it"):
        loss.backward()


def test_a_repeated_row_is_not_written(backend: Backend) -> None:
    w = Parameter([1.0, 3.0], backend=backend)
    targets = tensor([0, 1], backend=backend)
    grads = cross_entropy((w * 1.0).broadcast_to((2, 2)), targets).sum().backward()
    p = np.exp([1.0, 3.0]) / np.exp([1.0, 3.0]).sum()
    np.testing.assert_allclose(grads[w].numpy(), 2 * p - 1, rtol=1e-5)


def local_of_a_caller(array: Array, backend: Backend) -> bool:
    return Kept(array).take(backend)[1]


def waiting(array: Array) -> abc.Generator[Array, None, None]:
    yield array


HOLDERS: dict[str, Callable[[Array], Any]] = {
    "a tuple": lambda array: (1, array),
    "a closure": lambda array: lambda: array,
    "an argument": lambda array: partial(print, array),
    "a view of a view": lambda array: array[1:].reshape((-1,))[:2],
    "a bound method": lambda array: array.reshape,
    "a cycle": lambda array: cycle(array),
    "a traceback": lambda array: raised(array),
}


def cycle(array: Array) -> list[Any]:
    found = [array]
    found.append(found)
    return found


def raised(array: Array) -> Exception:
    try:
        raise KeyError("kept")
    except KeyError as error:
        return error


@pytest.mark.parametrize("name", HOLDERS)
def test_references_to_an_array(name: str, backend: Backend) -> None:
    kept = Kept(backend.allocate((4, 3), np.dtype(np.float32)))
    assert kept.take(backend)[1]
    kept = Kept(backend.allocate((4, 3), np.dtype(np.float32)))
    held.append(HOLDERS[name](kept._box[0]))
    assert not kept.take(backend)[1]


def test_suspended_references_to_an_array(backend: Backend) -> None:
    """A caller's variable, a suspended generator, or another thread in the middle of a call."""
    array = backend.allocate((4, 3), np.dtype(np.float32))
    assert not local_of_a_caller(array, backend)
    generator, kept = waiting(array), Kept(array)
    next(generator)
    del array
    assert not kept.take(backend)[1]
    generator.close()
    inside, leave = Event(), Event()

    def hold(_: Array) -> None:
        inside.set()
        leave.wait(10)

    kept = Kept(backend.allocate((4, 3), np.dtype(np.float32)))
    thread = Thread(target=hold, args=(kept._box[0],))
    thread.start()
    assert inside.wait(10)
    assert not kept.take(backend)[1]
    leave.set()
    thread.join()
