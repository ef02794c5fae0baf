"""`clip=ZClip` and `AdaGC`: against their papers in float64 over 200 steps, and their state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import (
    EMA,
    SGD,
    AdaGC,
    AdamW,
    Clip,
    ClipNorm,
    FusedOptimizer,
    LossScale,
    MultiOptimizer,
    Muon,
    ParameterGroup,
    Prodigy,
    ZClip,
    load_state,
    save_state,
)
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    Parameter,
    StateMismatchError,
    tensor,
)

Real = NDArray[Any]
SHAPES: Final = ((3, 5), (7,), (70, 2), ())
CLIPS: Final[Sequence[Clip]] = (
    ZClip(), ZClip(max_norm=math.inf), ZClip(0.9, 1.0, 15.0, warmup_steps=5),
    AdaGC(), AdaGC(1.2, 3.0, 0.9, warmup_steps=20),
)  # fmt: skip
SHORT: Final[Sequence[Clip]] = (ZClip(max_norm=20.0, warmup_steps=2), AdaGC(warmup_steps=3))


def gradients(t: int) -> list[Real]:
    """The gradients of a step; every 37th is a spike."""
    draw, size = np.random.default_rng([7, t]), 30.0 if t % 37 == 36 else 1 + 0.1 * math.sin(t)
    return [np.asarray(draw.normal(size=s) * size, np.float32) for s in SHAPES]


def parameters_on(backend: Backend | None = None, **options: Any) -> list[Parameter]:
    draw = np.random.default_rng(0)
    return [
        Parameter(np.asarray(draw.normal(size=s)), name=f"p{i}", backend=backend, **options)
        for i, s in enumerate(SHAPES)
    ]


def store_of(parameters: Sequence[Parameter], found: Sequence[Any]) -> GradientStore:
    store = GradientStore()
    for p, g in zip(parameters, found, strict=True):
        store.accumulate(p, tensor(g, backend=p.backend, dtype=p.dtype))
    return store


def bits(optimizer: FusedOptimizer[Any]) -> list[bytes]:
    """Parameters and state."""
    saved = optimizer.state_dict()["parameters"]
    parts = [saved[name]["state"] for name in saved]
    state = [part[key].tobytes() for part in parts for key in sorted(part)]
    return [*(p.numpy().tobytes() for p in optimizer.parameters), *state]


def z_clip_factors(clip: ZClip, steps: int) -> list[list[float]]:
    """The factor of each step, as in the paper, with the warmup's norms in a list."""
    found, first = [], list[float]()
    mean = variance = 0.0
    for t in range(steps):
        norm = effective = math.sqrt(sum(float((g.astype(float) ** 2).sum()) for g in gradients(t)))
        if len(first) < clip.warmup_steps:
            first.append(norm)
            mean, variance = float(np.mean(first)), float(np.var(first))
        else:
            z = (norm - mean) / (math.sqrt(variance) + clip.eps)
            if z > clip.z_thresh:
                effective = mean + clip.z_thresh * math.sqrt(variance) / (z / clip.z_thresh)
            mean = clip.alpha * mean + (1 - clip.alpha) * effective
            variance = clip.alpha * variance + (1 - clip.alpha) * (effective - mean) ** 2
        limit = min(effective, clip.max_norm)
        found.append([limit / (norm + clip.eps) if limit < norm else 1.0] * len(SHAPES))
    return found


def adagc_factors(clip: AdaGC, steps: int) -> list[list[float]]:
    found, gamma = [], [math.inf] * len(SHAPES)
    for t in range(1, steps + 1):
        norms = [float(np.linalg.norm(g.astype(float))) for g in gradients(t - 1)]
        if t < clip.warmup_steps:
            h = [min(1.0, clip.lambda_abs / math.hypot(*norms))] * len(norms)
            gamma = [min(old, f * n) for old, f, n in zip(gamma, h, norms, strict=True)]
        else:
            pairs = list(zip(gamma, norms, strict=True))
            h = [min(1.0, clip.lambda_rel * old / n) for old, n in pairs]
            gamma = [
                clip.beta * old + (1 - clip.beta) * f * n
                for (old, n), f in zip(pairs, h, strict=True)
            ]
        found.append(h)
    return found


