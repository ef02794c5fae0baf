"""A module's tensors, and whether saved arrays fit them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from rumus.tensor import StateMismatchError, Tensor, tensor
from rumus.tensor.expression.masked import unmasked
from rumus.tensor.memory.uninterrupted import Uninterrupted


@dataclass(frozen=True, slots=True)
class OwnState:
    """The tensors of a module.

    tensors: each under its first name. aliases: further names of tied ones, with the first.
        ignored: names that other programs save, and that have no meaning here.
    """

    owner: str
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    ignored: Collection[str]

    def check(self, state: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """Return `state` as arrays by first name.

        StateMismatchError lists every way in which it does not fit.
        """
        given = {name: unmasked(value) for name, value in state.items()}
        arrays, differences = self._untied(given)
        differences += [f"{name}: missing" for name in self.tensors if name not in arrays]
        for name, array in list(arrays.items()):
            if name in self.tensors:
                differences += _differences(name, array, self.tensors[name])
            elif name in self.ignored:
                del arrays[name]
            else:
                differences.append(f"{name}: unexpected")
        if differences:
            lines = "\n  ".join(differences)
            raise StateMismatchError(
                f"this state does not fit {self.owner}; nothing was loaded:\n  {lines}"
            )
        return arrays

    def staged(self, name: str, array: NDArray[Any]) -> Tensor:
        """Return an array on the tensor's device: an upload may fail, a copy does not."""
        return tensor(array, dtype=array.dtype, backend=self.tensors[name].backend)

    def assign(self, found: Mapping[str, Tensor]) -> None:
        """Write the staged arrays."""
        with Uninterrupted():
            for name, value in found.items():
                self.tensors[name].assign(value)

    def _untied(
        self, given: Mapping[str, NDArray[Any]]
    ) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Map arrays to their first names; arrays of one tensor must be equal."""
        arrays: dict[str, NDArray[Any]] = {}
        differences = []
        for name, array in given.items():
            first = self.aliases.get(name, name)
            if first in arrays and not same_bits(arrays[first], array):
                differences.append(
                    f"{name}: is tied to another name here, but saved with other values"
                )
            arrays.setdefault(first, array)
        return arrays, differences


def _differences(name: str, array: NDArray[Any], own: Tensor) -> Iterable[str]:
    pairs = (("shape", array.shape, own.shape), ("dtype", array.dtype, own.dtype))
    for what, found, wanted in pairs:
        if found != wanted:
            yield f"{name}: saved {what} {found}, expected {wanted}"


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal, including NaN and signs of zeros."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
