"""Arrays without elements: the values of an ONNX graph that they and their views represent.

Backends write to given memory, but values in a graph never change. So memory remembers what was
written to it, whole or in boxes, and reading turns that into a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rumus.nn.onnx_graph import Graph, OnnxExportError, Value
from rumus.tensor import DType
from rumus.tensor.memory.backend import Shape


class Memory:
    """The memory shared by an array and its views: a value that writes replace."""

    def __init__(self, graph: Graph, shape: Shape, dtype: DType) -> None:
        self.graph, self.shape, self.dtype = graph, shape, dtype
        self.value: Value | None = None
        self._boxes: list[tuple[tuple[tuple[int, int], ...], Value]] = []  # written since

    def write(self, value: Value) -> None:
        """Replace all of it."""
        self.value, self._boxes = value, []

    def write_box(self, box: tuple[tuple[int, int], ...], value: Value) -> None:
        """Replace a box: (start, stop) along each axis."""
        self._boxes.append((box, value))

    def read_box(self, box: tuple[tuple[int, int], ...]) -> Value | None:
        """Return a part that was last written in one piece; None if it was not."""
        for written, value in reversed(self._boxes):
            pairs = list(zip(box, written, strict=True))
            if all(c <= a and b <= d for (a, b), (c, d) in pairs):
                return sliced(self.graph, value, [(a - c, b - c, 1) for (a, b), (c, _) in pairs])
            if all(a < d and c < b for (a, b), (c, d) in pairs):
                return None
        return None

    def read(self) -> Value:
        """Return all of it."""
        if self._boxes:
            self.value = self._joined() or self._inserted()
            self._boxes = []
        if self.value is None:  # never written: any numbers will do
            self.value = filled(self.graph, 0, self.shape, self.dtype)
        return self.value

    def _joined(self) -> Value | None:
        """Concatenate the boxes, if they cover everything along one axis."""
        whole = tuple((0, n) for n in self.shape)
        axes = {i for box, _ in self._boxes for i, span in enumerate(box) if span != whole[i]}
        if len(axes) != 1:
            return None
        axis = axes.pop()
        parts = sorted(self._boxes, key=lambda part: part[0][axis])
        edges = [0, *(box[axis][1] for box, _ in parts)]
        starts = [box[axis][0] for box, _ in parts]
        if starts != edges[:-1] or edges[-1] != self.shape[axis]:
            return None
        values = [value for _, value in parts]
        return self.graph.emit("Concat", values, self.shape, self.dtype, axis=axis)

    def _inserted(self) -> Value:
        boxes, self._boxes = self._boxes, []
        base = self.value
        if base is None:
            base = filled(self.graph, 0, self.shape, self.dtype)
        for box, value in boxes:
            base = self._insert(base, box, value, 0)
        return base

    def _insert(
        self, base: Value, box: tuple[tuple[int, int], ...], value: Value, axis: int
    ) -> Value:
        """Insert `value` into a box of `base` that spans all of it along axes before `axis`."""
        while axis < len(box) and box[axis] == (0, base.shape[axis]):
            axis += 1
        if axis == len(box):
            return value
        start, stop = box[axis]
        parts = []
        for low, high in ((0, start), (start, stop), (stop, base.shape[axis])):
            if low == high:
                continue
            spans = [(0, n, 1) for n in base.shape]
            spans[axis] = (low, high, 1)
            part = sliced(self.graph, base, spans)
            if (low, high) == (start, stop):
                inner = (*box[:axis], (0, high - low), *box[axis + 1 :])
                part = self._insert(part, inner, value, axis + 1)
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return self.graph.emit("Concat", parts, base.shape, base.dtype, axis=axis)


def filled(graph: Graph, number: float, shape: Shape, dtype: DType) -> Value:
    """Return an array of one number."""
    one = graph.constant(np.array(number, dtype))
    return one if shape == () else graph.emit("Expand", [one, shape], shape, dtype)


def reshaped(graph: Graph, value: Value, shape: Shape) -> Value:
    """Return the same elements in another shape."""
    if value.shape == shape:
        return value
    before = graph.reshaped.get(value.name, value)  # of two in a row, the last alone
    if before.shape == shape:
        return before
    if before.constant is not None:
        found = graph.constant(before.constant.reshape(shape))
    else:
        found = graph.emit("Reshape", [before, shape], shape, value.dtype, allowzero=1)
    graph.reshaped.setdefault(found.name, before)
    return found


def turned(graph: Graph, value: Value, axes: Shape) -> Value:
    """Return the axes in another order."""
    if axes == tuple(range(len(axes))):
        return value
    if value.constant is not None:
        return graph.constant(value.constant.transpose(axes))
    shape = tuple(value.shape[axis] for axis in axes)
    return graph.emit("Transpose", [value], shape, value.dtype, perm=axes)


def sliced(graph: Graph, value: Value, spans: Sequence[tuple[int, int, int]]) -> Value:
    """Return (start, stop, step) along each axis, as `slice.indices` says them."""
    axes = [
        a for a, (span, n) in enumerate(zip(spans, value.shape, strict=True)) if span != (0, n, 1)
    ]
    if not axes:
        return value
    shape = tuple(len(range(*span)) for span in spans)
    if value.constant is not None:
        keys = tuple(_slice(*span) for span in spans)
        return graph.constant(value.constant[keys])
    starts = tuple(spans[a][0] for a in axes)
    # Below 0 means before the first element, which ONNX expresses by a very low number.
    stops = tuple(spans[a][1] if spans[a][1] >= 0 else -value.shape[a] - 1 for a in axes)
    steps = tuple(spans[a][2] for a in axes)
    return graph.emit("Slice", [value, starts, stops, tuple(axes), steps], shape, value.dtype)


def _slice(start: int, stop: int, step: int) -> slice:
    return slice(start, stop if stop >= 0 else None, step)


class View(NamedTuple):
    """One step from an array to a view.

    what: the axes of a transpose, or the (start, stop, step) of each axis of a slice.
    """

    kind: Literal["reshape", "transpose", "slice"]
    before: Shape
    after: Shape
    what: tuple[Any, ...] = ()

    def read(self, graph: Graph, value: Value) -> Value:
        """Return the view of a value."""
        if self.kind == "transpose":
            return turned(graph, value, self.what)
        if self.kind == "slice":
            return sliced(graph, value, self.what)
        return reshaped(graph, value, self.after)

    def undone(self, graph: Graph, value: Value) -> Value:
        """Return the value whose view this is; impossible for a slice."""
        if self.kind == "transpose":
            return turned(graph, value, tuple(self.what.index(a) for a in range(len(self.what))))
        return reshaped(graph, value, self.before)


class OnnxArray:
    """Memory, and the steps that lead to this view of it."""

    __slots__ = ("dtype", "memory", "shape", "views")

    def __init__(self, memory: Memory, views: tuple[View, ...] = ()) -> None:
        self.memory, self.views = memory, views
        self.shape = views[-1].after if views else memory.shape
        self.dtype = memory.dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def strides(self) -> Shape:
        """The strides as if the elements were contiguous."""
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> OnnxArray:
        """The same elements in another shape."""
        after = _without_elements(self.shape).reshape(*shape).shape
        if after == self.shape:
            return self
        return OnnxArray(self.memory, (*self.views, View("reshape", self.shape, after)))

    def transpose(self, axes: Sequence[int]) -> OnnxArray:
        """The axes in another order."""
        order = tuple(axis % len(self.shape) for axis in axes)
        after = tuple(self.shape[axis] for axis in order)
        return OnnxArray(self.memory, (*self.views, View("transpose", self.shape, after, order)))

    def __getitem__(self, key: Any) -> OnnxArray:
        spans = _spans(key if isinstance(key, tuple) else (key,), self.shape)
        after = tuple(len(range(*span)) for span in spans)
        view = self
        if spans != tuple((0, n, 1) for n in self.shape):
            view = OnnxArray(self.memory, (*self.views, View("slice", self.shape, after, spans)))
        return view.reshape(_without_elements(self.shape)[key].shape)

    def read(self) -> Value:
        """Return the elements."""
        views = self.views
        if views and views[0].kind == "slice" and all(step == 1 for _, _, step in views[0].what):
            box = tuple((start, stop) for start, stop, _ in views[0].what)
            known = self.memory.read_box(box)
            if known is not None:
                return _seen(self.memory.graph, known, views[1:])
        return _seen(self.memory.graph, self.memory.read(), views)

    def write(self, value: Value) -> None:
        """Replace the elements."""
        graph = self.memory.graph
        for number in range(len(self.views) - 1, -1, -1):
            view = self.views[number]
            if view.kind != "slice":
                value = view.undone(graph, value)
                continue
            box = tuple((start, stop) for start, stop, _ in view.what)
            if any(step != 1 for _, _, step in view.what):
                raise OnnxExportError("it writes to every other element of an array")
            if number == 0:
                self.memory.write_box(box, value)
                return
            around = Memory(graph, view.before, self.dtype)
            around.write(OnnxArray(self.memory, self.views[:number]).read())
            around.write_box(box, value)
            value = around.read()
        self.memory.write(value)


def _seen(graph: Graph, value: Value, views: Sequence[View]) -> Value:
    for view in views:
        value = view.read(graph, value)
    return value


def _without_elements(shape: Shape) -> NDArray[Any]:
    """An array of a shape, for NumPy to compute the result's shape."""
    return np.broadcast_to(np.empty(()), shape)


def _spans(parts: tuple[Any, ...], shape: Shape) -> tuple[tuple[int, int, int], ...]:
    """(start, stop, step) along each axis of an index."""
    given = [part for part in parts if part is not None]
    rest = [slice(None)] * (len(shape) - sum(part is not ... for part in given))
    at = next((i for i, part in enumerate(given) if part is ...), len(given))
    listed = [*given[:at], *rest, *given[at + 1 :]]
    return tuple(
        part.indices(n) if isinstance(part, slice) else (part % n, part % n + 1, 1)
        for part, n in zip(listed, shape, strict=True)
    )
