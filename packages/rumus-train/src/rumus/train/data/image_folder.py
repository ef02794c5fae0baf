"""`ImageFolder`: images in one folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np

from rumus.train.data.dataset import Sample
from rumus.train.data.npy import PathLike

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class ImageFolder:
    """Images in one folder for each class: samples (image, number of the class).

    folder/cat/1.png is of the class "cat"; `classes` are the folders' names, sorted, and `files`
    the images, sorted in each class. Folders in a class's folder belong to the class; names that
    begin with a dot are left out, and so are files that no image format's suffix ends.
    An image is a uint8 array of shape (height, width, channels), or (height, width) for mode "L".

    mode: what an image must be; with convert=True others are converted. size: (height, width) that
    an image must have; with resize=True others are resized, bilinearly. Without a size all images
    of a batch must have the same one, and the loader says which two differ.

    Needs Pillow: an ImportError says how to get it. FileNotFoundError or NotADirectoryError for the
    folder, ValueError for no classes and for one without images. Reading a sample raises
    ValueError with the file's name for another mode or size, and what Pillow raises.
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        mode: Literal["L", "RGB", "RGBA"] = "RGB",
        convert: bool = False,
        size: tuple[int, int] | None = None,
        resize: bool = False,
    ) -> None:
        _check_pillow()
        if mode not in ("L", "RGB", "RGBA"):
            raise ValueError(f"mode must be 'L', 'RGB' or 'RGBA', not {mode!r}")
        if resize and size is None:
            raise ValueError("resize=True needs a size=(height, width)")
        if size is not None and min(size) < 1:
            raise ValueError(f"size must be (height, width), both positive, not {size}")
        self.folder = Path(folder).absolute()
        self.mode, self.size = mode, size
        self._convert, self._resize = convert, resize
        folders = sorted(p for p in self.folder.iterdir() if p.is_dir() and _is_visible(p))
        if not folders:
            raise ValueError(f"{self.folder} has no folders; each class must have one")
        self.classes = [path.name for path in folders]
        self.files: list[Path] = []
        self.labels: list[int] = []
        for label, path in enumerate(folders):
            images = _images(path)
            self.files += images
            self.labels += [label] * len(images)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Sample:
        from PIL import Image

        path = self.files[index]
        with Image.open(path) as image:
            if image.mode != self.mode and not self._convert:
                raise ValueError(
                    f"{path} has mode {image.mode}, not {self.mode}; convert=True converts it"
                )
            found = image.convert(self.mode)
        if self.size is not None and (found.height, found.width) != tuple(self.size):
            if not self._resize:
                raise ValueError(
                    f"{path} is {found.height} high and {found.width} wide, not "
                    f"{self.size[0]} and {self.size[1]}; resize=True resizes it"
                )
            found = found.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        return np.array(found, np.uint8), np.int64(self.labels[index])

    def describe(self, index: int) -> str:
        """Return the file of a sample."""
        return str(self.files[index])


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ImageFolder needs Pillow, the extra `images`: pip install 'rumus-train[images]'"
        ) from error


def _is_visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _images(folder: Path) -> list[Path]:
    """The images of one class. ValueError if there are none."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and all(not part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))})")
    return found
