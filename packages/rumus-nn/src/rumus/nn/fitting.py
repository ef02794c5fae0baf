"""Adapting foreign weights to the names, shapes and dtypes of a model, and reporting misfits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.nn.state import OwnState, same_bits
from rumus.nn.weights_file import WeightsFileError
from rumus.tensor import DType, StateMismatchError, Tensor
from rumus.tensor.expression.arguments import checked_fields
from rumus.tensor.expression.masked import unmasked

_SHOWN: Final = 12  # names of each kind in a message
_LONGEST: Final = 200  # characters of a name in a message


class WrongShape(NamedTuple):
    """A tensor whose shapes in the file and in the model differ.

    name: in the model.
    found: the shape in the file.
    needed: the shape in the model.
    """

    name: str
    found: tuple[int, ...]
    needed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was loaded from a file, and what did not fit; `str` lists the misfits, if any.

    loaded: names in the model that were loaded.
    missing: names in the model that the file lacks.
    unexpected: names in the file that the model lacks.
    wrong_shapes: names in the model, with both shapes.

    >>> from rumus.nn import LoadReport
    >>> report = LoadReport(("body.weight",), ("head.bias",), (), ())
    >>> report.fits, str(report)
    (False, 'head.bias: missing')
    >>> str(LoadReport(("body.weight", "head.bias"), (), (), ()))
    'all 2 tensors loaded'
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shapes: tuple[WrongShape, ...]

    @property
    def fits(self) -> bool:
        """Whether all tensors of the file were loaded, and all of the model."""
        return not (self.missing or self.unexpected or self.wrong_shapes)

    def __str__(self) -> str:
        if self.fits:
            return f"all {len(self.loaded)} tensors loaded"
        return "\n".join(
            [
                *_some([f"{_short(name)}: missing" for name in self.missing]),
                *_some([f"{_short(name)}: unexpected" for name in self.unexpected]),
                *_some([f"{_short(w.name)}: shape {w.found} in the file, expected {w.needed}"
                        for w in self.wrong_shapes]),
            ]
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."


def _some(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"... and {rest} more like this"] if rest > 1 else list(lines)


@checked_fields
@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of a file belongs in a model.

    name: of the tensor in the model.
    part: the index of the piece along the first axis.
    of: the number of pieces.
    is_transposed: whether a matrix has its inputs first in the file.
    """

    name: str
    part: int = 0
    of: int = 1
    is_transposed: bool = False


# From the name of a tensor in a file to its place; None if it is not a weight.
Rename: TypeAlias = Callable[[str], "str | Place | None"]


def place_of(name: str, rename: Rename | None) -> Place | None:
    """Return the place of a tensor; without `rename` it has the same name here."""
    place = name if rename is None else rename(name)
    return Place(place) if isinstance(place, str) else place


