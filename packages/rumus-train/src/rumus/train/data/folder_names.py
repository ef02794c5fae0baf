"""What the names of folders of images say: of classes, of splits, or of images and their masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_names import warn_of_text_order
from rumus.train.base.printable import printable
from rumus.train.data.alike_files import alike_in_files, are_numbered

# Folders that macOS, Synology, QNAP, Windows, Linux and Python add by themselves.
_OF_SYSTEMS: Final = frozenset(
    {
        "__MACOSX", "@eaDir", "#recycle", "@Recycle", "System Volume Information", "lost+found",
        "__pycache__",
    }
)  # fmt: skip
_HELD_OUT: Final = frozenset(
    {
        "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation", "holdout",
        "extra", "unlabeled", "unlabelled",
    }
)  # fmt: skip
_TRAINED_ON: Final = {"train", "training"} | {
    word.removeprefix("un") for word in _HELD_OUT if word.startswith("un")
}
_FOLDS: Final = frozenset({"fold", "split", "part", "subset", "set", "batch"})
# Folders of images, and of what belongs to each of them.
_IMAGES: Final = frozenset(
    {
        "image", "images", "img", "imgs", "imagestr", "imagests", "jpegimages", "pictures",
        "photos", "hr", "highres", "hires", "input", "inputs", "source", "sources", "rgb",
    }
)  # fmt: skip
OF_IMAGES: Final = frozenset(
    {
        "mask", "masks", "label", "labels", "labelstr", "labelsts", "annotation", "annotations",
        "annots", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "gt",
        "groundtruth", "seg", "lr", "lowres", "lores", "target", "targets", "output", "outputs",
        "depth", "disparity", "thermal", "infrared", "ir", "nir",
    }
)  # fmt: skip
_OF_SETS: Final = _IMAGES | {
    "set", "data", "dataset", "split", "folder", "batch", "part", "public", "private", "hidden"
}  # fmt: skip
# Where a word of splits ends in another word, as in trainset and trainval, and where it begins in
# one, as in PublicTest.
_SPLIT: Final = "|".join(sorted(_TRAINED_ON | _HELD_OUT))
_REST: Final = "|".join(sorted(_OF_SETS | {"val", "test"}))
_EARLY: Final = re.compile(rf"\b(?:{_SPLIT})(?=(?:{_REST})\b)")
_LATE: Final = re.compile(rf"(?<=[a-z])(?=(?:{_SPLIT.title()})(?![a-z]))")
_HOW: Final = frozenset({"x", "bicubic"})  # images are made smaller, as in LR_bicubic and LR_x4
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
    """Refuse folders that are splits, or most of them images and what belongs to each.

    Warn of folders that are copies, and that numbered ones are sorted as text.
    """
    shown = printable(folder)
    splits = _splits_in(folder, names)
    if splits:
        raise ValueError(
            f"{shown} has folders called {printable(', '.join(splits))}, which look like splits, "
            f"not classes: use ImageFolder({printable(repr(str(folder / splits[0])))}), or "
            f"classes={printable(list(names))} if they are classes"
        )
    if 2 * len(paired := _paired(names)) > len(names):
        raise ValueError(_told_of_pairs(folder, paired, names))
    _warn_of_copies(shown, names)
    if held_out := [name for name in names if name.lower() in _HELD_OUT]:
        warn_user(
            f"{shown}: the folder {printable(held_out[0])} is called like a split and is a class "
            "beside the others: move it, or give classes=[...] if this is meant"
        )
    instead = "classes=sorted(os.listdir(folder), key={number})"
    warn_of_text_order(shown, "folder", names, instead)


def warn_of_pairs(folders: Sequence[Path], files: Iterable[Path]) -> None:
    """Warn of folders that may be images and what belongs to each, by their names or their files.

    folders: of the classes. files: their images.
    """
    folder, names = folders[0].parent, [path.name for path in folders]
    if paired := _paired(names):  # among many others they may well be classes
        warn_user(_told_of_pairs(folder, paired, names))
    elif alike := alike_in_files(folder, files):
        warn_user(
            f"{printable(folder)}: the images in {printable(', '.join(alike))} are called alike, "
            "as images and what belongs to each are: if they are pairs, write a dataset whose "
            "samples are (image, other), or give classes=[...] if they are classes"
        )


def _told_of_pairs(folder: Path, paired: Iterable[str], names: Sequence[str]) -> str:
    return (
        f"{printable(folder)} has folders called {printable(', '.join(paired))}, which look "
        "like images and what belongs to each, not like classes: write a dataset whose samples "
        f"are (image, mask), or give classes={printable(list(names))} if they are classes"
    )


def warn_of_folders_within(folders: Sequence[Path], files: Iterable[Path]) -> bool:
    """Warn of classes whose images are in folders that say something else; return whether they do.

    Of splits, or of images and what belongs to each; or that may be the classes, if all images are
    in them.

    folders: of the classes. files: their images.
    """
    depth = len(folders[0].parts)
    within: dict[Path, dict[str, None]] = {folder: {} for folder in folders}
    for first, below in dict.fromkeys((f.parts[depth - 1], f.parts[depth:-1][:1]) for f in files):
        within[folders[0].parent / first][below[0] if below else ""] = None
    for path, names in within.items():
        found = [name for name in names if name]
        splits, paired = _splits_in(path, found), _paired(found)
        if (len(splits) > 1 and len(splits) == len(found)) or paired:
            kind = "images and what belongs to each" if paired else "splits"
            warn_user(
                f"{printable(path)} has folders called {printable(', '.join(found))}, which look "
                f"like {kind}, and all of their images are of class {printable(path.name)}: move "
                "them apart, or give classes=[...] if this is meant"
            )
            return True
    several = {path: names for path, names in within.items() if len(names) > 1}
    if not several or any("" in names for names in within.values()):
        return False
    if len(folders) > 1 and all(map(are_numbered, several.values())):
        return False  # as of videos
    here, inner = next(iter(several.items()))
    told = ", ".join([*inner][:2]) + (", ..." if len(inner) > 2 else "")
    use = f"use ImageFolder({printable(repr(str(here)))}) if these are the classes"
    if len(folders) == 1:
        has = f"one class, {printable(here.name)}, with folders in it"
    elif all(names.keys() == inner.keys() for names in within.values()):
        has = f"classes with the same folders in each, such as {printable(here.name)}"
    else:
        has = f"classes with all of their images in folders, such as {printable(here.name)}"
        use = "move these into one folder if they are the classes"
    outer = ", ".join(map(repr, [folder.name for folder in folders][:2]))
    given = f"classes=[{printable(outer)}{', ...' if len(folders) > 2 else ''}]"
    warn_user(f"{printable(here.parent)} has {has} ({printable(told)}): {use}, or give {given}")
    return True


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
    of_splits = _TRAINED_ON | _HELD_OUT
    if len(found) == len(names) and all(words[n] <= of_splits | _OF_SETS for n in names):
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


def _paired(names: Iterable[str]) -> list[str]:
    """The folders that look like images, and like what belongs to each, maybe of one split each.

    But for these words they are called alike, as DIV2K_train_HR and DIV2K_valid_LR_bicubic are.
    """
    left, right = (defaultdict[frozenset[str], list[str]](list) for _ in range(2))
    for name in names:
        words = frozenset(_words(name) - _TRAINED_ON - _HELD_OUT - _HOW)
        for side, known in ((left, _IMAGES), (right, OF_IMAGES)):
            if words & known:
                side[words - _IMAGES - OF_IMAGES].append(name)
    both = [rest for rest in left if rest in right and len({*left[rest], *right[rest]}) > 1]
    return list(
        dict.fromkeys(name for side in (left, right) for rest in both for name in side[rest])
    )


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
