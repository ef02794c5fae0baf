"""Clipping by earlier norms: `ZClip` by those of all gradients, `AdaGC` by each parameter's.

Statistics of norms are state. They are on the gradients' device and change with the step if it is
applied: a device continues without the host, and a refused step leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rumus.optim.engine.clip_gradients import factor_of
from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.gradients import check_together
from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.segments import Segment, whole_vectors
from rumus.optim.fused.clip_factors import FACTOR, ClipFactors, Place
from rumus.optim.fused.large_norms import large_factor, norm_of
from rumus.optim.options.clip import AdaGC, ZClip
from rumus.tensor import Backend, Expr, Kernel, float32, minimum, sqrt, where
from rumus.tensor.memory.backend import Array

_COUNT: Final = "clip_steps"  # applied with this clipping
_MEAN, _VARIANCE = "clip_mean", "clip_variance"
_SQUARES: Final = "clip_squares"  # of all gradients, added up
_RUNNING: Final = "clip_norm"  # the average for each parameter, gamma in the paper
_CLIPPED, _DONE = "clipped_norm", "clip_steps_done"  # the inputs of AdaGC's averages

_TOTAL, _SHRUNK = Expr.array("total"), Expr.array("shrunk")


def _outlier(norm: Expr, otherwise: Expr | float) -> Expr:
    """The reduced norm if the norm is far above the mean, else `otherwise`."""
    mean, variance = Expr.array(_MEAN), Expr.array(_VARIANCE)
    threshold, deviation = Expr.scalar("clip_z_thresh"), sqrt(variance)
    z = (norm - mean) / (deviation + Expr.scalar("clip_eps"))
    is_outlier = (Expr.array(_COUNT) >= Expr.scalar("clip_warmup_steps")).where(z, 0.0) > threshold
    return where(is_outlier, mean + threshold * threshold * deviation / z, otherwise)


def _factor_kernels() -> tuple[Kernel, Kernel]:
    """The factor of all gradients, and its variant for sums that may have overflowed."""
    known = (_MEAN, _VARIANCE, _COUNT)
    plain, large = (
        minimum(_outlier(norm, math.inf), Expr.scalar("max_norm"))
        for norm in (sqrt(_TOTAL), norm_of(_TOTAL, _SHRUNK))
    )
    first = {"squares": _TOTAL, "factor": factor_of(_TOTAL, plain)}
    second = {"squares": _TOTAL, "factor": large_factor(_TOTAL, _SHRUNK, large)}
    return (
        Kernel("z_clip_factor", first, ("total", *known)),
        Kernel("large_z_clip_factor", second, ("total", "shrunk", *known)),
    )


def _statistics_kernel() -> Kernel:
    """Mean and variance after a step: exact during the warmup, then exponential averages."""
    mean, variance, count = map(Expr.array, (_MEAN, _VARIANCE, _COUNT))
    alpha, norm = Expr.scalar("clip_alpha"), sqrt(Expr.array(_SQUARES))
    first = mean + (norm - mean) / (count + 1)
    spread = (count * variance + (norm - mean) * (norm - first)) / (count + 1)
    entering = _outlier(norm, norm)
    later = alpha * mean + (1 - alpha) * entering
    deviation = entering - later
    averaged = alpha * variance + (1 - alpha) * deviation * deviation
    is_first, is_finite = count < Expr.scalar("clip_warmup_steps"), norm < math.inf
    new = {
        _MEAN: where(is_finite, where(is_first, first, later), mean),
        _VARIANCE: where(is_finite, where(is_first, spread, averaged), variance),
        _COUNT: where(is_finite, count + 1, count),
    }
    return Kernel("z_clip_statistics", new, (_MEAN, _VARIANCE, _COUNT, _SQUARES))


_STATISTICS: Final = _statistics_kernel()


class ZClipFactors(ClipFactors):
    """One factor for all gradients, from the mean and the variance of their norm so far."""

    clip: ZClip
    numbers: ClassVar[Sequence[str]] = (_MEAN, _VARIANCE, _COUNT)
    factor, large = _factor_kernels()

    def attach(self, optimizer: EvaluatedOptimizer[Any]) -> None:
        """Raise ValueError for optional parameters, BackendMismatchError for several backends."""
        if any(group.optional for group in optimizer.groups):
            raise ValueError(
                f"clip={self.clip} follows the norm of all gradients, so none may be missing: "
                "leave optional=True out, or use AdaGC, which follows each parameter's norm"
            )
        check_together([(p, p.backend) for p in optimizer.parameters], self._why)

    @property
    def _why(self) -> str:
        return f"clip={self.clip} follows the norm of all gradients in one place"

    def place(self, segments: Sequence[Segment], scaling: Scaling | None) -> None:
        """Also give segments the sum of squares that the statistics need."""
        super().place(segments, scaling)
        for segment in segments:
            segment.scratch[_SQUARES] = segment.squares
            segment.joint = self._why

    def beside(self) -> Sequence[Kernel]:
        """Return the kernel that updates the statistics."""
        return (_STATISTICS,)

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the factor, if the host knows it, and the settings that the statistics need."""
        return {**super().scalars(number, t), **self._own}

    @property
    def _own(self) -> dict[str, float]:
        clip = self.clip
        return {
            "clip_alpha": clip.alpha,
            "clip_z_thresh": clip.z_thresh,
            "clip_eps": clip.eps,
            "clip_warmup_steps": clip.warmup_steps,
        }

    def _limits(self, backend: Backend) -> dict[str, float]:
        return {**super()._limits(backend), **self._own}

    def _known(self, place: Place) -> Sequence[Array]:
        state = self.segments[place.segments[0]].state  # the same numbers in all segments
        return [state[name][:1].reshape(()) for name in self.numbers]


