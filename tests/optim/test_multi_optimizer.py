"""Several optimizers as one: each does what it does alone, and the laws hold for all together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import (
    EMA,
    SAM,
    SGD,
    Adafactor,
    AdamW,
    ClipNorm,
    LossScale,
    MultiOptimizer,
    Muon,
    load_state,
    save_state,
)
from rumus.tensor import (
    Backend,
    GradientStore,
    MissingGradientError,
    NonFiniteGradientError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    StateMismatchError,
    move_parameters,
    tensor,
)


def parameters(backend: Backend) -> dict[str, Parameter]:
    draw = np.random.default_rng(1)
    shapes = {"w": (4, 3), "v": (3, 4), "b": (5,), "table": (6, 2)}
    return {n: Parameter(draw.normal(size=s), name=n, backend=backend) for n, s in shapes.items()}


def made(backend: Backend, **options: Any) -> list[Any]:
    p = parameters(backend)
    return [
        Muon([p["w"], p["v"]], 0.1, **options),
        AdamW([p["b"]], 0.1, clip=ClipNorm(0.5), **options),
        Adafactor([p["table"]], 0.1, **options),
    ]


def gradients(optimizers: list[Any], t: int, **spoiled: float) -> GradientStore:
    grads = GradientStore()
    for p in (p for each in optimizers for p in each.parameters):
        g = np.random.default_rng([t, p.size]).normal(size=p.shape) * spoiled.get(p.name, 1.0)
        grads.accumulate(p, tensor(g, dtype=p.dtype, backend=p.backend))
    return grads


def bits(optimizers: list[Any]) -> list[bytes]:
    found = []
    for each in optimizers:
        for name, entry in each.state_dict()["parameters"].items():
            found += [entry["state"][part].tobytes() for part in sorted(entry["state"])]
            found.append(dict(each.named_parameters())[name].numpy().tobytes())
            found.append(bytes(entry["steps"]))
    return found


def test_each_behaves_as_it_does_alone(backend: Backend) -> None:
    apart, parts = made(backend), made(backend)
    together = MultiOptimizer(parts)
    for t in range(4):
        grads = gradients(apart, t)
        for each in apart:
            each.step(grads)
        store = gradients(parts, t)
        together.step(store)
        assert len(store) == 0
    assert bits(parts) == bits(apart)
    assert [each.steps for each in (together, *parts)] == [4] * 4
    assert sum(each.memory().total for each in apart) == together.memory().total


@pytest.mark.parametrize("name", ["w", "b", "table"])
def test_a_bad_gradient_of_one_stops_all(name: str, backend: Backend) -> None:
    parts = made(backend, nonfinite="skip")
    together = MultiOptimizer(parts)
    together.step(gradients(parts, 0))
    before = bits(parts)
    together.step(gradients(parts, 1, **{name: float("nan")}))
    assert (together.steps, together.skipped, together.blamed) == (1, 1, (name,))
    assert bits(parts) == before
    assert [each.skipped for each in parts] == [1, 1, 1]


def test_an_error_changes_nothing(backend: Backend) -> None:
    parts = made(backend)
    together = MultiOptimizer(parts)
    together.step(gradients(parts, 0))
    before = bits(parts)
    incomplete = gradients(parts[:2], 1)
    with pytest.raises(MissingGradientError, match="table"):
        together.step(incomplete)
    assert len(incomplete) == 3

    def bad_step() -> None:
        together.step(gradients(parts, 1, table=float("inf")))
        together.poll(wait=True)  # where a device decides

    with pytest.raises(NonFiniteGradientError, match="table"):
        bad_step()
    assert bits(parts) == before


def test_the_state_is_one_file_and_a_run_resumes(tmp_path: Path, backend: Backend) -> None:
    wanted, first = made(backend), made(backend)
    whole, together = MultiOptimizer(wanted), MultiOptimizer(first)
    for t in range(4):
        whole.step(gradients(wanted, t))
    for t in range(2):
        together.step(gradients(first, t))
    save_state(together, tmp_path / "state.safetensors")
    second = made(backend)
    for p, q in zip(sum((e.parameters for e in second), ()), together.parameters, strict=True):
        backend.copy(q._array, p._array)
    resumed = MultiOptimizer(second)
    load_state(resumed, tmp_path / "state.safetensors")
    assert (resumed.steps, second[1].steps) == (2, 2)
    for t in (2, 3):
        resumed.step(gradients(second, t))
    assert bits(second) == bits(wanted)


def test_a_state_that_does_not_fit_is_not_loaded() -> None:
    parts = made(NumpyBackend())
    state = MultiOptimizer(parts).state_dict()
    assert state["kind"] == "Muon+AdamW+Adafactor"
    others = made(NumpyBackend())
    with pytest.raises(StateMismatchError, match=r"kind: saved Muon\+AdamW\+Adafactor") as raised:
        MultiOptimizer(others[:2]).load_state_dict(state)
    assert "'table': saved, not here" in str(raised.value)


def test_a_move_keeps_everything() -> None:
    wanted, parts = made(NumpyBackend()), made(NumpyBackend())
    whole, together = MultiOptimizer(wanted), MultiOptimizer(parts)
    other = NumpyBackend()
    for t in range(4):
        whole.step(gradients(wanted, t))
        if t == 2:
            move_parameters(list(together.parameters), other)
        together.step(gradients(parts, t))
    assert all(p.backend is other for p in together.parameters)
    assert bits(parts) == bits(wanted)


def test_settings_of_one_take_effect(backend: Backend) -> None:
    """Including a decay, which needs another kernel."""
    apart, parts = (
        [SGD([p["w"]], 0.1, momentum=0.9), SGD([p["b"]], 0.1)]
        for p in (parameters(backend), parameters(backend))
    )
    together = MultiOptimizer(parts)
    decaying: Any = lambda t: 0.1 / t
    changes: list[dict[str, Any]] = [{}, {"lr": 0.5}, {"weight_decay": 0.5}, {"lr": decaying}]
    for t, hyper in enumerate(changes):
        for own in (apart, parts):
            own[1].set(**hyper)
        grads = gradients(apart, t)
        for each in apart:
            each.step(grads)
        together.step(gradients(parts, t))
    assert bits(parts) == bits(apart)


def test_one_loss_scale_for_all(backend: Backend) -> None:
    plain, parts = made(backend), made(backend)
    whole, together = MultiOptimizer(plain), MultiOptimizer(parts)
    scaling = together.scale_losses(LossScale(initial=2.0**8, every=2))
    for t in range(4):
        whole.step(gradients(plain, t))
        scale = scaling.on(backend).item()
        together.step(gradients(parts, t, **dict.fromkeys(("w", "v", "b", "table"), scale)))
    assert scaling.on(backend).item() == 2.0**10
    assert bits(parts) == bits(plain)


def test_averages_of_those_that_keep_one(backend: Backend) -> None:
    p = parameters(backend)
    parts = [AdamW([p["w"]], 0.1, average=EMA(0.5)), SGD([p["b"]], 0.1)]
    together = MultiOptimizer(parts)
    for t in range(2):
        together.step(gradients(parts, t))
    before = [p["w"].numpy(), p["b"].numpy()]
    with together.eval_params():
        assert (p["w"].numpy() != before[0]).any()
        assert (p["b"].numpy() == before[1]).all()
        with pytest.raises(OwnershipError, match="inside eval_params"):
            together.step(gradients(parts, 2))
    assert (p["w"].numpy() == before[0]).all()
    with (
        pytest.raises(ValueError, match="keeps no average"),
        MultiOptimizer([SGD([q]) for q in list(parameters(backend).values())[:2]]).eval_params(),
    ):
        pass


def test_they_cannot_act_alone_until_released() -> None:
    parts = made(NumpyBackend())
    together = MultiOptimizer(parts)
    grads = gradients(parts, 0)
    for act in (lambda: parts[1].step(grads), parts[1].release):
        with pytest.raises(OwnershipError, match=r"AdamW.* is part of MultiOptimizer"):
            act()
    assert len(grads) == 4
    owned = parts[1].parameters
    assert owned[0].owner is together
    together.release()
    assert owned[0].owner is None
    assert SGD(owned, 0.1).parameters == owned
    with pytest.raises(OwnershipError, match="was released"):
        together.step(grads)


def test_optimizers_that_cannot_step_together() -> None:
    p = parameters(NumpyBackend())
    first, second = SGD([p["w"]]), SGD([p["b"]], nonfinite="skip")
    wrapped: Any = SAM(SGD([p["v"]]))
    with pytest.raises(TypeError, match="takes rule-based optimizers"):
        MultiOptimizer([first, wrapped])
    with pytest.raises(ValueError, match="two or more optimizers, not 1"):
        MultiOptimizer([first])
    with pytest.raises(ValueError, match="nonfinite: raise, skip"):
        MultiOptimizer([first, second])
    with pytest.raises(OwnershipError, match="given twice"):
        MultiOptimizer([first, first])
    third = AdamW([p["table"]])
    MultiOptimizer([first, third])
    with pytest.raises(OwnershipError, match="already part of MultiOptimizer"):
        MultiOptimizer([first, third])
