"""Saved states that do not fit: one documented error, and nothing is changed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.nn import Linear
from rumus.optim import LBFGS, AdamW, Plateau
from rumus.tensor import Generator, StateMismatchError, tensor
from rumus.train import (
    ArrayDataset,
    Checkpoints,
    DataLoader,
    RunFolder,
    StreamLoader,
    Trainer,
)
from rumus.train.base.position import Position
from rumus.train.base.random_sources import (
    restore_program,
    restore_state,
    state_of,
    states_of_program,
)

Ways = tuple[Callable[[], Any], Callable[[Any], Any]]


def of_optimizer(make: Any) -> Ways:
    model = Linear(2, 1)
    optimizer = make(model.parameters(), 0.1)
    x = tensor(np.ones((4, 2), np.float32))
    if isinstance(optimizer, LBFGS):
        optimizer.minimize_step(lambda: (model(x) * model(x)).sum())
    else:
        optimizer.step((model(x) * model(x)).sum().backward())
    return optimizer.state_dict, optimizer.load_state_dict


def of_random(thing: Any) -> Ways:
    return lambda: state_of(thing), lambda state: restore_state(thing, state)


def of_methods(thing: Any) -> Ways:
    return thing.state_dict, thing.load_state_dict


MAKE: dict[str, Callable[[Path], Ways]] = {
    "AdamW": lambda _: of_optimizer(AdamW),
    "LBFGS": lambda _: of_optimizer(LBFGS),
    "Generator": lambda _: of_random(Generator(1)),
    "Random": lambda _: of_random(random.Random(1)),
    "PCG64": lambda _: of_random(np.random.default_rng(1)),
    "RandomState": lambda _: of_random(np.random.RandomState(1)),
    "program": lambda _: (states_of_program, restore_program),
    "Plateau": lambda _: of_methods(Plateau(0.1)),
    "DataLoader": lambda _: of_methods(DataLoader(ArrayDataset(range(6)), 2, seed=1)),
    "StreamLoader": lambda _: of_methods(StreamLoader(range(6), 2, seed=1)),
    "RunFolder": lambda folder: of_methods(RunFolder(folder / "run")),
    "Position": lambda _: of_methods(Position()),
}


def edited(state: Any) -> Iterator[Any]:
    """Copies of a state, each without one of its names, or with one too many, at any depth."""
    if not isinstance(state, Mapping):
        return
    yield {**state, "unheard-of": 1}
    for name, value in state.items():
        yield {key: each for key, each in state.items() if key != name}
        yield from ({**state, name: inner} for inner in edited(value))


@pytest.mark.parametrize("kind", MAKE)
def test_other_names_do_not_fit(kind: str, tmp_path: Path) -> None:
    get, put = MAKE[kind](tmp_path)
    state = copy.deepcopy(get())
    for other in edited(state):
        if kind == "Position" and "unheard-of" not in str(other):
            continue  # what is missing was not saved by an older version
        if kind == "Plateau" and "mode" not in other:
            continue
        if kind == "Position" and other.keys() == state.keys():
            continue  # what is in its dicts has names of its own
        with pytest.raises(StateMismatchError):
            put(other)
        assert repr(get()) == repr(state)
    put(state)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("state", [3, [], "text"])
def test_what_is_no_state(kind: str, state: Any, tmp_path: Path) -> None:
    get, put = MAKE[kind](tmp_path)
    before = copy.deepcopy(get())
    if kind == "program" and not state:
        return  # no states of the program were saved
    with pytest.raises((StateMismatchError, TypeError), match="must be a dict"):
        put(state)
    assert repr(get()) == repr(before)


@pytest.mark.parametrize("kind", ["AdamW", "LBFGS", "Random", "PCG64", "RandomState", "program"])
def test_values_of_another_kind_do_not_fit(kind: str, tmp_path: Path) -> None:
    get, put = MAKE[kind](tmp_path)
    before = copy.deepcopy(get())

    def with_arrays(state: Any) -> Iterator[Any]:
        for name, value in state.items():
            yield {**state, name: np.zeros(3)}
            if isinstance(value, Mapping):
                yield from ({**state, name: inner} for inner in with_arrays(value))

    for other in with_arrays(before):
        with pytest.raises(StateMismatchError):
            put(other)
        assert repr(get()) == repr(before)


def test_a_program_gets_all_of_its_random_states_or_none() -> None:
    """A checkpoint whose last state does not fit has changed neither the first one nor a weight."""
    before = copy.deepcopy(states_of_program())
    random.random()
    np.random.normal()
    other = states_of_program()
    restore_program(before)
    for wrong in ({"state": {"key": "00", "pos": 1}}, {"bit_generator": "PCG64"}, {"gauss": "x"}):
        with pytest.raises(ValueError, match=r"."):
            restore_program({**other, "numpy": {**other["numpy"], **wrong}})
        assert states_of_program() == before


def test_a_checkpoint_whose_random_states_do_not_fit_changes_nothing(tmp_path: Path) -> None:
    model = Linear(2, 1)
    trainer = Trainer(AdamW(model.parameters(), 0.1), state={"model": model})
    data = [(np.ones((4, 2), np.float32),)]
    loss = lambda x: (model(x) * model(x)).sum()
    trainer.fit(data, loss, epochs=2, checkpoints=tmp_path)
    store = Checkpoints(tmp_path)
    saved = store.load()
    saved.state["position"]["random"]["numpy"]["bit_generator"] = "PCG64"
    store.save(9, saved.state)
    store.close()
    trainer.train_step(loss, *data[0])
    before = model.weight.numpy().copy(), states_of_program()
    with pytest.raises(StateMismatchError, match=r"nothing was loaded:\n  position: .*PCG64"):
        trainer.fit(data, loss, epochs=3, checkpoints=tmp_path, resume=True)
    np.testing.assert_array_equal(model.weight.numpy(), before[0])
    assert states_of_program() == before[1]
