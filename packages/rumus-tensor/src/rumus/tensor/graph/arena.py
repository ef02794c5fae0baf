"""`Arena`: parameters side by side in one flat array, and their gradients in another.

A step over an arena is one kernel, a norm is one reduction and a copy is one transfer, however many
parameters there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.dtype import DType, as_dtype
from rumus.tensor.graph.autograd import Version
from rumus.tensor.graph.parameter import Parameter
from rumus.tensor.graph.shaping import require_backend
from rumus.tensor.graph.slot import Slot
from rumus.tensor.graph.store import GradientStore
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.slot_table import SlotTable, slot_size


def fitting(parameters: Sequence[Parameter], dtype: DType, limit: int) -> Iterator[list[Parameter]]:
    """Split parameters into runs whose arenas have at most `limit` bytes each.

    A parameter that alone is larger gets its own run, which its backend may refuse.
    """
    part: list[Parameter] = []
    size = 0
    for parameter in parameters:
        needed = slot_size(parameter.size) * dtype.itemsize
        if part and size + needed > limit:
            yield part
            part, size = [], 0
        part.append(parameter)
        size += needed
    yield part


class Arena:
    """The memory of parameters of one dtype, on one backend.

    table: the parameters' positions, for computations per parameter. Creating an arena does not
        change the parameters; `adopt` makes them views of it. The gaps between slots are 0 in the
        values and the gradients.

    parameters: of one dtype, in memory order.
    dtype: floating, of all its parameters.
    backend: that owns its memory.
    """

    @checked_arguments
    def __init__(self, parameters: Sequence[Parameter], dtype: DType, backend: Backend) -> None:
        self.parameters = tuple(parameters)
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"Arena takes parameters, not {shown(parameter)}")
        require_backend(backend)
        self.dtype = dtype = as_dtype(dtype)
        self.backend = backend
        self.version = Version()
        self.table = SlotTable([parameter.size for parameter in parameters])
        starts, self.size = self.table.starts, self.table.size
        self.values = self.zeros()
        self.gradients = self.zeros()
        self.slots = tuple(
            Slot(
                start,
                p.size,
                self._view(self.values, start, p),
                self._view(self.gradients, start, p),
            )
            for start, p in zip(starts, parameters, strict=True)
        )
        self.numbers = tuple(parameter.id for parameter in parameters)
        self.slot_gradients = tuple(slot.gradient for slot in self.slots)
        for parameter, slot in zip(parameters, self.slots, strict=True):
            if parameter._backend is backend:
                backend.copy(parameter._array, slot.value)
            else:
                backend.copy(backend.upload(parameter.numpy()), slot.value)

    def _view(self, flat: Array, start: int, parameter: Parameter) -> Array:
        return flat[start : start + parameter.size].reshape(parameter.shape)

    def zeros(self, dtype: DType | None = None) -> Array:
        """Return a flat array of this layout, all 0: for an optimizer's state.

        dtype: the parameters' own by default.
        """
        flat = self.backend.allocate((self.size,), dtype or self.dtype)
        self.backend.fill(0, flat)
        return flat

    def views(self, flat: Array) -> list[Array]:
        """Return each parameter's part of a flat array, in its shape.

        flat: as long as the arena.
        """
        pairs = zip(self.slots, self.parameters, strict=True)
        return [self._view(flat, slot.start, parameter) for slot, parameter in pairs]

    def adopt(self) -> None:
        """Make the parameters views of this arena."""
        for parameter, slot in zip(self.parameters, self.slots, strict=True):
            if parameter._backend is not self.backend:
                parameter._version.count += 1
                parameter._backend = self.backend
            parameter._array = slot.value
            parameter._slot = slot
            self._share(parameter, self.version)

    def release(self) -> None:
        """Release the parameters; they keep their values."""
        for parameter, slot in zip(self.parameters, self.slots, strict=True):
            if parameter._slot is slot:
                parameter._slot = None
                self._share(parameter, None)

    def _share(self, parameter: Parameter, version: Version | None) -> None:
        """Replace the shared part of the parameter's version without changing its value."""
        own = parameter._version
        before = own.current
        own.shared = version
        own.count = before - (0 if version is None else version.count)

    def collect(self, store: GradientStore) -> Array:
        """Return the gradients in `store` as one flat array of this layout.

        Usually `backward` wrote them there; otherwise they are copied into a new array.

        store: what `backward` returned.

        KeyError for a parameter without one.
        """
        if self.holds(store):
            return self.gradients
        found = [store.array(parameter) for parameter in self.parameters]
        flat = self.zeros()
        for gradient, view in zip(found, self.views(flat), strict=True):
            self.backend.copy(gradient, view)
        return flat

    def holds(self, store: GradientStore) -> bool:
        """Whether all gradients in `store` are in this arena.

        store: what `backward` returned.
        """
        return store.holds(self.numbers, self.slot_gradients)

    def drain(self, store: GradientStore, collected: Array, by: str) -> None:
        """Remove the collected gradients from a store.

        store: what `backward` returned.
        collected: what `collect` returned.
        by: who drains it, for error messages.
        """
        if collected is self.gradients:
            store.drain_lent(self.numbers, self.slots, by)
        else:
            store.drain(self.parameters, by)

    def written(self) -> None:
        """Note that the values have changed: a graph that still needs the old ones is stale."""
        self.version.count += 1

    def at(self, index: int) -> Parameter:
        """Return the parameter to which the element `index` of a flat array belongs.

        index: the number of a parameter.
        """
        for parameter, slot in zip(self.parameters, self.slots, strict=True):
            if slot.start <= index < slot.start + math.prod(parameter.shape):
                return parameter
        raise IndexError(f"element {index} of {self.size} lies between the parameters")
