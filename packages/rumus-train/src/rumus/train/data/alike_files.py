"""Folders whose files are called alike, as images and what belongs to each of them are."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

_NUMBER: Final = re.compile(r"\d{1,300}")


def alike_in_files(folder: Path, files: Iterable[Path]) -> list[str]:
    """The folders whose files have the same names, but for what all of a folder have in common.

    As a_mask.png has in common with b_mask.png, and for their suffixes: masks of photographs are in
    another format. Of two folders, some files may have no partner. Names that merely count are the
    same in any two classes of one size: they say so of two folders only, that are all there are.

    folder: in which they are. files: in any depth.
    """
    stems, start = defaultdict[str, set[str]](set), len(str(folder)) + 1
    for path in files:
        name, _, below = os.path.splitext(str(path)[start:])[0].partition(os.sep)
        stems[name].add(below)
    alike, counting = defaultdict[frozenset[str], list[str]](list), 0
    for name, found in stems.items():
        if not are_numbered(found, is_dense=True):
            alike[_bare(found)].append(name)
            continue
        counting += 1
        if len(stems) == 2 and not any(os.sep in stem for stem in found):
            alike[frozenset(found)].append(name)
    same = (names for found, names in alike.items() if len(names) > 1 < len(found))
    if len(stems) == len(alike) == 2 and not counting:
        one, other = alike
        if len(one & other) > max(1, len(one | other) // 2):
            return [*stems]
    return next(same, [])


def are_numbered(names: Collection[str], *, is_dense: bool = False) -> bool:
    """Whether names are the same but for their numbers.

    is_dense: whether most of the numbers between are there, too.

    >>> are_numbered(["video1", "video22"]), are_numbered(["7", "900"], is_dense=True)
    (True, False)
    """
    if len({_NUMBER.sub("0", name) for name in names}) > 1:
        return False
    columns = zip(*(map(int, _NUMBER.findall(name)) for name in names), strict=True)
    return not is_dense or all(max(c) - min(c) < 2 * len(set(c)) for c in columns)


def _bare(stems: Collection[str]) -> frozenset[str]:
    """Names without what all of them begin and end with."""
    start, end = _common(stems), _common([stem[::-1] for stem in stems])
    found = frozenset(stem[start : len(stem) - end] for stem in stems)
    return found if len(found) == len(stems) else frozenset(stems)


def _common(texts: Collection[str]) -> int:
    """The number of letters that all texts begin with."""
    first, last = min(texts), max(texts)  # others are between them
    differ = (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differ, min(len(first), len(last)))
