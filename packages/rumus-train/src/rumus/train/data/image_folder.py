"""`ImageFolder`: images in one folder for each class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from rumus.tensor.expression.arguments import checked_arguments
from rumus.train.base.class_names import checked_classes, unknown_class
from rumus.train.base.printable import printable
from rumus.train.data.dataset import Sample
from rumus.train.data.image_file import ImageReader, Mode
from rumus.train.data.npy import PathLike

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# Folders that macOS, Synology, QNAP, Windows, Linux and Python put beside what a person has made.
_OF_SYSTEMS: Final = frozenset(
    {
        "__MACOSX", "@eaDir", "#recycle", "@Recycle", "System Volume Information", "lost+found",
        "__pycache__",
    }
)  # fmt: skip
_SPLITS: Final = frozenset(
    {
        "train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval",
        "evaluation", "holdout",
    }
)  # fmt: skip


class ImageFolder:
    """Images in one folder for each class: samples (image, number of the class).

    folder/cat/1.png is of the class "cat"; `classes` are the folders' names, sorted, and `files`
    the images, sorted in each class. Folders in a class's folder belong to the class, linked ones
    too, each once. Left out are names that begin with a dot, folders that systems and archives make
    by themselves (`__MACOSX`), and files that no image format's suffix ends. An image is an array
    of shape (height, width, channels), or (height, width) for modes of one channel, turned as its
    EXIF orientation says.

    folder: with one folder for each class.
    mode: what an image must be: "L", "RGB" and "RGBA" are uint8, "I;16" uint16, "I" int32 and "F"
        float32 of one channel, with the values of the file.
    convert: convert images of 8 bits to `mode`, and of 16 bits a channel to their upper 8; never
        between modes of more than 8 bits.
    size: (height, width) that an image must have.
    resize: resize others, bilinearly. Without a size all images of a batch must have the same one,
        and the loader says which two differ.
    classes: the class names in the order of their numbers, for splits of one data set to agree:
        `classes=train.classes`. A class may have no folder then.
    frame: which one of an animation or of several pages is read; by default such a file is an
        error.

    FileNotFoundError or NotADirectoryError for the folder; ValueError for no classes, for folders
    that are called like splits (train, val, test) where `classes` does not say so, for a class
    without images, for a folder that is not in `classes`, and for a link to nothing. Reading a
    sample raises ValueError with the file's name for another mode or size, for a transparent colour
    that the mode would drop and for a damaged image,
    OSError for a file that cannot be read.

    Needs Pillow: an ImportError says how to get it.
    """

    @checked_arguments
    def __init__(
        self,
        folder: PathLike,
        *,
        mode: Mode = "RGB",
        convert: bool = False,
        size: tuple[int, int] | None = None,
        resize: bool = False,
        classes: Sequence[str] | None = None,
        frame: int | None = None,
    ) -> None:
        _check_pillow()
        self._reader = ImageReader(mode, convert, size, resize, frame)
        self.mode, self.size = mode, size
        self.folder = Path(folder).absolute()
        folders = sorted(p for p in self.folder.iterdir() if p.is_dir() and _is_visible(p.name))
        if not folders:
            raise ValueError(f"{printable(self.folder)} has no folders; each class must have one")
        found = [path.name for path in folders]
        if classes is None:
            _check_meaning(self.folder, found)
        self.classes = found if classes is None else checked_classes(classes)
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.files: list[Path] = []
        self.labels: list[int] = []
        for path in folders:
            if path.name not in numbers:
                raise unknown_class(printable(self.folder), path.name, self.classes)
            images = _images(path)
            self.files += images
            self.labels += [numbers[path.name]] * len(images)

    def like(self, folder: PathLike) -> Self:
        """Read the images of another folder in the same way, whether in folders of classes or not.

        The classes are those of this one; images that are in no folder of a class have number 0.

        folder: with the same classes, or fewer.
        """
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__ | {"folder": Path(folder).absolute()}
        numbers = {name: number for number, name in enumerate(self.classes)}
        other.files = _images(other.folder)
        parts = [path.relative_to(other.folder).parts[0] for path in other.files]
        other.labels = [numbers.get(part, 0) for part in parts]
        return other

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Sample:
        return self._reader.read(self.files[index]), np.int64(self.labels[index])

    def describe(self, index: int) -> str:
        """Return the file of a sample.

        index: the number of a sample.
        """
        return str(self.files[index])


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ImageFolder needs Pillow, the extra `images`: pip install 'rumus-train[images]'"
        ) from error


def _check_meaning(folder: Path, names: Sequence[str]) -> None:
    """Refuse folders that are splits; say of numbers that they are in the order of texts."""
    shown = printable(folder)
    if all(name.lower() in _SPLITS for name in names):
        raise ValueError(
            f"{shown} has folders called {', '.join(names)}, which are splits and no classes: "
            f"ImageFolder({printable(repr(str(folder / names[0])))}); classes={list(names)} says "
            "that they are meant"
        )
    if all(name.isdecimal() for name in names) and (ordered := sorted(names, key=int)) != names:
        first = next(n for n, (a, b) in enumerate(zip(names, ordered, strict=True)) if a != b)
        warnings.warn(
            f"{shown}: classes are numbered in the order of texts, so that number {first} is the "
            f"folder {names[first]}; classes=sorted(os.listdir(folder), key=int) numbers them in "
            "the order of numbers",
            UserWarning,
            stacklevel=4,
        )


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "$")) and name not in _OF_SYSTEMS


def _images(folder: Path) -> list[Path]:
    """The images of one class. ValueError if there are none."""
    found = sorted(_walk(folder))
    if not found:
        raise ValueError(f"{printable(folder)} has no images ({', '.join(sorted(SUFFIXES))})")
    for path in found:
        if not path.exists():
            raise ValueError(
                f"{printable(path)} is a link to {printable(os.readlink(path))}, which is not there"
            )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """The images below a folder; each folder once, so that a link back to one above ends."""
    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(_is_visible, folders))
        for name in filter(_is_visible, files):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(path, name)