def fit(
    own: OwnState, weights: Mapping[str, ArrayLike], rename: Rename | None, *, strict: bool
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the foreign weights that fit, by name in the model and on its device, and a report.

    StateMismatchError if anything does not fit and `strict`, if nothing fits, or if the weights are
    ambiguous: see `Module.load_weights`.
    """
    fitting = _Fitting(own, weights, rename)
    report = fitting.report
    if report.fits or (report.loaded and not strict):
        return fitting.found, report
    lines = str(report).splitlines()
    if not report.loaded and report.missing and report.unexpected:
        lines.append(
            "no name matches: use rename= to map names such as "
            f"{_short(report.unexpected[0])!r} to names such as {report.missing[0]!r}; "
            "rumus.nn.names has tables"
        )
    raise _refusal(own, lines)


def _refusal(own: OwnState, lines: Sequence[str]) -> StateMismatchError:
    listed = "\n  ".join(lines)
    return StateMismatchError(
        f"these weights do not fit {own.owner}; nothing was loaded:\n  {listed}"
    )


class _Fitting:
    """The arrays of a foreign file, adapted to the names, shapes and dtypes of a model."""

    def __init__(self, own: OwnState, weights: Mapping[str, ArrayLike], rename: Rename | None):
        self._own, self._weights = own, weights
        self._sources: dict[str, dict[int, list[tuple[str, Place]]]] = {}  # by name, then part
        self._unexpected: list[str] = []
        self._wrong_shapes: list[WrongShape] = []
        for name in weights:
            self._put(name, place_of(name, rename))
        self.found = self._assembled()
        self.report = LoadReport(
            tuple(self.found),
            tuple(name for name in own.tensors if name not in self._sources),
            tuple(self._unexpected),
            tuple(self._wrong_shapes),
        )

    def _put(self, name: str, place: Place | None) -> None:
        if place is None:
            return
        own = self._own.aliases.get(place.name, place.name)
        if own in self._own.tensors:
            self._sources.setdefault(own, {}).setdefault(place.part, []).append((name, place))
        elif own not in self._own.ignored:
            self._unexpected.append(name)

    def _assembled(self) -> dict[str, Tensor]:
        """Read and convert tensors one by one, so that only one exists twice at a time."""
        found, refused = {}, []
        for name, own in self._own.tensors.items():
            if name not in self._sources:
                continue
            parts = self._sources[name]
            try:
                array = self._joined(name, parts)
                if array.shape == own.shape:
                    found[name] = self._own.staged(name, _converted(array, own.dtype))
                else:
                    self._wrong_shapes.append(WrongShape(name, array.shape, own.shape))
            except WeightsFileError:
                raise
            except ValueError as error:
                refused.append(f"{name}: {error}")
        if refused:
            raise _refusal(self._own, _some(refused))
        return found

    def _joined(self, name: str, parts: Mapping[int, list[tuple[str, Place]]]) -> NDArray[Any]:
        """The array for a tensor of the model. ValueError if it is ambiguous."""
        whole = next(iter(parts.values()))[0][1].of
        if sorted(parts) != list(range(whole)):
            names = ", ".join(source for found in parts.values() for source, _ in found)
            raise ValueError(f"needs {whole} tensors; the file has only {names}")
        pieces = [self._one(parts[part]) for part in range(whole)]
        if whole == 1:
            return pieces[0]
        if len({piece.shape[1:] for piece in pieces}) > 1 or pieces[0].ndim == 0:
            shapes = ", ".join(str(piece.shape) for piece in pieces)
            raise ValueError(f"needs tensors that cannot be joined: {shapes}")
        return np.concatenate(pieces)

    def _one(self, sources: list[tuple[str, Place]]) -> NDArray[Any]:
        """The array of one place; several names may refer to it only if their tensors are equal."""
        first, place = sources[0]
        array = self._array(first)
        for other, _ in sources[1:]:
            if not same_bits(array, self._array(other)):
                raise ValueError(f"the file has two tensors for it, {first} and {other}")
        return array.T if place.is_transposed and array.ndim == 2 else array

    def _array(self, name: str) -> NDArray[Any]:
        """Convert a tensor, of PyTorch for example, with NumPy."""
        try:
            return unmasked(self._weights[name])
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{name} cannot become a NumPy array: {error}") from error


def _converted(array: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Return an array in the dtype of the model. ValueError if that loses more than precision."""
    if array.dtype == dtype:
        return array
    if dtype.kind == "f" and array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            found = array.astype(dtype)
        if np.isinf(found).any() and not np.array_equal(np.isinf(found), np.isinf(array)):
            largest = np.abs(array[np.isfinite(array)]).max()
            raise ValueError(f"numbers up to {largest:.3g} do not fit {dtype}")
        return found
    if dtype.kind == "i" and array.dtype.kind in "iu":
        found = array.astype(dtype)
        if np.array_equal(found, array):
            return found
        raise ValueError(f"{array.dtype} numbers in the file do not fit {dtype}")
    raise ValueError(f"{array.dtype} in the file, expected {dtype}")
