"""Transforms of images: arrays of shape (height, width, channels) or (height, width).

Each is called with an image and a NumPy generator and returns a new image. `Augment` combines
several into the `transform=` of a loader. Random numbers depend on (seed, epoch, sample) alone.
An image with 1, 3 or 4 channels in first place, as `Normalize` returns them, raises ValueError.

>>> import numpy as np
>>> from rumus.train import ArrayDataset, DataLoader, images
>>> pixels = np.zeros((4, 32, 32, 3), np.uint8)
>>> augment = images.Augment(images.Crop(28, padding=2), images.Flip(), images.Normalize(0.5, 0.25))
>>> ((batch, labels),) = DataLoader(ArrayDataset(pixels, range(4)), 4, transform=augment)
>>> batch.shape, batch.dtype, float(batch[0, 0, 0, 0])
((4, 3, 28, 28), dtype('float32'), -2.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.arguments import checked_fields
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.decided import fixed
from rumus.tensor.expression.other_names import OtherNames
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.fields import fields_of, names_of, values_in
from rumus.train.data.mixing import CHANNELS

Image: TypeAlias = NDArray[Any]
ImageTransform: TypeAlias = Callable[[Image, np.random.Generator], Image]

__all__ = ["Augment", "ColorJitter", "Crop", "Flip", "Normalize", "Rotate"]

if not TYPE_CHECKING:  # for type checkers, a module with this function has every attribute

    def __getattr__(name: str) -> NoReturn:
        """Tell what to write instead of another library's name."""
        from rumus.train.base.other_names import IMAGES

        IMAGES.refuse(name)


@OtherNames("an Augment", {}).of_instances
class Augment:
    """Applies image transforms to one field of a sample, one after the other.

    transforms: each is called with an image and the sample's generator.
    key: the field that is the image: its name in a dict, or its place in a tuple.
    """

    def __init__(self, *transforms: ImageTransform, key: str | int = 0) -> None:
        for each in transforms:
            if isinstance(each, type):
                raise TypeError(f"Augment: make the transform: {each.__name__}(...), not the class")
            if not callable(each):
                raise TypeError(f"Augment: a transform must be a function, not {each!r}")
        self.transforms, self.key = transforms, key

    def __repr__(self) -> str:
        return f"Augment({', '.join(map(repr, self.transforms))}, key={self.key!r})"

    def __call__(self, sample: Any, generator: np.random.Generator) -> Any:
        """Return the sample with another image."""
        names, values = names_of(sample), [*values_in(sample)]
        if isinstance(self.key, str):
            if names is None or self.key not in names:
                raise ValueError(f"the sample has no field {self.key!r}")
            place = names.index(self.key)
        else:
            place = self.key
            if not -len(values) <= place < len(values):
                raise ValueError(f"the sample has {len(values)} fields, and none at {place}")
        image = np.asarray(values[place])
        for transform in self.transforms:
            image = transform(image, generator)
        values[place] = image
        return fields_of(names, values)


def _check_layout(image: Image) -> None:
    """Refuse what is no image, or has its channels first: other axes would be turned or cut."""
    if image.ndim not in (2, 3):
        raise ValueError(
            f"an image has the shape (height, width, channels) or (height, width), not "
            f"{image.shape}: transforms take one image at a time"
        )
    if image.ndim == 3 and image.shape[0] in CHANNELS and image.shape[2] not in CHANNELS:
        raise ValueError(
            f"an image of shape {image.shape} has its channels first, and the transforms of images "
            "take (height, width, channels): use np.moveaxis(image, 0, -1), or put the transform "
            "before Normalize, which moves the channels"
        )