def _row_kernels() -> tuple[Kernel, Kernel]:
    """For each row its tensor's factor and clipped norm, and the variant for large norms.

    row, total: the sums of squares of the tensor and of all gradients.
    """
    row, row_shrunk, running = map(Expr.array, ("row", "row_shrunk", _RUNNING))
    is_first = Expr.array(_DONE) + 1 < Expr.scalar("clip_warmup_steps")
    limit = Expr.scalar("clip_lambda_rel") * running
    found = []
    for of_all, own, norm in (
        (
            factor_of(_TOTAL, Expr.scalar("clip_lambda_abs")),
            factor_of(row, limit),
            sqrt(row),
        ),
        (
            large_factor(_TOTAL, _SHRUNK, Expr.scalar("clip_lambda_abs")),
            large_factor(row, row_shrunk, limit),
            norm_of(row, row_shrunk),
        ),
    ):
        factor = where(is_first, of_all, where(running > 0, own, 1.0))
        found.append({"factor": factor, "clipped": factor * norm})
    arrays = ("row", "total", _RUNNING, _DONE)
    return (
        Kernel("adagc_factor", found[0], arrays),
        Kernel("large_adagc_factor", found[1], (*arrays, "row_shrunk", "shrunk")),
    )


def _average_kernel() -> Kernel:
    """The average of norms after a step: the smallest during the warmup. 0 means none yet."""
    running, clipped = Expr.array(_RUNNING), Expr.array(_CLIPPED)
    beta = Expr.scalar("clip_beta")
    is_first = Expr.array(_DONE) + 1 < Expr.scalar("clip_warmup_steps")
    later = where(is_first, minimum(running, clipped), beta * running + (1 - beta) * clipped)
    new = where(running > 0, where(clipped > 0, later, where(is_first, running, later)), clipped)
    kept = where(clipped < math.inf, new, running)
    return Kernel("adagc_average", {_RUNNING: kept}, (_RUNNING, _CLIPPED, _DONE))


_ROWS, _LARGE_ROWS = _row_kernels()
_AVERAGE: Final = _average_kernel()
_COUNTED: Final = Kernel("count_clipping", {_COUNT: Expr.array(_COUNT) + 1}, (_COUNT,))


class AdaGCFactors(ClipFactors):
    """A factor for each parameter, from an average of its norms so far."""

    clip: AdaGC
    numbers: ClassVar[Sequence[str]] = (_COUNT,)
    by_tensor: ClassVar[Sequence[str]] = (_RUNNING,)
    measured: ClassVar[Sequence[str]] = (_CLIPPED,)

    def beside(self) -> Sequence[Kernel]:
        """Return the kernels that update the averages and their step count."""
        return _AVERAGE, _COUNTED

    def scalars(self, number: int, t: int) -> Mapping[str, float]:
        """Return the factor, if the host knows it, and the settings that the averages need."""
        return {**super().scalars(number, t), **self._own}

    @property
    def _own(self) -> dict[str, float]:
        clip = self.clip
        return {
            "clip_lambda_rel": clip.lambda_rel,
            "clip_lambda_abs": clip.lambda_abs,
            "clip_beta": clip.beta,
            "clip_warmup_steps": clip.warmup_steps,
        }

    def _include(self, number: int, segment: Segment) -> None:
        super()._include(number, segment)
        backend, rows = segment.arena.backend, segment.arena.table.rows
        clipped = backend.allocate((whole_vectors(rows), 1), float32)
        backend.fill(0, clipped)
        segment.scratch[_CLIPPED] = clipped
        segment.scratch[_DONE] = segment.state[_COUNT][:1].reshape(())

    def prepare(self, gradients: Mapping[int, Array]) -> None:
        """Compute the factor of each parameter, after the norm of all is known."""
        super().prepare(gradients)
        (places,) = self._scopes.values()
        for number in gradients:
            self._limit(number, places[id(self.segments[number].arena.backend)])

    def _limit(self, number: int, place: Place) -> None:
        segment, slots = self.segments[number], self._slots[number]
        backend, rows = place.backend, segment.arena.table.rows
        running = segment.state[_RUNNING][:rows].reshape((rows, 1))
        given = [slots.squares, place.squares, running, segment.scratch[_DONE]]
        kernel = _ROWS
        if place.shrunk is not None:
            kernel = _LARGE_ROWS
            given += [self._shrunk_slots[number], place.shrunk]
        found = segment.scratch[FACTOR], segment.scratch[_CLIPPED][:rows]
        scalars = kernel.bind({**self._limits(backend), **self._own})
        backend.elementwise(kernel, given, scalars, found)
