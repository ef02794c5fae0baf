"""`Sequential`: one module after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import overload

from rumus.nn.activation import Activation
from rumus.nn.containers import Ordered
from rumus.nn.linear import Linear
from rumus.nn.module import Module, runs
from rumus.tensor import Tensor
from rumus.tensor.expression.declared_type import shown


class Sequential(Ordered[Module]):
    """Applies modules in order, each to the previous one's result; without any, the identity.

    Indexing returns a module, slicing a `Sequential` of the same modules.

    layers: modules; TypeError for anything else.

    >>> from rumus.nn import Linear, ReLU, Sequential
    >>> from rumus.tensor import ones
    >>> model = Sequential(Linear(3, 4), ReLU(), Linear(4, 2))
    >>> model(ones((5, 3))).shape, model[:2](ones((5, 3))).shape, len(model)
    ((5, 2), (5, 4), 3)
    """

    def __init__(self, *layers: Module) -> None:
        name, first = type(self).__name__, layers[0] if len(layers) == 1 else None
        if isinstance(first, Iterable) and not isinstance(first, Module):
            written = "*modules.values()" if isinstance(first, Mapping) else "*modules"
            raise TypeError(
                f"{name} takes modules one by one, not {shown(first)}: {name}({written})"
            )
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in order, fusing an activation with the `Linear` before it.

        x: the input of the first layer.
        """
        for layer, activation in _steps(_flat(self)):
            x = layer(x) if activation is None else layer(x, activation=activation.function)
        return x

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module | Sequential:
        if isinstance(index, slice):
            return Sequential(*self._modules[index])
        return self._modules[self._place(index)]


def _flat(model: Sequential) -> Iterator[Module]:
    """Each layer, those of a `Sequential` in it one by one: depth costs no recursion."""
    waiting = {id(model): iter(model._modules)}
    while waiting:
        for layer in next(reversed(waiting.values())):
            if isinstance(layer, Sequential) and runs(layer, Sequential.forward):
                if id(layer) in waiting:
                    raise RecursionError(f"{type(layer).__name__} contains itself")
                waiting[id(layer)] = iter(layer._modules)
                break
            yield layer
        else:
            waiting.popitem()


def _steps(layers: Iterable[Module]) -> Iterator[tuple[Module, Activation | None]]:
    """Each layer; a `Linear` together with the activation after it, if any."""
    rest = iter(layers)
    layer = next(rest, None)
    while layer is not None:
        following = next(rest, None)
        is_linear = isinstance(layer, Linear) and runs(layer, Linear.forward)
        if is_linear and isinstance(following, Activation) and runs(following, Activation.forward):
            yield layer, following
            following = next(rest, None)
        else:
            yield layer, None
        layer = following