@fixed
@checked_fields
@dataclass(frozen=True)
class Crop:
    """Crops an image at a random place.

    size: (height, width), or one number for both.
    padding: width of the border of zeros that is added first.
    center: crop the middle instead, as for validation.

    ValueError for a size below 1, a negative padding, and an image smaller than the crop.
    """

    size: int | tuple[int, int]
    padding: int = 0
    center: bool = False

    def __post_init__(self) -> None:
        if min(self._sides()) < 1 or self.padding < 0:
            raise ValueError(
                f"size must be positive and padding not negative, not {self.size} and "
                f"{self.padding}"
            )

    def _sides(self) -> tuple[int, int]:
        """The height and the width."""
        sides = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if len(sides) != 2:
            raise ValueError(f"Crop: size must be a number or (height, width), not {self.size}")
        height, width = (whole_number("Crop: size", each) for each in sides)
        return height, width

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """Return the crop."""
        _check_layout(image)
        height, width = self._sides()
        rows = image.shape[0] + 2 * self.padding - height
        columns = image.shape[1] + 2 * self.padding - width
        if rows < 0 or columns < 0:
            raise ValueError(
                f"an image of {image.shape[:2]}, padded by {self.padding}, is smaller than the "
                f"crop of {(height, width)}"
            )
        if self.center:
            top, left = rows // 2, columns // 2
        else:
            top, left = int(generator.integers(rows + 1)), int(generator.integers(columns + 1))
        if not self.padding:
            return image[top : top + height, left : left + width]
        return self._padded(image, top - self.padding, left - self.padding, height, width)

    def _padded(self, image: Image, top: int, left: int, height: int, width: int) -> Image:
        """The crop, zero outside the image."""
        out = np.zeros((height, width, *image.shape[2:]), image.dtype)
        y, x = max(0, -top), max(0, -left)
        found = image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        out[y : y + found.shape[0], x : x + found.shape[1]] = found
        return out


@fixed
@checked_fields
@dataclass(frozen=True)
class Flip:
    """Flips a random share of the images.

    axis: "horizontal" swaps left and right, "vertical" top and bottom.
    share: of images that are flipped, in [0, 1].
    """

    axis: Literal["horizontal", "vertical"] = "horizontal"
    share: float = 0.5

    def __post_init__(self) -> None:
        check_choice("axis", self.axis, ("horizontal", "vertical"))
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], not {self.share}")

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """Return the image, flipped or not."""
        _check_layout(image)
        if generator.random() >= self.share:
            return image
        return image[:, ::-1] if self.axis == "horizontal" else image[::-1]


@fixed
@checked_fields
@dataclass(frozen=True)
class Rotate:
    """Rotates an image about its center by a random angle, with bilinear interpolation.

    degrees: the largest angle, in either direction.
    fill: the value of pixels from outside the image. ValueError if the image's dtype lacks it.
    """

    degrees: float
    fill: float = 0.0

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """Return the rotated image, of the same shape and dtype."""
        _check_layout(image)
        if image.dtype.kind in "biu" and np.float64(self.fill).astype(image.dtype) != self.fill:
            raise ValueError(f"fill={self.fill} is not {image.dtype}, the dtype of the image")
        angle = math.radians(float(generator.uniform(-self.degrees, self.degrees)))
        return turned(image, angle, self.fill)


def turned(image: Image, angle: float, fill: float = 0.0) -> Image:
    """Return an image rotated counterclockwise about its center by an angle in radians."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y -= (height - 1) / 2
    x -= (width - 1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    rows = cos * y + sin * x + (height - 1) / 2
    columns = -sin * y + cos * x + (width - 1) / 2
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    shape = (height, width, *(1,) * (image.ndim - 2))
    down, right = (rows - top).reshape(shape), (columns - left).reshape(shape)
    out = np.zeros(image.shape, _computed(image.dtype))
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (down if dy else 1 - down) * (right if dx else 1 - right)
        out += weight * _pixels(image, top + dy, left + dx, fill)
    rounded = out if image.dtype.kind == "f" else np.rint(out)
    return np.asarray(rounded, image.dtype)


def _computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 where it holds every pixel, otherwise float64."""
    is_small = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if is_small else np.float64)


def _pixels(image: Image, rows: Image, columns: Image, fill: float) -> Image:
    height, width = image.shape[:2]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    kept = _computed(image.dtype)
    found = image[rows.clip(0, height - 1), columns.clip(0, width - 1)].astype(kept)
    found[~inside] = fill
    return np.asarray(found)


