"""Notifications to a recording of a step, and what happens without one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.tensor import (
    Backend,
    CaptureError,
    Generator,
    GradientStore,
    NumpyBackend,
    Parameter,
    tensor,
    zeros,
)
from rumus.tensor.backends.numpy_notes import Known
from rumus.tensor.graph.indexing import may_hold
from rumus.tensor.graph.store import Refill
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import depends_on, is_capturing, live, recorded_by, refuse


class Notes:
    """Records everything that a recording is told."""

    def __init__(self) -> None:
        self.acts: list[Callable[[], None]] = []
        self.facts: list[tuple[object, str]] = []
        self.fed: list[Callable[[], NDArray[Any]]] = []
        self.decisions: list[tuple[int, bool]] = []

    def asked(self, question: Callable[..., Any], arrays: Sequence[Array]) -> Any:
        return question(*arrays)

    def decided(self, index: Array, number: int, may_hold: bool) -> None:
        self.decisions.append((number, may_hold))

    def feed(
        self, backend: Backend, make: Callable[[], NDArray[Any]], bounds: tuple[int, int] | None
    ) -> Array:
        self.fed.append(make)
        return backend.upload(make())

    def live(self, act: Callable[[], None]) -> None:
        self.acts.append(act)
        act()

    def depends_on(self, thing: object, attribute: str) -> None:
        self.facts.append((thing, attribute))

    def refuse(self, what: str) -> None:
        raise CaptureError(what)


def test_choices_by_the_numbers_of_an_index_are_recorded() -> None:
    notes = Notes()
    with recorded_by(notes):
        assert may_hold(tensor([1, 2]), 7)  # a host checks them where they are used
    assert notes.decisions == [(7, True)]


def test_without_a_recording_acts_run_and_nothing_is_refused() -> None:
    ran: list[int] = []
    live(lambda: ran.append(1))
    refuse("anything")
    depends_on(ran, "append")
    assert ran == [1]
    assert is_capturing(NumpyBackend())


def test_random_words_are_live(backend: Backend) -> None:
    notes, generator = Notes(), Generator(0)
    with recorded_by(notes):
        words = generator.words((6,), backend=backend)
    assert generator.position == 8
    first = words.tolist()
    for act in notes.acts:
        act()
    assert generator.position == 16
    again = Generator(0)
    assert [again.words((6,)).tolist() for _ in range(2)] == [first, words.tolist()]


DRAWS = {
    "uniform": lambda g: g.uniform((3,), 1.0, 2.0),
    "normal": lambda g: g.normal((2, 2)),
    "truncated_normal": lambda g: g.truncated_normal((3,), low=-0.5, high=0.5),
    "integers": lambda g: g.integers(0, 9, (4,)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_of_the_host_are_drawn_again(name: str) -> None:
    notes, generator, again = Notes(), Generator(0), Generator(0)
    with recorded_by(notes):
        first = DRAWS[name](generator)
    assert first.tolist() == DRAWS[name](again).tolist()
    for make in notes.fed:
        assert make().tolist() == DRAWS[name](again).tolist()
    assert generator.position == again.position


def test_a_permutation_in_a_recorded_step_is_refused() -> None:
    generator = Generator(0)
    with recorded_by(Notes()), pytest.raises(CaptureError, match="on the host"):
        generator.permutation(3)
    assert generator.position == 0


def test_versions_are_live(backend: Backend) -> None:
    notes, x = Notes(), zeros((2,), backend=backend)
    with recorded_by(notes):
        x.assign(1.0)
    before = x._version.current
    for act in notes.acts:
        act()
    assert x._version.current == before + 1


def test_trainable_parameters_are_dependencies(backend: Backend) -> None:
    notes, w = Notes(), Parameter([1.0], name="w", backend=backend)
    with recorded_by(notes):
        (w * 2.0).sum()
    assert (w, "_trainable") in notes.facts


def test_a_recording_is_of_one_thread_and_ends() -> None:
    notes, ran = Notes(), list[int]()
    with recorded_by(notes):
        thread = threading.Thread(target=live, args=(lambda: ran.append(1),))
        thread.start()
        thread.join()
    live(lambda: ran.append(2))
    assert ran == [1, 2]
    assert notes.acts == []


def test_a_refill_gives_the_same_gradients_to_another_store(backend: Backend) -> None:
    a, b = (Parameter([1.0, 2.0], name=n, backend=backend) for n in "ab")
    store = (a * b).sum().backward()
    refill = Refill(store)
    assert not refill.is_free()  # nobody has taken these yet
    store.drain([a, b], "test")
    assert refill.is_free()
    for _ in range(2):
        other = refill.store()
        assert isinstance(other, GradientStore)
        assert other[a].tolist() == [1.0, 2.0]
        other.drain([a, b], "test")
        assert len(other) == 0
    assert len(refill.arrays) == 2
    assert tensor([1.0], backend=backend).item() == 1.0


def test_no_python_runs_while_an_array_is_freed() -> None:
    """There Python would swallow the error of a signal handler."""
    known, died = Known(), list[int]()
    known.add("own", first := np.ones(3))
    known.add("own", second := np.ones(3), died.append)
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(f"{event} {frame.f_code.co_name}"))
    del second
    sys.setprofile(None)
    assert [each for each in called if each.startswith("call ")] == []
    assert died == []
    assert known.holds(first)
    assert died == [1]
    assert not known.holds(np.ones(3))
