"""State in 8-bit codes: its size, its effect, and that the laws hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import (
    AGC,
    ASGD,
    EMA,
    Adam,
    AdamW,
    Adan,
    ClipNorm,
    FusedOptimizer,
    Lion,
    Memory,
    ParameterGroup,
    torch_state,
    warmup,
)
from rumus.optim.engine import packed_state
from rumus.tensor import (
    Backend,
    DType,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    PrecisionError,
    StateMismatchError,
    float16,
    float32,
    tensor,
)

Real: TypeAlias = NDArray[Any]
Make: TypeAlias = Callable[..., FusedOptimizer[Any]]
SIZES: Final = (5000, 10, 4200)
KINDS: Final[dict[str, Make]] = {"Adam": Adam, "AdamW": AdamW, "Lion": Lion}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that are unpacked at a time are smaller than a parameter."""
    monkeypatch.setattr(packed_state, "AT_ONCE", 1024)


def parameters(
    backend: Backend, sizes: tuple[int, ...] = SIZES, dtype: DType = float32
) -> list[Parameter]:
    return [
        Parameter(
            np.random.default_rng(n).normal(size=n).astype(np.float16),
            dtype=dtype, name=f"p{n}", backend=backend,
        )
        for n in sizes
    ]  # fmt: skip


def gradients(owned: list[Parameter], t: int, spoiled: float = 0.0) -> GradientStore:
    """Gradients of several magnitudes. spoiled: added to one of them."""
    grads = GradientStore()
    for p in owned:
        random = np.random.default_rng([t, p.size])
        g = random.normal(size=p.size) * 10 ** random.uniform(-3, 0, p.size)
        g[p.size // 2] += spoiled
        (p * tensor(g.astype(np.float16), dtype=p.dtype, backend=p.backend)).sum().backward(grads)
    return grads


def bits(optimizer: FusedOptimizer[Any]) -> dict[str, Any]:
    """The bits of parameters and state."""
    entries = optimizer.state_dict()["parameters"]
    values = {name: p.numpy().tobytes() for name, p in optimizer.named_parameters()}
    return {
        name: (
            values[name],
            entry["steps"],
            {part: array.tobytes() for part, array in entry["state"].items()},
        )
        for name, entry in entries.items()
    }


def trained(make: Make, owned: list[Parameter], steps: range, **options: Any) -> Any:
    optimizer = make(owned, 1e-2, state_dtype="8bit", **options)
    for t in steps:
        optimizer.step(gradients(owned, t))
    return optimizer


# Layout


def test_small_parameters_keep_float32(backend: Backend) -> None:
    optimizer = trained(AdamW, parameters(backend), range(2))
    entries = optimizer.state_dict()["parameters"]
    small, large = entries["p10"]["state"], entries["p5000"]["state"]
    assert {name: a.dtype for name, a in small.items()} == {"m": float32, "v": float32}
    assert {name: (str(a.dtype), a.shape) for name, a in large.items()} == {
        "m.codes": ("uint8", (5000,)),
        "m.scales": ("float32", (20,)),
        "v.codes": ("uint8", (5000,)),
        "v.scales": ("float32", (20,)),
    }
    assert "8 bits" in optimizer.describe()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("small_pieces")
def test_memory(name: str, backend: Backend) -> None:
    owned, make = parameters(backend, (65536, 8192, 64)), KINDS[name]
    planned = make.planned_memory(owned, state_dtype="8bit")  # type: ignore[attr-defined]
    optimizer = make(owned, state_dtype="8bit")
    parts, elements = len(optimizer.state_names), 65536 + 8192
    state = parts * (elements + 4 * elements // 256 + 4 * 64 + 4 * 1024)
    weights = 4 * (elements + 64)
    assert planned == optimizer.memory() == Memory(weights, weights, state)
    usual = make.planned_memory(owned)  # type: ignore[attr-defined]
    assert state < 0.32 * usual.state


def test_supported_optimizers(backend: Backend) -> None:
    owned = parameters(backend, (5000,))
    with pytest.raises(TypeError, match=r'Adan.*leave state_dtype="8bit" out'):
        Adan(owned, state_dtype="8bit")
    with pytest.raises(PrecisionError, match="average of the parameters"):
        ASGD(owned, state_dtype="8bit")
    with pytest.raises(ValueError, match="'8bit' or None"):
        AdamW(owned, state_dtype="4bit")  # type: ignore[arg-type]
    assert owned[0].owner is None
    optimizer = AdamW(owned, state_dtype="8bit", amsgrad=True)
    assert set(optimizer.state_dict()["parameters"]["p5000"]["state"]) == {
        f"{part}.{kind}" for part in ("m", "v", "v_max") for kind in ("codes", "scales")
    }
    with pytest.raises(TypeError, match="no 8-bit state"):
        torch_state(optimizer, ["p5000"])


# Effect


@pytest.mark.parametrize("name", KINDS)
def test_a_run_is_near_to_that_of_float32(name: str, backend: Backend) -> None:
    """200 steps on a quadratic with curvatures from 0.001 to 1; losses are relative."""
    size, make = 4096, KINDS[name]
    curvatures = np.random.default_rng(1).permutation(np.geomspace(1e-3, 1, size))
    curvatures = curvatures.astype(np.float32)
    losses = []
    for state_dtype in (None, "8bit"):
        w = Parameter(np.ones(size), name="w", backend=backend)
        optimizer, h = make([w], 0.01, state_dtype=state_dtype), tensor(curvatures, backend=backend)
        for _ in range(200):
            optimizer.step((h * w * w).sum().backward())
        losses.append(float((curvatures * w.numpy() ** 2).sum() / curvatures.sum()))
    assert losses[0] < 1e-3
    assert abs(losses[1] - losses[0]) < 2e-4


def valley(p: Real) -> tuple[float, Real]:
    """Rosenbrock's function at [n, 2] points: its mean, and the gradient of its sum."""
    x, y = p.T
    across = y - x * x
    gradient = np.stack([-2 * (1 - x) - 400 * x * across, 200 * across], 1)
    return float(((1 - x) ** 2 + 100 * across**2).mean()), gradient


def test_rosenbrock() -> None:
    start = np.array([-1.5, 1.5]) + 0.2 * np.random.default_rng(2).normal(size=(2048, 2))
    ends = []
    for state_dtype in (None, "8bit"):
        w = Parameter(start, dtype=float32, name="w")
        optimizer = Adam([w], 0.02, state_dtype=state_dtype)
        for _ in range(700):
            grads = GradientStore()
            grads.accumulate(w, tensor(valley(w.numpy())[1].astype(np.float32)))
            optimizer.step(grads)
        ends.append(valley(w.numpy())[0] / valley(start)[0])
    assert ends[0] < 0.03
    assert abs(ends[1] - ends[0]) < 0.005


def test_small_squares_do_not_make_large_steps(backend: Backend) -> None:
    """If rounding made an average of squares 0, only eps would be left in the divisor."""
    w = Parameter(np.zeros(4096), name="w", backend=backend)
    optimizer = Adam([w], 1e-3, state_dtype="8bit")
    g = np.geomspace(1e-6, 1, 4096).astype(np.float32).reshape(-1, 256).T.reshape(-1)
    for scale in (1, 1, 1, 0, 0, 1e-3, 0):
        before = w.numpy()
        optimizer.step((w * tensor(g * np.float32(scale), backend=backend)).sum().backward())
        assert abs(w.numpy() - before).max() < 5e-3


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", KINDS)
def test_pieces_change_nothing(
    name: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = bits(trained(KINDS[name], parameters(backend), range(3)))
    monkeypatch.setattr(packed_state, "AT_ONCE", 10**6)
    assert bits(trained(KINDS[name], parameters(backend), range(3))) == apart


def test_groups_and_order_change_nothing(backend: Backend) -> None:
    one = bits(trained(AdamW, parameters(backend), range(3)))
    swapped = bits(trained(AdamW, parameters(backend, SIZES[::-1]), range(3)))
    a, b, c = owned = parameters(backend)
    groups: Any = [ParameterGroup([a, b]), ParameterGroup([c])]
    optimizer = AdamW(groups, 1e-2, state_dtype="8bit")
    for t in range(3):
        optimizer.step(gradients(owned, t))
    assert one == swapped == bits(optimizer)


@pytest.mark.usefixtures("small_pieces")
def test_master_weights(backend: Backend) -> None:
    halves, singles = parameters(backend, dtype=float16), parameters(backend)
    mixed = trained(AdamW, halves, range(3), master_weights=True, compensated=True)
    plain = trained(AdamW, singles, range(3), compensated=True)
    for (name, entry), p in zip(
        mixed.state_dict()["parameters"].items(), plain.parameters, strict=True
    ):
        assert entry["state"]["master"].tobytes() == p.numpy().tobytes(), name


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("clip", [ClipNorm(1.0), AGC(0.1)], ids=["norm", "AGC"])
def test_with_clipping_and_an_average(clip: Any, backend: Backend) -> None:
    owned, others = parameters(backend), parameters(backend)
    options: dict[str, Any] = {"clip": clip, "average": EMA(0.9)}
    planned = AdamW.planned_memory(owned, state_dtype="8bit", clip=clip, average=EMA(0.9))
    optimizer = trained(AdamW, owned, range(3), **options)
    assert optimizer.memory() == planned
    plain = AdamW(others, 1e-2, clip=clip)
    for t in range(3):
        plain.step(gradients(others, t))
    for p, q in zip(owned, others, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=2e-2)
    before = bits(optimizer)
    optimizer.move(owned, NumpyBackend())
    assert bits(optimizer) == before


# Saving and moving


OPTIONS: Final[dict[str, Any]] = {"lr": warmup(3).then(0.01), "state_dtype": "8bit"}


def some(owned: list[Parameter]) -> list[ParameterGroup]:
    """Groups, one of them optional."""
    return [
        ParameterGroup(owned[:2], weight_decay=0.0),
        ParameterGroup(owned[2:], optional=True),
    ]


@pytest.mark.usefixtures("small_pieces")
def test_it_resumes_bit_for_bit(backend: Backend) -> None:
    owned, others = parameters(backend), parameters(backend)
    still, resumed = AdamW(some(owned), **OPTIONS), AdamW(some(others), **OPTIONS)
    for t in range(4):
        still.step(gradients(owned if t % 2 else owned[:2], t))
    for p, q in zip(owned, others, strict=True):
        q.assign(p.numpy())
    resumed.load_state_dict(still.state_dict())
    for t in range(4, 7):
        still.step(gradients(owned, t))
        resumed.step(gradients(others, t))
    assert bits(still) == bits(resumed)


def test_a_state_of_another_kind_is_refused(backend: Backend) -> None:
    packed, usual = parameters(backend), parameters(backend)
    first, second = trained(AdamW, packed, range(1)), AdamW(usual)
    for loads, saved in ((first, second), (second, first)):
        before = bits(loads)
        with pytest.raises(StateMismatchError, match=r"'p5000': saved state \[.*here \["):
            loads.load_state_dict(saved.state_dict())
        assert bits(loads) == before
    state = first.state_dict()
    part = state["parameters"]["p4200"]["state"]
    part["m.scales"], part["v.codes"] = part["m.scales"][1:], part["v.codes"].astype(np.int32)
    with pytest.raises(StateMismatchError, match=r"(?s)m\.scales.*shape \(16,\).*v\.codes.*uint8"):
        first.load_state_dict(state)


@pytest.mark.usefixtures("small_pieces")
def test_a_move_keeps_the_bits(backend: Backend) -> None:
    owned = parameters(NumpyBackend())
    optimizer = trained(AdamW, owned, range(3))
    before = bits(optimizer)
    optimizer.move(owned, backend)
    assert bits(optimizer) == before
    optimizer.step(gradients(owned, 3))
    optimizer.move(owned, NumpyBackend())
    optimizer.step(gradients(owned, 4))
    stay = parameters(NumpyBackend())
    trained(AdamW, stay, range(5))
    for p, q in zip(owned, stay, strict=True):
        difference = abs(p.numpy() - q.numpy())  # rounding may lead to another code
        assert difference.max() < 2e-3
        assert np.median(difference) < 1e-6


# Laws


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_refused_step_leaves_every_bit(nonfinite: Any, bad: float, backend: Backend) -> None:
    owned = parameters(backend)
    optimizer = trained(AdamW, owned, range(3), nonfinite=nonfinite)
    before = bits(optimizer)
    grads = gradients(owned, 3, bad)
    if nonfinite == "raise":
        with pytest.raises(NonFiniteGradientError, match="p5000"):
            _step(optimizer, grads)
    else:
        optimizer.step(grads)
        assert optimizer.skipped == 1
    assert bits(optimizer) == before


def _step(optimizer: FusedOptimizer[Any], grads: GradientStore) -> None:
    optimizer.step(grads)
    optimizer.poll(wait=True)


def test_propagated_nan_takes_its_block_with_it(backend: Backend) -> None:
    owned = parameters(backend, (5000,))
    optimizer = trained(AdamW, owned, range(2), nonfinite="propagate")
    optimizer.step(gradients(owned, 2, math.nan))
    assert np.flatnonzero(np.isnan(owned[0].numpy())).tolist() == [2500]
    optimizer.step(gradients(owned, 3))
    wrong = np.flatnonzero(np.isnan(owned[0].numpy()))
    assert wrong.tolist() == list(range(2304, 2560))


@pytest.mark.usefixtures("small_pieces")
def test_a_step_that_fails_in_the_middle_changes_nothing() -> None:
    calls = [0, -1]

    class Failing(NumpyBackend):
        def _count(self) -> None:
            calls[0] += 1
            if calls[0] == calls[1]:
                raise MemoryError("no memory left")

        def elementwise(self, *arguments: Any) -> None:
            self._count()
            super().elementwise(*arguments)

        def quantize(self, *arguments: Any) -> None:
            self._count()
            super().quantize(*arguments)

        def dequantize(self, *arguments: Any) -> None:
            self._count()
            super().dequantize(*arguments)

    owned = parameters(Failing())
    optimizer = trained(AdamW, owned, range(2))
    grads, before = gradients(owned, 2), bits(optimizer)
    calls[0] = 0
    optimizer.step(grads)
    number = calls[0]
    assert number > 20
    for at in _places(number):
        owned = parameters(Failing())
        optimizer = trained(AdamW, owned, range(2))
        grads = gradients(owned, 2)
        calls[:] = 0, at
        with pytest.raises(MemoryError):
            optimizer.step(grads)
        calls[1] = -1
        assert bits(optimizer) == before
        assert len(grads) == 3


def _places(number: int) -> Iterator[int]:
    yield from (1, 2, 3, 4, 5, 6, 11, number // 2, number - 1, number)