@fixed
@checked_fields
@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, then saturation, each by a random factor in [1 - x, 1 + x].

    Values stay in their range: [0, 255] for uint8, [0, 1] for floating images. ValueError for an
    image with others, such as one that is normalized already.

    brightness: x of the factor that scales all values.
    contrast: x of the factor that scales distances to the image's mean gray.
    saturation: x of the factor that scales distances to each pixel's gray (ITU-R BT.601).
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= real_number(f"ColorJitter: {name}", getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """Return the image with its colors changed."""
        _check_layout(image)
        changes = self.brightness, self.contrast, self.saturation
        bright, contrast, saturation = (1 + c * generator.uniform(-1, 1) for c in changes)
        is_color = image.ndim == 3 and image.shape[2] == 3
        if self.saturation and not is_color:
            raise ValueError(f"saturation needs images (height, width, 3), not {image.shape}")
        if image.dtype.kind not in "fiu":
            raise ValueError(f"ColorJitter needs numbers, not an image of {image.dtype}")
        is_floating = image.dtype.kind == "f"
        largest = 1.0 if is_floating else float(np.iinfo(image.dtype).max)
        if image.size and not (image.min() >= 0 and image.max() <= largest):
            raise ValueError(
                f"ColorJitter needs values in [0, {largest:g}], and the image has {image.min()} to "
                f"{image.max()}: use it before Normalize, and scale floating images to [0, 1]"
            )
        found: Image = image.astype(_computed(image.dtype)) * np.float32(bright)
        gray = found @ _GRAY if is_color else found
        found = _away(found, np.float32(gray.mean()), contrast)
        if self.saturation:
            found = _away(found, (found @ _GRAY)[..., None], saturation)
        found = found.clip(0, 1 if is_floating else np.iinfo(image.dtype).max)
        return (found if is_floating else np.rint(found)).astype(image.dtype)


_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


def _away(image: Image, gray: Any, factor: float) -> Image:
    found: Image = gray + np.float32(factor) * (image - gray)
    return found


@fixed
@checked_fields
@dataclass(frozen=True)
class Normalize:
    """(image - mean) / std as float32; integers are first divided by their dtype's maximum.

    mean, std: one number, or one for each channel, of images in [0, 1].
    channels_first: return (channels, height, width), the layout of convolutions; an image without
        a channel axis gets one.
    ValueError for a std that is not positive, and for an image with another number of channels.
    ValueError also for integers with a mean above 1, which is one of undivided numbers, and for
    integers of more than 16 bits, which rarely come
    anywhere near their maximum.
    """

    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    channels_first: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        for name, given in (("mean", self.mean), ("std", self.std)):
            each = np.asarray(given)
            if each.dtype.kind not in "fiu":
                raise TypeError(f"Normalize: {name} must be numbers, not {given!r}")
            if each.ndim > 1 or not each.size:
                raise ValueError(f"Normalize: {name} must be a number, or one per channel")
            if not np.isfinite(each).all():
                raise ValueError(f"Normalize: {name} must be finite, not {given}")
        if not (np.asarray(self.std) > 0).all():
            raise ValueError(f"std must be positive, not {self.std}")

    def __call__(self, image: Image, generator: np.random.Generator) -> Image:
        """Return the normalized image."""
        _check_layout(image)
        channels = image.shape[2] if image.ndim == 3 else 1
        scale, shift = _factors(_plain(self.mean), _plain(self.std), image.dtype, channels)
        found = image * scale - shift
        if not self.channels_first:
            return found.astype(np.float32)
        with_channels = found[..., None] if image.ndim == 2 else found
        return np.ascontiguousarray(with_channels.transpose(2, 0, 1), np.float32)


def _plain(given: float | Sequence[float]) -> float | tuple[float, ...]:
    return tuple(given) if isinstance(given, Sequence) else given


@lru_cache(maxsize=32)
def _factors(
    mean: float | tuple[float, ...],
    std: float | tuple[float, ...],
    dtype: np.dtype[Any],
    channels: int,
) -> tuple[Image, Image]:
    """The factor for an image of this dtype, and what is subtracted from the product."""
    for name, given in (("mean", mean), ("std", std)):
        if np.size(given) not in (1, channels):  # a gray image would get several channels
            raise ValueError(
                f"Normalize: {name} has {np.size(given)} numbers, but the image has {channels} "
                "channels: give one number for all, or one for each"
            )
    limit = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
    if dtype.kind in "iu" and dtype.itemsize > 2:
        raise ValueError(
            f"Normalize divides integers by the largest of their dtype, and for {dtype} little "
            "would be left: divide the image by its own largest first, as image / 255, in a "
            "transform of yours"
        )
    if dtype.kind in "iu" and np.max(mean) > 1:
        raise ValueError(
            f"Normalize divides {dtype} by {limit:g}, so the mean must be in [0, 1], not {mean}: "
            f"divide mean and std by {limit:g}, too"
        )
    means, deviations = (np.asarray(x, np.float32) for x in (mean, std))
    return (1 / (limit * deviations)).astype(np.float32), (means / deviations).astype(np.float32)
