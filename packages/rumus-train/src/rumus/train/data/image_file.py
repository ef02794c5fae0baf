"""One image file as an array, without any loss that was not requested."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.base.file_kind import kind_of_file
from rumus.train.base.printable import printable
from rumus.train.base.regular_file import require_regular_file

if TYPE_CHECKING:
    from PIL.Image import Image

Mode: TypeAlias = Literal["L", "RGB", "RGBA", "I;16", "I", "F"]

# The dtype of each mode's pixels.
MODES: Final[dict[str, type[np.generic]]] = {
    "L": np.uint8, "RGB": np.uint8, "RGBA": np.uint8,
    "I;16": np.uint16, "I": np.int32, "F": np.float32,
}  # fmt: skip
# Pillow clips these at 255 on conversion to 8 bits instead of scaling.
_DEEP: Final = {
    "I;16": "I;16",
    "I;16B": "I;16",
    "I;16L": "I;16",
    "I;16N": "I;16",
    "I": "I",
    "F": "F",
}


@dataclass(frozen=True, slots=True)
class ImageReader:
    """How images are read; see `ImageFolder` for the fields."""

    mode: Mode
    convert: bool
    size: tuple[int, int] | None
    resize: bool
    frame: int | None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        if self.resize and self.size is None:
            raise ValueError("resize=True needs a size=(height, width)")
        size: Any = self.size
        if size is not None and not (isinstance(size, Sequence | np.ndarray) and len(size) == 2):
            raise TypeError(f"size must be (height, width), not {shown(size)}")
        if size is not None and min(whole_number("size", each) for each in size) < 1:
            raise ValueError(f"size must be (height, width), both positive, not {self.size}")
        if self.frame is not None and self.frame < 0:
            raise ValueError(f"frame must be None, 0 or more, not {self.frame}")

    def read(self, path: Path) -> NDArray[Any]:
        """Return an image.

        Raises OSError for a file that is unreadable, truncated or of unknown format, ValueError for
        one that is damaged or has another mode or size.
        """
        from PIL import Image

        require_regular_file(path)
        with _decoding(path):
            image = Image.open(path)
        with image:
            if image.format == "PNG":
                _check_sums(path)
            self._choose_frame(image, path)
            self._check_mode(image, path)
            is_signed = _is_signed(image)
            with _decoding(path):
                found = _upright(image)
                if found.mode != self.mode and self.mode not in _DEEP.values():
                    found = found.convert(self.mode)
            _check_sign(found, is_signed, path)
            self._check_size(found, path)
            with _decoding(path):
                if self.size is not None and (found.height, found.width) != tuple(self.size):
                    size = (self.size[1], self.size[0])
                    found = found.resize(size, Image.Resampling.BILINEAR)
                return np.array(found, MODES[self.mode])

    def _choose_frame(self, image: Image, path: Path) -> None:
        with _decoding(path):
            count = getattr(image, "n_frames", 1)
        if self.frame is None and count > 1:
            raise ValueError(
                f"{printable(path)} has {count} frames; frame=0 reads the first of each image"
            )
        if self.frame is not None and self.frame >= count:
            raise ValueError(f"{printable(path)} has {count} frames, but no frame {self.frame}")
        if count > 1:
            with _decoding(path):
                image.seek(self.frame or 0)

    def _check_mode(self, image: Image, path: Path) -> None:
        """Raise for a conversion in which Pillow would lose data."""
        deep = _DEEP.get(image.mode)
        if deep == self.mode:
            return
        if deep is not None or self.mode in _DEEP:
            hint = (
                f"read it with mode={deep!r}" if deep else "no conversion is exact: read it as is"
            )
            raise ValueError(
                f"{printable(path)} has mode {image.mode}, not {self.mode}; {hint}, and scale it "
                "with a transform"
            )
        if self.convert:
            return
        if image.mode != self.mode:
            raise ValueError(
                f"{printable(path)} has mode {image.mode}, not {self.mode}; convert it with "
                "convert=True"
            )
        if image.info.get("transparency") is not None:
            raise ValueError(
                f"{printable(path)} has a transparent color; convert=True reads it as an "
                "ordinary one"
            )
        if _has_16_bits(image):
            raise ValueError(
                f"{printable(path)} has 16 bits per channel; convert=True keeps the upper 8"
            )

    def _check_size(self, image: Image, path: Path) -> None:
        if self.size is None or self.resize or (image.height, image.width) == tuple(self.size):
            return
        raise ValueError(
            f"{printable(path)} is {image.height} high and {image.width} wide, not {self.size[0]} "
            f"and {self.size[1]}; resize it with resize=True"
        )


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Add the file's name to errors: for damaged files, Pillow's readers raise almost anything."""
    try:
        yield
    except OSError as error:
        if is_of_handler(error):
            raise
        if error.errno is None and (kind := kind_of_file(path, "ImageFolder")) is not None:
            raise OSError(f"{printable(path)} cannot be read as an image: it is {kind}") from error
        if error.errno is None and repr(str(path))[1:-1] not in str(error):
            raise OSError(f"{printable(path)} cannot be read: {printable(error)}") from error
        raise
    except MemoryError:
        raise
    except Exception as error:
        if is_of_handler(error):
            raise
        raise ValueError(
            f"{printable(path)} is not a readable image: {type(error).__name__}: {printable(error)}"
        ) from error


