"""Elementwise kernels: one dispatch per call.

Each combination of layouts is planned once; later calls with the same layouts only pack their
scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rumus.gpu.device.array import GPUArray, Shape
from rumus.gpu.device.device import Gpu, Prepared
from rumus.gpu.device.layout import Layout, layout_of
from rumus.gpu.device.pipelines import Pipeline
from rumus.gpu.elementwise.copying import contiguous, copy_strided
from rumus.gpu.elementwise.wgsl import WORKGROUP, KernelOperand, elementwise_program
from rumus.tensor import Expr, Kernel, float32, int32
from rumus.tensor.expression.kernel import Types

IDENTITY: Final = Kernel("copy", {"out": Expr.array("a")}, ("a",))


@dataclass(frozen=True, slots=True)
class _Plan:
    pipeline: Pipeline
    numbers: tuple[int, ...]
    groups: int

    def values(self, kernel: Kernel, scalars: Sequence[float]) -> tuple[float, ...]:
        """The members of `k` for these scalars of the kernel."""
        if kernel.uniforms and self.pipeline.program.scalars[-1] == "i":
            scalars = [max(-(2**31), min(2**31 - 1, int(value))) for value in scalars]
        return (*self.numbers, *scalars)


class Elementwise:
    """The elementwise kernels of one device."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def run(
        self,
        kernel: Kernel,
        arrays: Sequence[GPUArray],
        scalars: Sequence[float],
        out: Sequence[GPUArray],
    ) -> None:
        """Run `kernel`; see `Backend.elementwise`. The outputs are not empty."""
        plan = self._find(kernel, arrays, out)
        if plan is None:
            layouts = [layout_of(array, out[0].shape) for array in arrays]
            self._run_on_copies(kernel, arrays, layouts, scalars, out)
            return
        values = plan.values(kernel, scalars)
        self.gpu.dispatch(plan.pipeline, _operands(kernel, arrays, out), values, plan.groups)

    def prepare(
        self, kernel: Kernel, arrays: Sequence[GPUArray], out: Sequence[GPUArray]
    ) -> Callable[[Sequence[float]], None]:
        """Return a function of the scalars that runs `kernel` on these arrays."""
        plan = self._find(kernel, arrays, out)
        if plan is None:
            return lambda scalars: self.run(kernel, arrays, scalars, out)
        ready = Prepared(self.gpu, plan.pipeline, _operands(kernel, arrays, out), plan.groups)
        return lambda scalars: ready.run(plan.values(kernel, scalars))

    def _find(
        self, kernel: Kernel, arrays: Sequence[GPUArray], out: Sequence[GPUArray]
    ) -> _Plan | None:
        """The plan for these layouts, None where arrays must be copied first."""
        written = {array.storage for array in out}
        aliased = tuple([array.storage in written for array in arrays])
        key = (
            "elementwise",
            kernel,
            tuple([a.key for a in arrays]),
            tuple([o.key for o in out]),
            aliased,
        )
        return self.gpu.plan(key, partial(self._plan, kernel, arrays, out, aliased))

    def _plan(
        self,
        kernel: Kernel,
        arrays: Sequence[GPUArray],
        out: Sequence[GPUArray],
        aliased: tuple[bool, ...],
    ) -> _Plan | None:
        layouts: list[Layout] = []
        for array in arrays:
            layout = layout_of(array, out[0].shape)
            if layout is None:
                return None
            layouts.append(layout)
        if not all(each.is_flat for each in out):
            return None
        operands = [
            KernelOperand(array.stored, layout, is_written)
            for array, layout, is_written in zip(arrays, layouts, aliased, strict=True)
        ]
        types = _types(kernel, arrays, out)
        stored = [array.stored for array in out]
        walks = tuple((o.stored.name, o.layout.walk, o.is_written) for o in operands)
        key = ("elementwise", kernel.key, types.compute, walks, tuple(s.name for s in stored))
        make = partial(elementwise_program, kernel, types, operands, stored)
        size = out[0].size
        vectors = -(-size // 4)
        numbers = (vectors, size % 4, *(n for layout in layouts for n in layout.numbers))
        groups = -(-vectors // WORKGROUP)
        return _Plan(self.gpu.pipeline(key, make), numbers, groups)

    def _run_on_copies(
        self,
        kernel: Kernel,
        arrays: Sequence[GPUArray],
        layouts: Sequence[Layout | None],
        scalars: Sequence[float],
        out: Sequence[GPUArray],
    ) -> None:
        """Run on contiguous copies of arrays that a kernel cannot walk, and copy results back."""
        targets = [o if o.is_flat else o.backend.allocate(o.shape, o.dtype) for o in out]
        by_name = dict(zip(kernel.outputs, targets, strict=True))
        inputs = []
        for name, array, layout in zip(kernel.arrays, arrays, layouts, strict=True):
            target = by_name.get(name)
            if target is not None and target.storage is not array.storage:
                copy_strided(self.gpu, array, target)  # the target is updated in its place
                inputs.append(target)
            else:
                inputs.append(array if layout is not None else _expanded(array, out[0].shape))
        self.run(kernel, inputs, scalars, targets)
        for target, wanted in zip(targets, out, strict=True):
            if target is not wanted:
                copy_strided(self.gpu, target, wanted)


def _operands(
    kernel: Kernel, arrays: Sequence[GPUArray], out: Sequence[GPUArray]
) -> tuple[GPUArray, ...]:
    """The bindings of a kernel: its inputs, then the outputs that are not inputs."""
    names = zip(out, kernel.outputs, strict=True)
    return (*arrays, *[array for array, name in names if name not in kernel.arrays])


def _types(kernel: Kernel, arrays: Sequence[GPUArray], out: Sequence[GPUArray]) -> Types:
    """The types a kernel computes in; without inputs, they follow from its output."""
    if arrays:
        return kernel.types(tuple([array.dtype for array in arrays]))
    compute = int32 if out[0].dtype == int32 else float32
    return Types(compute, (compute,) * len(out), frozenset())


def _expanded(array: GPUArray, shape: Shape) -> GPUArray:
    """A contiguous copy of the array if a kernel can walk that, else of its broadcast."""
    copy = contiguous(array)
    if layout_of(copy, shape) is not None:
        return copy
    full = array.backend.allocate(shape, array.dtype)
    copy_strided(array.backend.gpu, array, full)
    return full
