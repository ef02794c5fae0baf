"""What the names of folders of images say: of classes, of splits, or of images and their masks."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_names import warn_of_text_order
from rumus.train.base.printable import printable

# Folders that macOS, Synology, QNAP, Windows, Linux and Python add by themselves.
_OF_SYSTEMS: Final = frozenset(
    {
        "__MACOSX", "@eaDir", "#recycle", "@Recycle", "System Volume Information", "lost+found",
        "__pycache__",
    }
)  # fmt: skip
_TRAINED_ON: Final = frozenset({"train", "training"})
_HELD_OUT: Final = frozenset(
    {
        "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout",
        "extra", "unlabeled", "unlabelled",
    }
)  # fmt: skip
_FOLDS: Final = frozenset({"fold", "split", "part", "subset", "set", "batch"})
# Folders of images, and of what belongs to each of them, in data sets for segmentation.
_IMAGES: Final = frozenset(
    {"image", "images", "img", "imgs", "imagestr", "imagests", "jpegimages", "pictures", "photos"}
)
_OF_SETS: Final = _IMAGES | {
    "set", "data", "dataset", "split", "folder", "batch", "part", "public", "private", "hidden"
}  # fmt: skip
OF_IMAGES: Final = frozenset(
    {
        "mask", "masks", "label", "labels", "labelstr", "labelsts", "annotation", "annotations",
        "annots", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "gt",
        "groundtruth", "seg",
    }
)  # fmt: skip
# Where a word of splits ends in another word, as in trainset and trainval, and where it begins in
# one, as in PublicTest.
_SPLIT: Final = "|".join(sorted(_TRAINED_ON | _HELD_OUT))
_REST: Final = "|".join(sorted(_OF_SETS | {"val", "test"}))
_EARLY: Final = re.compile(rf"\b(?:{_SPLIT})(?=(?:{_REST})\b)")
_LATE: Final = re.compile(rf"(?<=[a-z])(?=(?:{_SPLIT.title()})(?![a-z]))")
_HOW: Final = frozenset({"x", "bicubic"})  # images are made smaller, as in LR_bicubic and LR_x4
_Pair: TypeAlias = tuple[frozenset[str], frozenset[str]]
# Words for the folder of images, and for that of what belongs to each.
_PAIRS: Final[tuple[_Pair, ...]] = (
    (_IMAGES, OF_IMAGES),
    (frozenset({"hr", "highres", "hires"}), frozenset({"lr", "lowres", "lores"})),
    (frozenset({"input", "inputs"}), frozenset({"target", "targets", "output", "outputs", "gt"})),
    (frozenset({"source", "sources"}), frozenset({"target", "targets"})),
    (frozenset({"rgb"}), frozenset({"depth", "disparity", "thermal", "infrared", "ir", "nir"})),
)
# Others that may be classes, unless their files have the same names.
_ALIKE: Final[tuple[_Pair, ...]] = (
    (frozenset({"frame", "frames", "orig", "original", "originals", "raw"}), OF_IMAGES),
    (frozenset({"noisy", "blur", "blurred", "blurry", "hazy", "rainy", "lq"}),
     frozenset({"clean", "sharp", "clear", "gt", "hq"})),
    (frozenset({"color"}), frozenset({"depth", "thermal", "infrared", "gray"})),
    (frozenset({"before"}), frozenset({"after"})),
    (frozenset({"photo", "photos"}), frozenset({"sketch", "sketches", "edges"})),
)  # fmt: skip
# What systems add to the name of a copy, as in "cat - Copy" and "cat (1)".
_COPY: Final = re.compile(
    r"copy of (.+)|(.+?)"
    r"(?: - (?:copy|kopie|copie|copia)(?: \(\d+\))?|[ _]copy(?:[ _]\d+)?"
    r"| \((?:copy(?: \d+)?|\d+)\))",
    re.IGNORECASE,
)


def is_visible(name: str) -> bool:
    """Whether a folder or file is neither hidden nor one that systems add."""
    return not name.startswith((".", "$")) and name not in _OF_SYSTEMS


def check_meaning(folder: Path, names: Sequence[str]) -> None:
    """Refuse folders that are splits, or images and what belongs to each.

    Warn of what may be so, of folders that are copies, and that numbered ones are sorted as text.
    """
    shown = printable(folder)
    splits = _splits_in(folder, names)
    if splits:
        raise ValueError(
            f"{shown} has folders called {printable(', '.join(splits))}, which look like splits, "
            f"not classes: use ImageFolder({printable(repr(str(folder / splits[0])))}), or "
            f"classes={printable(list(names))} if they are classes"
        )
    if paired := _paired(names, _PAIRS) or _of_the_same_files(folder, _paired(names, _ALIKE)):
        told = (
            f"{shown} has folders called {printable(', '.join(paired))}, which look "
            "like images and what belongs to each, not like classes: write a dataset whose samples "
            f"are (image, mask), or give classes={printable(list(names))} if they are classes"
        )
        if 2 * len(paired) > len(names) and _paired(names, _PAIRS):
            raise ValueError(told)
        warn_user(told)  # among many others they may well be classes
    _warn_of_copies(shown, names)
    instead = "classes=sorted(os.listdir(folder), key={number})"
    warn_of_text_order(shown, "folder", names, instead)


def warn_of_folders_within(folders: Sequence[Path], files: Iterable[Path]) -> None:
    """Warn of classes whose images are in folders that say something else.

    Of splits, or of images and what belongs to each; or the same folders in all of the classes (or
    several in the only one), which may be the classes.

    folders: of the classes. files: their images.
    """
    depth = len(folders[0].parts)
    within: dict[Path, dict[str, None]] = {folder: {} for folder in folders}
    for first, below in dict.fromkeys((f.parts[depth - 1], f.parts[depth:-1][:1]) for f in files):
        within[folders[0].parent / first][below[0] if below else ""] = None
    for path, names in within.items():
        found = [name for name in names if name]
        splits, paired = _splits_in(path, found), _paired(found, _PAIRS)
        if (len(splits) > 1 and len(splits) == len(found)) or paired:
            kind = "images and what belongs to each" if paired else "splits"
            warn_user(
                f"{printable(path)} has folders called {printable(', '.join(found))}, which look "
                f"like {kind}, and all of their images are of class {printable(path.name)}: move "
                "them apart, or give classes=[...] if this is meant"
            )
            return
    names = within[folders[0]]
    if (
        len(names) < 2
        or "" in names
        or any(each.keys() != names.keys() for each in within.values())
    ):
        return
    if len(folders) > 1 and len({frozenset(_words(name)) for name in names}) == 1:
        return  # numbered ones, as of videos
    here, told = folders[0], ", ".join([*names][:2]) + (", ..." if len(names) > 2 else "")
    has = f"one class, {printable(here.name)}, with folders in it"
    if len(folders) > 1:
        has = f"classes with the same folders in each, such as {printable(here.name)}"
    outer = ", ".join(map(repr, [folder.name for folder in folders][:2]))
    given = f"classes=[{printable(outer)}{', ...' if len(folders) > 2 else ''}]"
    warn_user(
        f"{printable(here.parent)} has {has} ({printable(told)}): use "
        f"ImageFolder({printable(repr(str(here)))}) if these are the classes, or give {given}"
    )


def warn_of_unlike(folder: Path, files: Iterable[Path], classes: Sequence[str]) -> None:
    """Warn if no folder is a class, so that images have no labels, but one is spelled alike.

    Or if the folders of the classes are in others, such as that of a split.

    files: below the folder.
    """
    depth = len(folder.parts)
    places = dict.fromkeys(path.parts[depth:-1][:2] for path in files)
    names = dict.fromkeys(place[0] for place in places if place)
    if any(name in classes for name in names):
        return
    told = f"{printable(folder)}: the images have no labels, since no folder is one of the classes"
    if inner := next((place for place in places if place[1:] and place[1] in classes), None):
        warn_user(
            f"{told}; {printable(inner[1])} is in {printable(inner[0])}: give "
            f"like({printable(repr(str(folder / inner[0])))})"
        )
        return
    pairs = ((name, nearest_name(name, classes)) for name in names)
    if found := next(((name, near) for name, near in pairs if near is not None), None):
        name, near = (printable(repr(each)) for each in found)
        warn_user(f"{told}; should {name} be {near}?")


def _splits_in(folder: Path, names: Sequence[str]) -> list[str]:
    """The folders that look like splits: all of them do, or some for each side.

    One among others may well be a class, such as a train; so may a train beside a test tube, which
    differ in other words, too, unless there are folders in them, as of classes.
    """
    words = {name: _words(name) for name in names}
    trained, held_out = (
        {
            name: frozenset(words[name] - _TRAINED_ON - _HELD_OUT - _OF_SETS)
            for name in names
            if words[name] & known
        }
        for known in (_TRAINED_ON, _HELD_OUT)
    )
    found = [name for name in names if name in trained or name in held_out]
    if all(name.lower() in _TRAINED_ON | _HELD_OUT for name in names):
        return found
    if len(names) > 1 and all(words[name] and words[name] <= _FOLDS for name in names):
        return [*names] if all(_has_folders(folder / name) for name in names) else []
    called = defaultdict[frozenset[str], set[str]](set)
    for name, rest in held_out.items():
        called[rest].add(name)
    is_alike = any(called[rest] - {name} for name, rest in trained.items())
    if is_alike or (trained and held_out and any(_has_folders(folder / name) for name in found)):
        return found
    return []


def _paired(names: Iterable[str], pairs: Sequence[_Pair]) -> list[str]:
    """The folders that look like images, and like what belongs to each, maybe of one split each.

    But for these words they are called alike, as DIV2K_train_HR and DIV2K_valid_LR_bicubic are.
    """
    words = {name: _words(name) - _TRAINED_ON - _HELD_OUT - _HOW for name in names}
    for pair in pairs:
        sides: list[defaultdict[frozenset[str], list[str]]] = []
        for known in pair:
            sides.append(defaultdict(list))
            for name, found in words.items():
                if found & known:
                    sides[-1][frozenset(found - pair[0] - pair[1])].append(name)
        left, right = sides
        both = [rest for rest in left if rest in right and len({*left[rest], *right[rest]}) > 1]
        if both:
            return list(dict.fromkeys(n for side in sides for rest in both for n in side[rest]))
    return []


def _of_the_same_files(folder: Path, names: Sequence[str]) -> Sequence[str]:
    """The folders if all of them have files of the same names, otherwise none.

    But for their suffixes: masks of photographs are in another format.
    """
    listed = (filter(is_visible, os.listdir(folder / name)) for name in names)
    found = {frozenset(Path(file).stem for file in files) for files in listed}
    return names if len(found) == 1 else []


def _warn_of_copies(shown: str, names: Sequence[str]) -> None:
    """Warn of a folder that is called like a copy of another one."""
    there = frozenset(names)
    copies = ((name, match[1] or match[2]) for name in names if (match := _COPY.fullmatch(name)))
    if found := next(((name, first) for name, first in copies if first in there), None):
        name, first = (printable(repr(each)) for each in found)
        warn_user(
            f"{shown}: the folder {name} is called like a copy of {first}, and is a class of its "
            "own: move its images, or give classes=[...] if this is meant"
        )


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() and is_visible(path.name) for path in folder.iterdir())


def _words(name: str) -> set[str]:
    """The words of a name without numbers, as train of train2017, and test of testA.

    Those of splits are words of their own in trainset and PublicTest, too.
    """
    text = _LATE.sub(" ", re.sub(r"(?<=[a-z])[A-Z]$", "", name)).lower()
    return {*_EARLY.sub(r"\g<0> ", re.sub(r"[\W\d_]+", " ", text)).split()}