def _check_sums(path: Path) -> None:
    """Raise ValueError for a PNG whose pixels are not those that were written.

    Pillow reads over the checksums of their chunks, and in an image that packs well over that of
    the whole: a changed bit would give other pixels silently.
    """
    data = memoryview(path.read_bytes())
    at = 8
    while at + 12 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4]), bytes(data[at + 4 : at + 8])
        end = at + 8 + size
        found, noted = zlib.crc32(data[at + 4 : end]), data[end : end + 4]
        if kind in (b"IDAT", b"fdAT") and len(noted) == 4 and found != int.from_bytes(noted):
            raise ValueError(
                f"{printable(path)} is damaged: its pixels do not fit their checksum; download or "
                "write it again"
            )
        at = end + 4
        if kind == b"IEND":
            return  # what follows is none of the image


def _upright(image: Image) -> Image:
    """Return the image, turned by its EXIF orientation."""
    from PIL import ImageOps

    image.load()  # of a PNG, getexif does so, and its error would be taken for one of EXIF
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception as error:  # damaged EXIF data does not affect the pixels
        if is_of_handler(error):
            raise
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _is_signed(image: Image) -> bool | None:
    """Whether a TIFF says that its samples have a sign; None for other formats, and fractions."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    formats = tags.get(339, 1)  # SampleFormat; one for each channel, or one number
    return {1: False, 2: True}.get(formats[0] if isinstance(formats, tuple) else formats)


def _check_sign(image: Image, is_signed: bool | None, path: Path) -> None:
    """Raise for pixels that Pillow has read with a sign that the file lacks, or without its sign.

    image: with the pixels. is_signed: whether those of the file have a sign, if it says so.
    """
    if is_signed and MODES.get(image.mode) is np.uint8:
        raise ValueError(
            f"{printable(path)} has signed pixels of 8 bits, which Pillow reads as unsigned ones: "
            "save it with 16 bits, or without negative numbers"
        )
    if is_signed is False and image.mode == "I" and (np.asarray(image) < 0).any():
        raise ValueError(
            f"{printable(path)} has unsigned pixels of 32 bits, of 2**31 and more, which int32 "
            "lacks: save it as float32, for mode='F'"
        )


def _has_16_bits(image: Image) -> bool:
    """Whether the file has 16 bits per channel; Pillow's 8-bit modes keep the upper 8."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(part, str) and ";16" in part for part in arguments):
            return True
    return False
