"""Random numbers of PyTorch in a loss: what repeats them, and what says that nothing would."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from captured_number import check_is_not_captured, spellings

from rumus import nn
from rumus.gpu import GpuBackend
from rumus.optim import SGD
from rumus.tensor import Generator, GraphError, NumpyBackend, Parameter
from rumus.tensor.memory.recording import Capturing
from rumus.train import ArrayDataset, Checkpoints, DataLoader, Trainer, find_lr
from rumus.train.base.random_sources import restore_program, states_of_program

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)

# Random numbers that are others in each training, so that no two of them have the same bits.

Draw = Callable[[], float]


def random_of_torch() -> Draw:
    return lambda: torch.rand(1).item()


def random_function_of_torch() -> Draw:
    draw = torch.randn
    return lambda: float(draw(1))


def random_method_of_torch() -> Draw:
    return lambda: float(torch.empty(1).uniform_())


def random_method_of_a_tensor_of_torch() -> Draw:
    values = torch.zeros(1)
    return lambda: float(values.normal_())


def random_array_of_torch() -> Draw:
    return lambda: float(torch.rand(2).numpy()[0])


def random_layer_of_torch() -> Draw:
    layer = torch.nn.Dropout()
    return lambda: float(layer(torch.ones(64)).sum())


def random_function_of_torch_in_python() -> Draw:
    return lambda: float(torch.nn.functional.dropout(torch.ones(64)).sum())


def random_generator_of_torch() -> Draw:
    generator = torch.Generator().manual_seed(5)
    return lambda: float(torch.rand(1, generator=generator))


DRAWN: Final = spellings(globals(), "Draw")


@pytest.fixture(scope="module", params=[NumpyBackend, GpuBackend])
def device(request: pytest.FixtureRequest) -> Capturing:
    found: Capturing = request.param()
    return found


@pytest.mark.parametrize("spelling", DRAWN, ids=lambda f: f.__name__)
def test_random_numbers_of_torch_are_not_captured(
    spelling: Callable[[], Draw], device: Capturing
) -> None:
    check_is_not_captured(spelling(), device)


def training(draw: Draw) -> tuple[Trainer[Any], Callable[[Any], Any], DataLoader]:
    """A trainer, a loss that is multiplied by a number, and its data."""
    model = nn.Linear(4, 1, generator=Generator(0))
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
    return trainer, lambda x: (model(x) * draw()).mean(), DataLoader(ArrayDataset(X), 4)


@pytest.mark.parametrize(
    "draw", [random_array_of_torch(), random_function_of_torch_in_python()], ids=["rand", "dropout"]
)
def test_a_run_that_draws_from_torch_resumes(draw: Draw, tmp_path: Path) -> None:
    def run(epochs: int, folder: Path | None) -> list[Any]:
        torch.manual_seed(3)
        trainer, loss_fn, loader = training(draw)
        saved = None if folder is None else Checkpoints(folder)
        is_resumed = folder is not None and "auto"
        trainer.fit(
            loader, loss_fn, epochs=epochs, checkpoints=saved, resume=is_resumed,
            validate=(DataLoader(ArrayDataset(X), 4), lambda x: {"drawn": float(draw())}),
        )  # fmt: skip
        return [p.tolist() for _, p in trainer.optimizer.named_parameters()]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = run(4, None)
        run(2, tmp_path)
        assert run(4, tmp_path) == whole


def test_draws_in_a_trial_are_taken_back() -> None:
    torch.manual_seed(3)
    trainer, loss_fn, loader = training(random_of_torch())
    before = torch.get_rng_state()
    find_lr(trainer, loader, loss_fn)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_that_torch_cannot_have_is_refused() -> None:
    states = states_of_program()
    with pytest.raises(ValueError, match="the state of torch's generator does not fit"):
        restore_program({**states, "torch": "00" * 8})


class Device:
    """As `torch.cuda` with so many GPUs."""

    def __init__(self, gpus: int) -> None:
        self.states = [torch.full((4,), n, dtype=torch.uint8) for n in range(gpus)]

    def is_initialized(self) -> bool:
        return bool(self.states)

    def device_count(self) -> int:
        return len(self.states)

    def get_rng_state_all(self) -> list[Any]:
        return [state.clone() for state in self.states]

    def set_rng_state(self, state: Any, device: int) -> None:
        self.states[device] = state


@pytest.mark.parametrize("name", ["cuda", "xpu"])
def test_generators_of_gpus_of_torch_are_saved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, name, Device(2))
    states = json.loads(json.dumps(states_of_program()))
    for gpus, wanted in ((2, [0, 1]), (1, [0]), (3, [0, 1, 7]), (0, [])):
        there = Device(gpus)
        for state in there.states:
            state.fill_(7)
        monkeypatch.setattr(torch, name, there)
        restore_program(states)
        assert [int(state[0]) for state in there.states] == wanted


def test_draws_in_what_is_recomputed_are_refused() -> None:
    """On a GPU, whose results are not compared, nothing else would tell."""
    w = Parameter([1.0, 2.0], name="w", backend=GpuBackend())
    with pytest.raises(GraphError, match=r"draws from the generator .*rumus\.tensor\.Generator"):
        nn.checkpoint(lambda x: x * w * torch.rand(1).item(), w * 1.0)