def factors_of(clip: Clip, steps: int) -> list[list[float]]:
    if isinstance(clip, ZClip):
        return z_clip_factors(clip, steps)
    assert isinstance(clip, AdaGC)
    return adagc_factors(clip, steps)


@pytest.mark.parametrize("clip", CLIPS, ids=repr)
def test_the_papers_over_200_steps(backend: Backend, clip: Clip) -> None:
    parameters = parameters_on(backend)
    wanted = [p.numpy().astype(float) for p in parameters]
    optimizer = SGD(parameters, 0.01, clip=clip)
    factors = factors_of(clip, 200)
    for t, factor in enumerate(factors):
        optimizer.step(store_of(parameters, gradients(t)))
        own = zip(wanted, factor, gradients(t), strict=True)
        wanted = [w - 0.01 * f * g.astype(float) for w, f, g in own]
    assert min(map(min, factors)) < 0.1  # the spikes
    for p, w in zip(parameters, wanted, strict=True):
        np.testing.assert_allclose(p.numpy(), w, rtol=4e-6, atol=4e-6)  # 200 roundings of p


@pytest.mark.parametrize("clip", CLIPS[1:4:2], ids=repr)
def test_float64_matches_the_papers(clip: Clip) -> None:
    parameters = parameters_on(dtype=np.float64)
    wanted = [p.numpy() for p in parameters]
    optimizer = SGD(parameters, 0.01, clip=clip)
    for t, factor in enumerate(factors_of(clip, 200)):
        optimizer.step(store_of(parameters, gradients(t)))
        wanted = [w - 0.01 * f * g for w, f, g in zip(wanted, factor, gradients(t), strict=True)]
    for p, w in zip(parameters, wanted, strict=True):
        np.testing.assert_allclose(p.numpy(), w, rtol=1e-7, atol=1e-7)  # averages are float32


@pytest.mark.parametrize("clip", SHORT, ids=repr)
@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_a_refused_step_leaves_no_trace(backend: Backend, clip: Clip, nonfinite: Any) -> None:
    runs = []
    for bad in (True, False):
        parameters = parameters_on(backend)
        optimizer = SGD(parameters, 0.1, clip=clip, nonfinite=nonfinite)
        for t in range(6):
            if bad and t in (1, 4):
                try:
                    optimizer.step(store_of(parameters, [np.full(s, np.inf) for s in SHAPES]))
                    optimizer.poll(wait=True)
                except NonFiniteGradientError:
                    assert nonfinite == "raise"
            optimizer.step(store_of(parameters, gradients(t)))
        runs.append(bits(optimizer))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("clip", SHORT, ids=repr)
def test_a_run_goes_on_from_a_file_on_another_backend(
    backend: Backend, clip: Clip, tmp_path: Path
) -> None:
    whole = AdamW(parameters_on(backend), 0.1, clip=clip)
    for t in range(4):
        whole.step(store_of(whole.parameters, gradients(t)))
    save_state(whole, tmp_path / "state.safetensors")
    resumed = AdamW(parameters_on(NumpyBackend()), 0.1, clip=clip)
    load_state(resumed, tmp_path / "state.safetensors")
    for p, q in zip(resumed.parameters, whole.parameters, strict=True):
        p.assign(q.numpy())
    assert bits(resumed) == bits(whole)
    resumed.move(resumed.parameters, backend)
    for t in range(34, 38):
        for optimizer in (whole, resumed):
            optimizer.step(store_of(optimizer.parameters, gradients(t)))
    assert bits(resumed) == bits(whole)


