"""`einsum`: products of tensors, summed over the axes that the result does not name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_letters

import numpy as np

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import bool_, int32, is_floating
from rumus.tensor.graph.linear_algebra import matmul
from rumus.tensor.graph.means import note_dot
from rumus.tensor.graph.tensor import Tensor, backend_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import ask_host


@checked_arguments
def outer(x: Tensor, y: Tensor) -> Tensor:
    """The product of each element of x with each of y: (n,) and (m,) to (n, m).

    x: (n,).
    y: (m,).

    ValueError for anything but vectors.

    >>> from rumus.tensor import outer, tensor
    >>> outer(tensor([1.0, 2.0]), tensor([3.0, 4.0])).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"outer: expected two vectors, got {x.shape} and {y.shape}")
    return x.unsqueeze(1) * y


@checked_arguments
def einsum(subscripts: str, *operands: Tensor) -> Tensor:
    """A sum of products, described by a letter for each axis as in `numpy.einsum`.

    subscripts: the letters of each operand, separated by commas, then "->" and those of the result.
        Axes whose letters are not in the result are summed over; a letter repeated in an operand
        takes its diagonal. "..." stands for further axes, which broadcast. Without "->" the result
        has the letters that occur once, in alphabetical order.
    operands: floating, on one backend; they are multiplied pairwise, as matrices if an axis is
        summed over, in the order that `numpy.einsum_path` chooses.

    ValueError for subscripts that do not fit the operands.

    >>> from rumus.tensor import einsum, ones
    >>> einsum("bij,bjk->bik", ones((2, 3, 4)), ones((2, 4, 5))).shape
    (2, 3, 5)
    >>> einsum("ii", ones((3, 3))).item()
    3.0
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"einsum: subscripts must be text such as 'ij,jk->ik', not {subscripts!r}")
    terms, result = _parsed(subscripts, operands)
    lengths = _lengths(subscripts, terms, operands)
    backend_of("einsum", operands)
    parts = [
        _diagonals(x.astype(np.float32) if x.dtype == bool_ else x, term)
        for x, term in zip(operands, terms, strict=True)
    ]
    for pair in _path(parts, result, lengths):
        taken = [parts.pop(at) for at in sorted(pair, reverse=True)]
        kept = set(result).union(*(term for _, term in parts))
        x, term = taken[0]
        for other, named in taken[1:]:
            x, term = _product(other, named, x, term, kept)
        parts.append(_summed(x, term, kept))
    ((x, term),) = parts
    if not result:
        return note_dot(x, *operands)
    return x.permute(*(term.index(letter) for letter in result)) if term != result else x


def _parsed(subscripts: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with "..." expanded."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ValueError(
            f"einsum: {subscripts!r} describes {len(terms)} operands; {len(operands)} were given"
        )
    for term in [*terms, right]:
        if not set(term.replace("...", "", 1)) <= set(ascii_letters):
            raise ValueError(
                f"einsum: {term!r} in {subscripts!r} may contain only letters and one '...'"
            )
    free = [letter for letter in ascii_letters if letter not in subscripts]
    hidden = 0
    for n, (term, x) in enumerate(zip(terms, operands, strict=True)):
        named = len(term.replace("...", ""))
        if named > x.ndim or (named < x.ndim and "..." not in term):
            raise ValueError(f"einsum: {term!r} in {subscripts!r} does not fit shape {x.shape}")
        more = x.ndim - named
        hidden = max(hidden, more)
        terms[n] = term.replace("...", "".join(free[:more][::-1]))
    dots = "".join(free[:hidden][::-1])
    if not arrow:
        once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        return terms, dots + "".join(once)
    if hidden and "..." not in right:
        raise ValueError(f"einsum: the result of {subscripts!r} needs '...' for the remaining axes")
    result = right.replace("...", dots)
    if len(set(result)) < len(result) or not set(result) <= set("".join(terms)):
        raise ValueError(
            f"einsum: the result of {subscripts!r} must name axes of the operands, each at most "
            "once"
        )
    return terms, result


def _lengths(subscripts: str, terms: Sequence[str], operands: Sequence[Tensor]) -> dict[str, int]:
    """The length of each letter; ValueError for two lengths that do not broadcast."""
    found: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, length in zip(term, x.shape, strict=True):
            known = found.get(letter, 1)
            if known != length and 1 not in (known, length):
                name = "..." if letter not in subscripts else letter
                raise ValueError(
                    f"einsum: {name!r} in {subscripts!r} is both {known} and {length} long"
                )
            found[letter] = length if known == 1 else known
    return found


_Part = tuple[Tensor, str]


def _diagonals(x: Tensor, term: str) -> _Part:
    """An operand without repeated letters: replaced by diagonals."""
    while len(set(term)) < len(term):
        letter = next(c for c in term if term.count(c) > 1)
        first = term.index(letter)
        second = term.index(letter, first + 1)
        others = [at for at in range(x.ndim) if at not in (first, second)]
        rows, columns = x.shape[first], x.shape[second]
        if rows != columns:
            raise ValueError(
                f"einsum: the diagonal {letter!r} of shape {x.shape} is not of a square"
            )
        turned = x.permute(first, second, *others)
        flat = turned.reshape(rows * rows, *turned.shape[2:])
        x = flat[:: rows + 1] if rows else flat
        term = letter + "".join(term[at] for at in others)
    return x, term


def _path(parts: Sequence[_Part], result: str, lengths: dict[str, int]) -> list[tuple[int, ...]]:
    """Which operands to multiply next, by position: they are replaced by a product at the end."""
    if len(parts) < 3:
        return [tuple(range(len(parts)))]
    zero = np.zeros(())
    shaped = [np.broadcast_to(zero, tuple(max(1, lengths[c]) for c in term)) for _, term in parts]
    text = f"{','.join(term for _, term in parts)}->{result}"
    return [tuple(pair) for pair in np.einsum_path(text, *shaped, optimize="greedy")[0][1:]]


def _summed(x: Tensor, term: str, kept: set[str]) -> _Part:
    """A part, summed over the axes that nothing else uses."""
    axes = tuple(at for at, letter in enumerate(term) if letter not in kept)
    left = "".join(letter for letter in term if letter in kept)
    return (x.sum(axes) if axes else x), left


def _check_products(x: Array, y: Array) -> None:
    """Raise OverflowError for a product of integers beyond int32, of arrays that broadcast."""
    if not x.size or not y.size:
        return
    largest = [max(int(each.max()), -int(each.min())) for each in (x, y)]
    if largest[0] * largest[1] <= np.iinfo(int32).max:
        return
    wide = np.multiply(x, y, dtype=np.int64)
    if (beyond := wide != wide.astype(np.int32)).any():
        raise OverflowError(
            f"einsum: the product {wide[beyond][0]} does not fit int32; convert the tensors to "
            "float64, or compute it in NumPy"
        )


def _product(x: Tensor, first: str, y: Tensor, second: str, kept: set[str]) -> _Part:
    """The product of two parts, summed over the letters that only they have."""
    ones = {c for term, t in ((first, x), (second, y)) for c, n in zip(term, t.shape, strict=True)
            if n == 1}  # fmt: skip
    x, first = _summed(x, first, kept | set(second))
    y, second = _summed(y, second, kept | set(first))
    shared = [c for c in first if c in second]
    # An axis of length 1 broadcasts, so matrices cannot be multiplied along it.
    summed = [c for c in shared if c not in kept and c not in ones]
    batch = [c for c in shared if c not in summed]
    mine = [c for c in first if c not in second]
    others = [c for c in second if c not in first]
    x = x.permute(*(first.index(c) for c in (*batch, *mine, *summed)))
    y = y.permute(*(second.index(c) for c in (*batch, *summed, *others)))
    places = len(batch), len(mine), len(summed)
    left, right = x.shape[: places[0]], y.shape[: places[0]]
    rows, columns = x.shape[places[0] : places[0] + places[1]], y.shape[places[0] + places[2] :]
    if summed and is_floating(x.dtype) and is_floating(y.dtype):
        inner = math.prod(x.shape[places[0] + places[1] :])
        found = matmul(
            x.reshape(*left, math.prod(rows), inner), y.reshape(*right, inner, math.prod(columns))
        )
        lead = found.shape[: places[0]]
        found = found.reshape(*lead, *rows, *columns)
    else:  # elementwise, each axis in its own position
        x = x.reshape(*x.shape, *[1] * len(columns))
        y = y.reshape(*right, *[1] * places[1], *y.shape[places[0] :])
        if x.dtype == y.dtype == int32 and not x.backend.runs_ahead:
            ask_host(_check_products, (x._array, y._array))
        found = x * y
        axes = tuple(range(places[0] + places[1], places[0] + places[1] + places[2]))
        found = found.sum(axes) if axes else found
    return _summed(found, "".join((*batch, *mine, *others)), kept)
