"""Every optimizer of the table with every common option."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import ROWS

from rumus.optim import (
    AGC,
    EMA,
    AdaGC,
    AveragingOptimizer,
    ClipNorm,
    ClipValue,
    FusedOptimizer,
    LossScale,
    ZClip,
    clip_grad_norm,
    clip_grad_value,
)
from rumus.tensor import (
    Backend,
    DType,
    GradientStore,
    NumpyBackend,
    Parameter,
    float16,
    float32,
    tensor,
)

NUMPY: Final = NumpyBackend()
SHAPES: Final = {"w": (6, 5), "kernel": (3, 2, 2, 2), "b": (7,), "tall": (9, 2)}
CLIPS: Final = {
    "norm": ClipNorm(0.5),
    "tensor": ClipNorm(0.5, per="tensor"),
    "value": ClipValue(0.1),
    "AGC": AGC(0.05),
    "ZClip": ZClip(z_thresh=0.1, warmup_steps=2),
    "AdaGC": AdaGC(warmup_steps=2),
}
PACKED: Final = [n for n, row in ROWS.items() if row.kind.packs_state and n != "SGD"]


def parameters(backend: Backend = NUMPY, dtype: DType = float32) -> list[Parameter]:
    draw = np.random.default_rng(2)
    return [
        Parameter(draw.normal(size=s).astype(np.float16), dtype=dtype, name=n, backend=backend)
        for n, s in SHAPES.items()
    ]


def gradients(owned: list[Parameter], t: int, factor: float = 1.0) -> GradientStore:
    grads = GradientStore()
    for p in owned:
        draw = np.random.default_rng([t, p.size])
        g = (draw.normal(size=p.shape) * 0.25).astype(np.float16).astype(np.float32) * factor
        grads.accumulate(p, tensor(g, dtype=p.dtype, backend=p.backend))
    return grads


def stepped(
    name: str, steps: int = 4, factor: float = 1.0, dtype: DType = float32, **options: Any
) -> FusedOptimizer[Any]:
    """An optimizer of the table after some steps on NumPy."""
    optimizer = ROWS[name](parameters(dtype=dtype), **options)
    for t in range(steps):
        optimizer.step(gradients(list(optimizer.parameters), t, factor))
    return optimizer


def bits(optimizer: FusedOptimizer[Any]) -> list[bytes]:
    """Its parameters and its state."""
    saved = optimizer.state_dict()["parameters"]
    parts = [saved[name]["state"] for name in saved]
    return [
        *(p.numpy().tobytes() for p in optimizer.parameters),
        *(part[key].tobytes() for part in parts for key in sorted(part)),
    ]


def values(optimizer: FusedOptimizer[Any]) -> list[NDArray[Any]]:
    return [p.numpy() for p in optimizer.parameters]


def close(found: list[NDArray[Any]], wanted: list[NDArray[Any]], rtol: float = 1e-5) -> None:
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", ROWS)
def test_master_weights_are_trained_as_float32_is(name: str) -> None:
    plain = stepped(name)
    optimizer = stepped(name, dtype=float16, master_weights=True)
    for p, q in zip(optimizer.parameters, plain.parameters, strict=True):
        assert p.dtype == float16
        np.testing.assert_array_equal(p.numpy(), q.numpy().astype(np.float16))
        entry = optimizer.state_dict()["parameters"][p.name]["state"]
        assert entry["master"].tobytes() == q.numpy().tobytes()


@pytest.mark.parametrize("clip", [None, *CLIPS])
@pytest.mark.parametrize("name", ROWS)
def test_a_loss_scale_changes_no_bit(name: str, clip: str | None) -> None:
    options: dict[str, Any] = {} if clip is None else {"clip": CLIPS[clip]}
    plain = stepped(name, **options)
    scaled = ROWS[name](parameters(), **options)
    scaling = scaled.scale_losses(LossScale(initial=2.0**10, every=2))
    for t in range(4):
        scaled.step(gradients(list(scaled.parameters), t, scaling.scale))
    assert scaling.scale == 2.0**12
    assert bits(scaled) == bits(plain)


@pytest.mark.parametrize("name", ROWS)
def test_clipping_in_the_update_equals_clipping_first(name: str) -> None:
    """Bit for bit for single elements; a norm is summed in another order."""
    for clip in ("norm", "value"):
        within = stepped(name, clip=CLIPS[clip])
        before = ROWS[name](parameters())
        for t in range(4):
            grads = gradients(list(before.parameters), t)
            if clip == "norm":
                clip_grad_norm(grads, before, 0.5)
            else:
                clip_grad_value(grads, before, 0.1)
            before.step(grads)
        if clip == "value":
            assert bits(within) == bits(before)
        close(values(within), values(before), 1e-4)
        assert bits(within) != bits(stepped(name))


@pytest.mark.parametrize("name", ROWS)
def test_maximizing_is_minimizing_the_negative(name: str) -> None:
    assert bits(stepped(name, maximize=True)) == bits(stepped(name, factor=-1.0))


@pytest.mark.parametrize("name", ROWS)
def test_the_average_is_that_of_the_parameters(name: str) -> None:
    if issubclass(ROWS[name].kind, AveragingOptimizer):
        with pytest.raises(ValueError, match="average of its own"):
            ROWS[name](parameters(), average=EMA(0.9))
        return
    optimizer = ROWS[name](parameters(), average=EMA(0.9))
    wanted = [np.zeros_like(p.numpy()) for p in optimizer.parameters]
    for t in range(4):
        optimizer.step(gradients(list(optimizer.parameters), t))
        weight = 1.0 if t == 0 else 0.1
        wanted = [w + weight * (v - w) for w, v in zip(wanted, values(optimizer), strict=True)]
    assert bits(stepped(name))[: len(SHAPES)] == [v.tobytes() for v in values(optimizer)]
    with optimizer.eval_params():
        close(values(optimizer), wanted, 1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_a_refused_step_leaves_no_trace_and_a_saved_run_resumes(name: str) -> None:
    """With all options that work together, and a move to another backend in the middle."""
    has_average = issubclass(ROWS[name].kind, AveragingOptimizer)

    def options() -> dict[str, Any]:
        given: dict[str, Any] = {"master_weights": True, "compensated": True, "maximize": True}
        given |= {} if has_average else {"average": EMA(0.9)}
        return {**given, "clip": ClipNorm(0.5), "nonfinite": "skip"}

    wanted = stepped(name, 5, dtype=float16, **options())
    broken = ROWS[name](parameters(dtype=float16), **options())
    for t in range(3):
        broken.step(gradients(list(broken.parameters), t))
        broken.step(gradients(list(broken.parameters), 9, float("nan")))
    assert (broken.steps, broken.skipped) == (3, 3)
    broken.move(list(broken.parameters), NumpyBackend())
    again = [Parameter(p.numpy(), dtype=float16, name=p.name) for p in broken.parameters]
    resumed = ROWS[name](again, **options())
    resumed.load_state_dict(broken.state_dict())
    for t in (3, 4):
        resumed.step(gradients(list(resumed.parameters), t))
    assert bits(resumed) == bits(wanted)


@pytest.mark.parametrize("name", ROWS)
def test_memory_is_as_planned(name: str) -> None:
    clips = [dict[str, Any](), *({"clip": clip} for clip in CLIPS.values())]
    for options in (*clips, {"compensated": True, "clip": AGC(0.1)}):
        row = ROWS[name]
        planned = row.kind.planned_memory(parameters(), **{**row.form, **row.values, **options})
        assert planned == row(parameters(), **options).memory(), options
    halves = parameters(dtype=float16)
    given = {**row.form, **row.values, "master_weights": True}
    assert row.kind.planned_memory(halves, **given) == row.kind(halves, **given).memory()


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.is_elementwise])
def test_optimizers_of_whole_tensors_agree_on_every_backend(name: str, backend: Backend) -> None:
    """Elementwise optimizers are one kernel, which other tests compare with NumPy's."""
    for clip in CLIPS.values():
        options: dict[str, Any] = {"master_weights": True, "clip": clip, "compensated": True}
        if name == "SOAP":  # larger factors are singular, so rounding decides their basis
            options["max_precondition_dim"] = 6
        wanted = stepped(name, dtype=float16, average=EMA(0.9), **options)
        optimizer = ROWS[name](parameters(backend, float16), average=EMA(0.9), **options)
        scaling = optimizer.scale_losses(LossScale(initial=2.0**6))
        for t in range(4):
            optimizer.step(gradients(list(optimizer.parameters), t, scaling.scale))
        for own, other in zip(optimizer.parameters, wanted.parameters, strict=True):
            mine, its = (
                o.state_dict()["parameters"][p.name]["state"]
                for o, p in ((optimizer, own), (wanted, other))
            )
            for part, array in its.items():
                if part.startswith("Q_"):  # a direction has no sign
                    np.testing.assert_allclose(abs(mine[part]), abs(array), atol=1e-3)
                elif part != "compensation":
                    np.testing.assert_allclose(mine[part], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", PACKED)
def test_state_in_8_bits(name: str, backend: Backend) -> None:
    """Close to float32 after some steps, of the planned size, and unchanged by a refused step."""
    draw = np.random.default_rng(7)
    start = draw.normal(size=(70, 80)).astype(np.float32)
    target = tensor(draw.normal(size=(70, 80)), backend=backend)
    runs = []
    for options in ({}, {"state_dtype": "8bit", "clip": ClipNorm(1e3, per="tensor")}):
        w = Parameter(start, name="w", backend=backend)
        row = ROWS[name]
        optimizer = row([w], nonfinite="skip", **options)
        given = {**row.form, **row.values, **options}
        assert optimizer.memory() == row.kind.planned_memory([w], **given)
        for _ in range(5):
            optimizer.step(((w - target) ** 2).mean().backward())
            before = bits(optimizer)
            optimizer.step(((w - target) * float("nan")).sum().backward())
            assert bits(optimizer) == before
        runs.append(w.numpy() - start)
    state = optimizer.state_dict()["parameters"]["w"]["state"]
    plain = {part for part in state if part.split(".")[-1] not in ("codes", "scales")}
    # Numbers shared by all parameters are not packed, nor is the start that p is compared with.
    assert plain <= ({"d", "d_max", "numerator", "p0"} if row.is_joint else set())
    assert len(plain) < len(state)
    # A step size estimated from sums over packed state shares its error.
    share = 0.2 if row.is_joint else 0.05
    assert np.linalg.norm(runs[1] - runs[0]) < share * np.linalg.norm(runs[0])
    assert runs[0].any()