def test_a_step_that_fails_when_it_is_written_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    for clip in SHORT:
        optimizer = SGD(parameters_on(NumpyBackend()), 0.1, clip=clip)
        optimizer.step(store_of(optimizer.parameters, gradients(0)))
        before = bits(optimizer)
        backend, kernel = optimizer.parameters[0].backend, optimizer.segments[0].kernel
        plain = backend.elementwise
        assert kernel is not None

        def failing(called: Any, *args: Any, of: Any = kernel, do: Any = plain) -> None:
            if called is of:
                raise MemoryError
            do(called, *args)

        with monkeypatch.context() as patch:
            patch.setattr(backend, "elementwise", failing)
            with pytest.raises(MemoryError):
                optimizer.step(store_of(optimizer.parameters, gradients(1)))
        assert bits(optimizer) == before


@pytest.mark.parametrize("clip", SHORT, ids=repr)
def test_a_loss_scale_changes_no_bit(backend: Backend, clip: Clip) -> None:
    plain, scaled = (SGD(parameters_on(backend), 0.1, clip=clip) for _ in range(2))
    scaling = scaled.scale_losses(LossScale(initial=2.0**10))
    for t in range(5):
        plain.step(store_of(plain.parameters, gradients(t)))
        factors = [g * np.float32(scaling.scale) for g in gradients(t)]
        scaled.step(store_of(scaled.parameters, factors))
    assert bits(scaled) == bits(plain)


@pytest.mark.parametrize("clip", SHORT, ids=repr)
def test_propagate_keeps_the_averages_finite(backend: Backend, clip: Clip) -> None:
    """A norm with an infinite square is clipped by the averages but does not enter them."""
    parameters = parameters_on(backend)
    optimizer = SGD(parameters, 1.0, clip=clip, nonfinite="propagate")
    for t in range(4):
        optimizer.step(store_of(parameters, gradients(t)))
    before = [p.numpy() for p in parameters]
    large = [g * np.float32(1e30) for g in gradients(4)]
    optimizer.step(store_of(parameters, large))
    moved = [was - p.numpy() for p, was in zip(parameters, before, strict=True)]
    assert 0 < max(float(np.abs(m).max()) for m in moved) < 20
    bad = [np.full(s, np.nan) for s in SHAPES]
    optimizer.step(store_of(parameters, bad))
    saved = optimizer.state_dict()["parameters"]
    assert all(np.isfinite(x).all() for entry in saved.values() for x in entry["state"].values())


def test_adagc_lets_a_gradient_of_0_grow(backend: Backend) -> None:
    """As in the input half of an adapter, whose other half starts at 0."""
    w = Parameter(np.zeros(3), name="w", backend=backend)
    optimizer = SGD([w], 1.0, clip=AdaGC(warmup_steps=3))
    for slope in (0.0, 0.0, 0.0, 0.0, 2.0, 100.0):
        optimizer.step(store_of([w], [np.array([slope, 0, 0])]))
    assert w.numpy()[0] == pytest.approx(-2 - 1.05 * 2, rel=1e-6)


def test_adagc_knows_the_steps_of_each_optional_parameter(backend: Backend) -> None:
    first, second = (Parameter(np.zeros(2), name=n, backend=backend) for n in "ab")
    groups = [ParameterGroup([first]), ParameterGroup([second], optional=True)]
    optimizer = SGD(groups, 1.0, clip=AdaGC(warmup_steps=1))
    for _ in range(3):
        optimizer.step(store_of([first], [np.array([3.0, 4.0])]))
    optimizer.step(store_of([first, second], [np.array([3.0, 4.0]), np.array([0.0, 9.0])]))
    saved = optimizer.state_dict()["parameters"]
    assert [float(saved[n]["state"]["clip_steps"]) for n in "ab"] == [4, 1]
    assert [float(saved[n]["state"]["clip_norm"]) for n in "ab"] == pytest.approx([5, 9])


def test_parameters_without_elements(backend: Backend) -> None:
    for clip in (AdaGC(warmup_steps=1), ZClip()):
        w, empty = (Parameter(np.zeros(s), name=f"{s}", backend=backend) for s in (3, 0))
        optimizer = SGD([empty, w], 1.0, clip=clip)
        optimizer.step(store_of([empty, w], [np.zeros(0), np.ones(3)]))
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step(store_of([empty, w], [np.zeros(0), np.ones(3)]))
        assert (w.numpy() < -1).all()


