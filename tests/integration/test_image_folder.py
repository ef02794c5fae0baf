"""`ImageFolder`: with Pillow, which rumus.train needs for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rumus.train import DataLoader, ImageFolder, SampleError, random_split


def drawn(path: Path, mode: str = "RGB", size: tuple[int, int] = (4, 3), seed: int = 0) -> None:
    """Write an image that loses nothing by compression; size: (height, width)."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (*size, *channels), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        drawn(tmp_path / "cat" / f"{number}.png", seed=number)
        drawn(tmp_path / "Dog" / "brown" / f"{number}.PNG", seed=10 + number)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    drawn(tmp_path / "cat" / ".hidden" / "x.png")
    drawn(tmp_path / ".cache" / "x.png")
    return tmp_path


def test_classes_and_pixels(folder: Path) -> None:
    dataset = ImageFolder(folder)
    assert dataset.classes == ["Dog", "cat"]
    assert len(dataset) == 6
    assert [int(dataset[i][1]) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    wanted = np.random.default_rng(1).integers(0, 256, (4, 3, 3), np.uint8)
    np.testing.assert_array_equal(dataset[4][0], wanted)
    assert dataset.describe(4) == str(folder / "cat" / "1.png")


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 1, "processes": True}])
def test_batches(folder: Path, options: dict[str, Any]) -> None:
    part, _ = random_split(ImageFolder(folder), [5, 1])
    images, labels = zip(*DataLoader(part, 2, shuffle=True, **options), strict=True)
    plain, numbers = zip(*DataLoader(part, 2, shuffle=True), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), np.concatenate(plain))
    np.testing.assert_array_equal(np.concatenate(labels), np.concatenate(numbers))


def test_modes(folder: Path) -> None:
    drawn(folder / "cat" / "9.png", "L")
    with pytest.raises(ValueError, match=r"9\.png has mode L, not RGB; convert=True"):
        ImageFolder(folder)[6]
    grey = ImageFolder(folder, mode="L", convert=True)
    assert grey[0][0].shape == grey[6][0].shape == (4, 3)
    assert ImageFolder(folder, mode="RGBA", convert=True)[6][0].shape == (4, 3, 4)


def test_sizes(folder: Path) -> None:
    drawn(folder / "cat" / "9.png", size=(5, 3))
    dataset = ImageFolder(folder)
    with pytest.raises(SampleError, match=r"sample 6 \(.*9\.png\) is .*\[5, 3, 3\].* but sample 0"):
        list(DataLoader(dataset, 7))
    with pytest.raises(ValueError, match=r"9\.png is 5 high and 3 wide, not 4 and 3; resize=True"):
        ImageFolder(folder, size=(4, 3))[6]
    resized = ImageFolder(folder, size=(4, 3), resize=True)
    assert resized[6][0].shape == (4, 3, 3)
    np.testing.assert_array_equal(resized[0][0], dataset[0][0])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b"no image"),
        lambda path: path.unlink(),
    ],
    ids=["cut", "text", "gone"],
)
def test_a_bad_file_is_named(folder: Path, spoil: Callable[[Path], None], workers: int) -> None:
    dataset = ImageFolder(folder)
    spoil(folder / "cat" / "1.png")
    with pytest.raises(SampleError, match=r"sample 4 \(.*cat.1\.png\) could not be read") as caught:
        list(DataLoader(dataset, 3, workers=workers))
    assert isinstance(caught.value.__cause__, OSError)


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no images \(\.bmp"):
        ImageFolder(folder)
    with pytest.raises(ValueError, match="has no folders; each class must have one"):
        ImageFolder(folder / "empty")
    with pytest.raises(FileNotFoundError):
        ImageFolder(folder / "none")
    with pytest.raises(NotADirectoryError):
        ImageFolder(folder / "cat" / "0.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "CMYK"}, "mode must be 'L', 'RGB' or 'RGBA', not 'CMYK'"),
        ({"resize": True}, "needs a size"),
        ({"size": (0, 3)}, "both positive"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageFolder(folder, **options)
