"""`Combination`: means times numbers, added up; and the tensors known to be some.

A loss such as `0.5 * mse + 0.1 * penalty` has no number of terms of its own, but its means do.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar

from rumus.tensor.memory.backend import Array

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor

K = TypeVar("K")


class Total(NamedTuple):
    """Of what something is a sum.

    rows: the length of the first axis. elements: how many were added up. shapes: those of the
        tensors that they were in.
    """

    rows: int
    elements: int
    shapes: frozenset[tuple[int, ...]]

    @staticmethod
    def of(shape: tuple[int, ...]) -> Total:
        """Return that of all elements of a tensor of this shape."""
        return Total(shape[0] if shape else 1, math.prod(shape), frozenset((shape,)))

    def with_more(self, other: Total, *, is_beside: bool) -> Total:
        """Return that of what was added up with another sum. is_beside: of the same samples."""
        rows = max(self.rows, other.rows) if is_beside else self.rows + other.rows
        return Total(rows, self.elements + other.elements, self.shapes | other.shapes)

    def may_count(self, number: float, samples: float) -> bool:
        """Whether a number may be how many terms it has: the samples, or as many of each.

        As many as some of the axes have; 8 is none of two samples with three numbers each.
        """
        if number % samples:
            return False
        return number in (samples, self.elements) or any(
            math.prod(axes) == number
            for shape in self.shapes
            for length in range(1, len(shape) + 1)
            for axes in combinations(shape, length)
        )


@dataclass(frozen=True, slots=True)
class Mean:
    """A computed mean: its tensor, and the number of its terms or their total weight.

    count: None if only the device knows it, in `counted`. is_loss: whether a loss function reported
        it; otherwise it is a mean over all elements of some tensor, or a sum of them by another.
    rows: the length of that tensor, or of the one that was summed; None if it is neither.
    folded: of how many along the first axis that tensor is sums, roots of means or the like; 0 if
        that is not known, None for none. If they are the samples, it is no mean over them.
    is_guess: whether it is a sum by a whole number of the program's, which may count its terms.
    total: what was summed, if nothing but the number itself says that it counts terms.
    is_alias: whether another says the same, of the tensor in other words.
    """

    array: Array
    count: float | None
    counted: Tensor | None = None
    is_loss: bool = True
    rows: int | None = None
    folded: int | None = None
    is_guess: bool = False
    total: Total | None = None
    is_alias: bool = False
    has_means: ClassVar = True

    @property
    def alone(self) -> Combination:
        """It as a combination."""
        return Combination(((1.0, (), self),))

    @property
    def arrays(self) -> list[Array]:
        """Its memory, and that of its count."""
        return [self.array] if self.counted is None else [self.array, self.counted._array]

    def is_in(self, value: Tensor) -> bool:
        """Whether a tensor is this mean itself, not something computed from it."""
        return value._array is self.array


# A number of the program's or of the batch's that multiplies a mean, and to which power.
Factor: TypeAlias = "tuple[Tensor, int]"
Factors: TypeAlias = "tuple[float, float, float]"


@dataclass(frozen=True, slots=True, eq=False)
class Combination:
    """Means, or combinations of means, each times numbers, added up.

    terms: for each its number, the tensors of one number that multiply it too, and what it is:
        `OF_NONE` for what depends on no batch, such as a penalty of parameters, and `OF_ANY` for
        what may, and is no mean, with its value as the number.
    has_means: whether there are any.
    """

    terms: tuple[tuple[float, tuple[Factor, ...], Mean | Combination], ...]
    has_means: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_means", any(what.has_means for *_, what in self.terms))

    def times(self, number: float, *factors: Factor) -> Combination:
        """Return it multiplied by numbers."""
        return Combination(((number, factors, self),))

    @property
    def means(self) -> list[Mean]:
        """The means in it, each once."""
        found = [what for each in self._all for *_, what in each.terms if isinstance(what, Mean)]
        return [*{id(mean): mean for mean in found}.values()]

    @property
    def factors(self) -> Factors:
        """What all means in it are multiplied by, together, what depends on no batch, and the rest.

        The rest is the sum of what is no mean. Waits for a device that knows it.
        """
        found: dict[int, Factors] = {id(OF_NONE): (0.0, 1.0, 0.0), id(OF_ANY): (0.0, 0.0, 1.0)}
        for each in self._all:
            if id(each) not in found:
                found[id(each)] = _added(
                    (number * math.prod(float(factor) ** power for factor, power in factors),
                     OF_MEAN if isinstance(what, Mean) else found[id(what)])
                    for number, factors, what in each.terms
                )  # fmt: skip
        return found[id(self)]

    @property
    def arrays(self) -> list[Array]:
        """The memory of the means and numbers."""
        found = [array for mean in self.means for array in mean.arrays]
        for each in self._all:
            found += [factor._array for _, factors, _ in each.terms for factor, _ in factors]
        return found

    @property
    def _all(self) -> list[Combination]:
        """It and the combinations in it, each once, parts before what they are part of."""
        found, seen = list[Combination](), set[int]()
        left = [(self, False)]
        while left:
            each, is_left = left.pop()
            if is_left:
                found.append(each)
            elif id(each) not in seen:
                seen.add(id(each))
                left.append((each, True))
                parts = [what for *_, what in each.terms if isinstance(what, Combination)]
                left += [(part, False) for part in reversed(parts)]
        return found


Combined: TypeAlias = Mean | Combination


def _added(terms: Iterable[tuple[float, Factors]]) -> Factors:
    """The sum of triples, each times a number."""
    found = [[number * factor for factor in factors] for number, factors in terms]
    means, penalties, others = map(math.fsum, zip(*found, strict=True))
    return means, penalties, others


OF_MEAN: Final[Factors] = (1.0, 0.0, 0.0)  # the factors of a mean alone
OF_NONE: Final = Combination(())  # of what depends on no batch
OF_ANY: Final = Combination(())  # of what may depend on it, and is no mean


class Known(dict[int, tuple["weakref.ref[Any]", K]]):
    """What is known of tensors, by the identity of their arrays, which are not kept alive."""

    def note(self, tensor: Any, what: K) -> None:
        """Note what is known of a tensor."""
        self[id(tensor._array)] = weakref.ref(tensor._array), what

    def of(self, tensor: object) -> K | None:
        """Return what is known of a tensor; None if nothing is, or if it is none."""
        if not self:
            return None
        array = getattr(tensor, "_array", None)
        found = self.get(id(array))
        return found[1] if found is not None and found[0]() is array else None

    def has(self, tensor: object) -> bool:
        """Whether anything is known of a tensor."""
        return self.of(tensor) is not None

    def drop(self, tensor: Tensor) -> None:
        """Forget what is known of a tensor."""
        if self:
            self.pop(id(tensor._array), None)


class Means(list[Mean]):
    """What was reported in a block.

    combined: the tensors that are means, or means times numbers, added up.
    """

    def __init__(self, means: Sequence[Mean] = (), combined: Known[Combined] | None = None):
        super().__init__(means)
        self.combined = Known[Combined]() if combined is None else combined

    def combination(self, value: object) -> Combination | None:
        """Return what a tensor is of means; None if that is not known."""
        found = self.combined.of(value)
        return found.alone if isinstance(found, Mean) else found

    def of(self, values: Sequence[object]) -> Means:
        """Return all means, but only what these values are of combinations."""
        found = Known[Combined]()
        for value in values:
            if (combined := self.combined.of(value)) is not None:
                found.note(value, combined)
        return Means(self, found)

    @property
    def arrays(self) -> list[Array]:
        """The memory of all of them."""
        found = [array for mean in self for array in mean.arrays]
        for _, combination in self.combined.values():
            found += combination.arrays
        return found
