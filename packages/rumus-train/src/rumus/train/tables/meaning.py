"""`Meaning`: what the numbers of a loader stand for, which all data of one model must share."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Self

from rumus.train.base.class_names import class_difference, classes_of
from rumus.train.base.datasets import datasets_of
from rumus.train.base.printable import printable
from rumus.train.data.dataset import ArrayDataset
from rumus.train.data.image_folder import ImageFolder
from rumus.train.tables.feature_encoding import FeatureEncoding, as_targets


@dataclass(frozen=True, slots=True)
class Meaning:
    """The names of the classes, the features of a table, and the order of its targets.

    columns: the names of the features, or of the columns of data frames in an `ArrayDataset`, for
    each of its arrays. mode: of images.

    What a loader does not say is empty, and agrees with everything.
    """

    classes: list[str]
    encoding: FeatureEncoding | None
    targets: list[str]
    columns: list[list[str]]
    mode: str

    @classmethod
    def of(cls, loader: object) -> Self:
        """Return that of a loader, from its dataset or the one behind a subset."""
        found = [*datasets_of(loader)]
        encodings = [getattr(each, "_encoding", None) for each in found]
        encoding = next((e for e in encodings if isinstance(e, FeatureEncoding)), None)
        table = next((d for d, e in zip(found, encodings, strict=True) if e is encoding), None)
        target = None if encoding is None else getattr(table, "_target", None)
        arrays = (each for each in found if isinstance(each, ArrayDataset))
        columns = getattr(next(arrays, None), "column_names", [])
        if encoding is not None:
            columns = [encoding.names]
        images = next((each for each in found if isinstance(each, ImageFolder)), None)
        mode = "" if images is None else images.mode
        return cls(classes_of(loader), encoding, as_targets(target), columns, mode)

    def require_same(self, other: Meaning, name: str) -> None:
        """Raise ValueError, with the first difference, for other data that means something else.

        name: of the other data, such as "validation".
        """
        if (how := class_difference(self.classes, other.classes, name)) is not None:
            raise ValueError(how)
        if self.mode and other.mode and self.mode != other.mode:
            raise ValueError(
                f"the images of training have mode {self.mode}, those of {name} mode {other.mode}: "
                "give both the same mode="
            )
        if self.encoding is not None and other.encoding is not None:
            how = self.encoding.difference(other.encoding, name)
            if how is None:
                self.encoding.warn_of_sizes(name, other.encoding.sizes)
            if how is None and self.targets and other.targets and self.targets != other.targets:
                how = f"the targets of training are {self.targets}, those of {name} {other.targets}"
            are_numbers = [not each.classes for each in (self, other) if each.targets]
            if how is None and are_numbers in ([False, True], [True, False]):
                kinds = ["numbers" if each else "names of classes" for each in are_numbers]
                how = f"the targets of training are {kinds[0]}, those of {name} {kinds[1]}"
            if how is not None:
                raise ValueError(f"{how}; read the second table with train.like(path)")
        for ours, theirs in zip(self.columns, other.columns, strict=False):
            if ours and theirs and ours != theirs:
                pairs = zip(ours, theirs, strict=False)
                alike = min(len(ours), len(theirs))
                place = next((n for n, (a, b) in enumerate(pairs) if a != b), alike)
                told = " and ".join(printable(each[place : place + 3]) for each in (ours, theirs))
                raise ValueError(
                    f"the columns of training and {name} differ from number {place} on: {told}; "
                    "give both the same ones in one order, as second[first.columns] does"
                )

    def fingerprints(self) -> dict[str, Any]:
        """Return it as short texts for JSON, so that a resumed run notices other data."""
        found: dict[str, Any] = {}
        if self.classes:
            found["classes"] = _short(self.classes)
        if any(self.columns) and self.encoding is None:
            found["columns"] = _short([name for names in self.columns for name in names])
        if self.encoding is not None:
            found["features"] = _short(self.encoding.names)
            learned = repr([self.encoding.means, self.encoding.deviations, self.encoding.missing])
            found["means"] = zlib.crc32(learned.encode())
        return found


def _short(names: list[str]) -> str:
    """Names in a text of bounded length that differs where they do."""
    told = ", ".join(names)
    crc = zlib.crc32(repr(names).encode("utf-8", "surrogatepass"))
    return told if len(told) <= 100 else f"{told[:80]}... ({len(names)}, {crc:08x})"
