"""Connectionist temporal classification: one dispatch forward, one backward.

Names and arguments are those of `rumus.tensor.backends.numpy_ctc`. A workgroup handles one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude, shader
from rumus.gpu.device.turns import check_turns
from rumus.gpu.elementwise.copying import dense, writable
from rumus.tensor import float32
from rumus.tensor.memory.fused import FusedName

LANES: Final = 64


def _program(name: str, access: str) -> Program:
    body = shader("ctc_states") + shader(name)
    return Program(name, prelude(body) + body, access, "IIIIIIIIIII")


def _values(given: tuple[GPUArray, ...], labels: int, blank: int) -> tuple[int, ...]:
    """The scalars. labels: the number of columns of labels, which may be 0."""
    x = given[0]
    sizes = x.shape[1], x.shape[2], labels, blank, x.shape[0]
    return (*sizes, *(array.rest for array in given))


def _check(x: GPUArray, labels: int) -> None:
    turns = x.shape[1] * -(-(2 * labels + 1) // LANES)
    check_turns(x.backend, "ctc_loss", turns, "use shorter sequences or the CPU")


def ctc(
    gpu: Gpu, x: GPUArray, labels: GPUArray, lengths: GPUArray, label_lengths: GPUArray,
    alpha: GPUArray, out: GPUArray, blank: int,
) -> None:  # fmt: skip
    """Write alpha and the loss of each sample."""
    if not out.size:
        return
    given = tuple(map(dense, (x, _some(labels), lengths, label_lengths)))
    _check(x, labels.shape[1])
    pipeline = gpu.pipeline("ctc", partial(_program, "ctc", "rrrrww"))
    values = (*_values(given, labels.shape[1], blank), 0, 0)
    gpu.dispatch(pipeline, (*given, alpha, out), values, x.shape[0])


def ctc_gradient(
    gpu: Gpu, x: GPUArray, labels: GPUArray, lengths: GPUArray, label_lengths: GPUArray,
    alpha: GPUArray, losses: GPUArray, gradient: GPUArray, into: GPUArray, blank: int,
) -> None:  # fmt: skip
    """Write the gradient of x; the losses are recomputed from alpha."""
    if not into.size:
        return
    with writable(into, x) as target:
        target.backend.fill(0, target)
        given = tuple(map(dense, (x, _some(labels), lengths, label_lengths)))
        g = dense(gradient)
        scratch = x.backend.allocate((4 * x.shape[0] * alpha.shape[2],), float32)
        pipeline = gpu.pipeline("ctc_gradient", partial(_program, "ctc_gradient", "rrrrrrww"))
        values = (*_values(given, labels.shape[1], blank), g.rest, target.rest)
        gpu.dispatch(pipeline, (*given, alpha, g, target, scratch), values, x.shape[0])


def _some(labels: GPUArray) -> GPUArray:
    """The labels, or one unused element: a binding must not be empty."""
    return labels if labels.size else labels.backend.allocate((1, 1), labels.dtype)


CTC: Final[Mapping[FusedName, Callable[..., None]]] = {"ctc": ctc, "ctc_gradient": ctc_gradient}
