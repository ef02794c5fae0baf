"""`ImageFolder`: images in one folder for each class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.class_names import checked_classes, unknown_class
from rumus.train.base.other_names import DATASET, IMAGE_FOLDER
from rumus.train.base.printable import printable
from rumus.train.data.dataset import Sample, as_index
from rumus.train.data.folder_names import (
    OF_IMAGES,
    check_meaning,
    is_visible,
    warn_of_folders_within,
    warn_of_pairs,
    warn_of_unlike,
)
from rumus.train.data.image_file import ImageReader, Mode
from rumus.train.data.npy import PathLike

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# Suffixes of other formats of images, which are left out and said.
_NOT_READ: Final = frozenset(
    {
        ".apng", ".arw", ".avif", ".cr2", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heif", ".j2k",
        ".jfif", ".jp2", ".jpe", ".jxl", ".nef", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".svg",
        ".tga",
    }
)  # fmt: skip

# The name of a file of an image's mask beside it, as cat_mask.png and cat_mask_1.png of cat.jpg.
_BESIDE: Final = re.compile(
    rf"(.+?)[ _.-]+(?:{'|'.join(sorted(OF_IMAGES))})(?:[ _.-]*\d+)?\.\w+", re.IGNORECASE
)


@DATASET.of_instances
class ImageFolder:
    """Images in one folder for each class: samples (image, class index).

    folder/cat/1.png belongs to the class "cat"; `classes` are the sorted folder names, and `files`
    the images, sorted within each class. Subfolders belong to the class, including linked ones,
    each once. Skipped are names that begin with a dot, folders created by systems and archives
    (`__MACOSX`), and files without one of the suffixes that are read; a UserWarning reports those
    with the suffix of another format of images, such as .heic. An image is an array of shape
    (height, width, channels), or (height, width) for single-channel modes, turned by its EXIF
    orientation.

    folder: with one folder for each class.
    mode: the required mode: "L", "RGB" and "RGBA" are uint8; "I;16" (uint16), "I" (int32) and "F"
        (float32) have one channel, with the values of the file.
    convert: convert 8-bit images to `mode`, and keep the upper 8 bits of 16-bit channels; modes of
        more than 8 bits are never converted.
    size: the required (height, width).
    resize: resize images of another size, bilinearly. Without a size, all images of a batch must
        have the same one; the loader's error names two that differ.
    classes: the class names in the order of their indices, to share them among splits:
        `classes=train.classes`. A class may then lack a folder.
    frame: the frame to read from an animation or a file of several pages; by default such a file
        raises.

    Raises FileNotFoundError or NotADirectoryError for the folder; ValueError for no classes, for
    folders named like splits (train, val, test; train_images beside test_images; fold1 beside fold2
    with folders in them), or most of them like images beside masks or labels, unless `classes`
    names them; for a class without images, a
    folder that is not in `classes`, and a broken link. Reading a sample raises, with the file's
    name, ValueError for another mode or size, a transparent color that the mode would drop, and a
    damaged image; OSError for an unreadable file.

    Needs Pillow; the ImportError says how to install it.
    """

    labels: list[int]  # the class index of each file; none if the images have no classes

    @IMAGE_FOLDER.as_keywords
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
        folders = sorted(p for p in self.folder.iterdir() if p.is_dir() and is_visible(p.name))
        if not folders:
            raise ValueError(f"{printable(self.folder)} has no folders; each class must have one")
        found = [path.name for path in folders]
        if classes is None:
            check_meaning(self.folder, found)
        self.classes = found if classes is None else checked_classes(classes)
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.files: list[Path] = []
        self.labels = []
        left_out = Counter[str]()
        for path in folders:
            if path.name not in numbers:
                raise unknown_class(printable(self.folder), path.name, self.classes)
            images = _images(path, left_out)
            self.files += images
            self.labels += [numbers[path.name]] * len(images)
        _warn_of_left_out(self.folder, left_out)
        _warn_of_images_beside(self.folder)
        if classes is None:
            if not warn_of_folders_within(folders, self.files):
                warn_of_pairs(folders, self.files)
            _warn_of_masks(self.folder, self.files)

    def like(self, folder: PathLike) -> Self:
        """Read the images of another folder the same way, with or without class folders.

        The classes are those of this dataset. If no folder is one of them, the images have no
        labels, and samples are (image,).

        folder: a folder with the same classes, or fewer.

        Raises ValueError for a folder that is not in `classes` beside one that is.
        """
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__ | {"folder": Path(folder).absolute()}
        numbers = {name: number for number, name in enumerate(self.classes)}
        left_out = Counter[str]()
        other.files = _images(other.folder, left_out)
        _warn_of_left_out(other.folder, left_out)
        parts = [path.relative_to(other.folder).parts[0] for path in other.files]
        other.labels = []
        warn_of_unlike(other.folder, other.files, self.classes)
        if any(part in numbers for part in parts):
            _warn_of_images_beside(other.folder)
            other.files = [path for path in other.files if path.parent != other.folder]
            parts = [path.relative_to(other.folder).parts[0] for path in other.files]
            if others := [part for part in parts if part not in numbers]:
                raise unknown_class(printable(other.folder), others[0], self.classes)
            other.labels = [numbers[part] for part in parts]
        return other

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Sample:
        place = as_index(index)
        image = self._reader.read(self.files[place])
        return (image, np.int64(self.labels[place])) if self.labels else (image,)

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


def _warn_of_masks(folder: Path, files: Sequence[Path]) -> None:
    """Warn of files that are called like masks of images beside them."""
    found = [(path, match[1]) for path in files if (match := _BESIDE.fullmatch(path.name))]
    if not found:
        return
    stems = {(path.parent, path.stem) for path in files}
    masks = [path for path, stem in found if (path.parent, stem) in stems]
    if masks:
        warn_user(
            f"{printable(folder)}: {len(masks)} of {len(files)} files are called like masks of "
            f"images beside them, such as {printable(masks[0].name)}, and are images of their "
            "class: move them to another folder, or give classes=[...] if this is meant"
        )


def _warn_of_images_beside(folder: Path) -> None:
    """Warn of images that are in no folder, and so of no class."""
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if Path(entry.name).suffix.lower() in SUFFIXES
            and is_visible(entry.name)
            and entry.is_file()
        )
    if names:
        warn_user(
            f"{printable(folder)}: {len(names)} images are left out, such as "
            f"{printable(names[0])}, since they are in no folder of a class"
        )


def _warn_of_left_out(folder: Path, left_out: Mapping[str, int]) -> None:
    """Warn of images in formats that are not read. left_out: their number by suffix."""
    if left_out:
        count, told = sum(left_out.values()), ", ".join(sorted(left_out))
        warn_user(
            f"{printable(folder)}: {count} images are left out, since {told} is not read: convert "
            f"them to one of {', '.join(sorted(SUFFIXES))}"
        )


def _images(folder: Path, left_out: Counter[str]) -> list[Path]:
    """The images of one class; those not read are counted. Raises ValueError if there are none."""
    found = []
    for path in sorted(_walk(folder)):
        if path.suffix.lower() in SUFFIXES:
            found.append(path)
        elif path.suffix.lower() in _NOT_READ:
            left_out[path.suffix.lower()] += 1
    if not found:
        raise ValueError(f"{printable(folder)} has no images ({', '.join(sorted(SUFFIXES))})")
    for path in found:
        if not path.exists():
            raise ValueError(
                f"{printable(path)} is a link to {printable(os.readlink(path))}, which does not "
                "exist"
            )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder; each folder once, so that cyclic links end."""
    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(is_visible, folders))
        yield from (Path(path, name) for name in filter(is_visible, files))