def test_with_other_options(backend: Backend) -> None:
    """Master weights, 8-bit state, and optimizers that measure tensors or keep numbers."""
    for clip in SHORT:
        made: list[tuple[Any, dict[str, Any]]] = [
            (AdamW, {"master_weights": True, "compensated": True}),
            (AdamW, {"state_dtype": "8bit"}),
            (Muon, {}),
            (Prodigy, {}),
        ]
        for kind, options in made:
            w = [Parameter(np.ones((64, 65)), name="w", backend=backend)]
            optimizer = kind(w, clip=clip, **options)
            for _ in range(3):
                optimizer.step(store_of(w, [np.full((64, 65), 100.0)]))
            state = optimizer.state_dict()
            assert float(state["parameters"]["w"]["state"]["clip_steps"]) == 3
            optimizer.load_state_dict(state)
            assert kind.planned_memory(w, clip=clip, **options) == optimizer.memory()
            optimizer.release()


def test_optimizers_that_step_together_keep_their_own_numbers() -> None:
    """Including a rule's numbers that the other optimizer does not have."""
    for make in (lambda p: Prodigy(p), lambda p: SGD(p, 0.1, clip=ZClip(warmup_steps=2))):
        a, b, c = (Parameter([1.0, 2.0], name=n) for n in "abc")
        both = MultiOptimizer([make([a]), make([b]), AdamW([c], 0.1)])
        for t in range(3):
            both.step(store_of([a, b, c], [np.ones(2) + t, np.full(2, 2.0), np.ones(2)]))
        both.load_state_dict(both.state_dict())


def test_numbers_of_all_parameters_must_be_the_same_where_they_are_loaded() -> None:
    optimizer = SGD(parameters_on(), 0.1, clip=ZClip())
    state = optimizer.state_dict()
    state["parameters"]["p1"]["state"]["clip_mean"] += 1
    with pytest.raises(StateMismatchError, match="clip_mean"):
        optimizer.load_state_dict(state)
    plain = SGD([Parameter([1.0], name="w")], 0.1)
    with pytest.raises(StateMismatchError, match="clip_mean"):
        SGD([Parameter([1.0], name="w")], 0.1, clip=ZClip()).load_state_dict(plain.state_dict())


def test_gradients_that_z_clip_cannot_follow() -> None:
    first, second = Parameter([1.0], name="a"), Parameter([1.0], backend=NumpyBackend(), name="b")
    with pytest.raises(ValueError, match="leave optional=True out"):
        SGD([ParameterGroup([first], optional=True)], 0.1, clip=ZClip())
    groups = [ParameterGroup([first]), ParameterGroup([second])]
    with pytest.raises(BackendMismatchError, match=r"parameter 'a' is on .* and 'b' on"):
        SGD(groups, 0.1, clip=ZClip())
    assert SGD(groups, 0.1, clip=AdaGC()).steps == 0
    with pytest.raises(TypeError, match="clip must be ClipNorm"):
        SGD([Parameter([1.0])], 0.1, clip=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZClip(alpha=1.0), "alpha"),
        (lambda: ZClip(z_thresh=0.0), "z_thresh"),
        (lambda: ZClip(max_norm=0.0), "max_norm"),
        (lambda: ZClip(eps=-1.0), "eps"),
        (lambda: ZClip(warmup_steps=1), "warmup_steps must be at least 2"),
        (lambda: AdaGC(lambda_rel=math.inf), "lambda_rel"),
        (lambda: AdaGC(lambda_abs=-1.0), "lambda_abs"),
        (lambda: AdaGC(beta=-0.1), "beta"),
        (lambda: AdaGC(warmup_steps=0), "warmup_steps must be at least 1"),
    ],
)
def test_bad_values(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda value: ClipNorm(value),
        lambda value: ZClip(alpha=value),
        lambda value: EMA(value),
        lambda value: ParameterGroup([Parameter([1.0])], lr_scale=value),
    ],
)
def test_what_takes_no_schedule_asks_for_none(make: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a number, not <?function"):
        make(lambda t: 0.5)
