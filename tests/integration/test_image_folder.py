"""`ImageFolder`: with Pillow, which nothing else in rumus.train needs."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rumus.train import DataLoader, ImageFolder, SampleError, random_split
from rumus.train.data import image_file


def drawn(path: Path, mode: str = "RGB", size: tuple[int, int] = (4, 3), seed: int = 0) -> None:
    """Write an image in a lossless format; size: (height, width)."""
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
    with pytest.raises(
        ValueError, match=r"9\.png has mode L, not RGB; convert it with convert=True"
    ):
        ImageFolder(folder)[6]
    gray = ImageFolder(folder, mode="L", convert=True)
    assert gray[0][0].shape == gray[6][0].shape == (4, 3)
    assert ImageFolder(folder, mode="RGBA", convert=True)[6][0].shape == (4, 3, 4)
    size: Any = np.array([2, 3])
    assert ImageFolder(folder, convert=True, size=size, resize=True)[6][0].shape == (2, 3, 3)


def test_sizes(folder: Path) -> None:
    drawn(folder / "cat" / "9.png", size=(5, 3))
    dataset = ImageFolder(folder)
    with pytest.raises(SampleError, match=r"sample 6 \(.*9\.png\) is .*\[5, 3, 3\].* but sample 0"):
        list(DataLoader(dataset, 7))
    with pytest.raises(ValueError, match=r"9\.png is 5 high and 3 wide, not 4 and 3; resize it"):
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
        ({"mode": "CMYK"}, "mode must be 'L', 'RGB', .* not 'CMYK'"),
        ({"resize": True}, "needs a size"),
        ({"size": (0, 3)}, "both positive"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageFolder(folder, **options)


def saved(folder: Path, image: Image.Image, name: str = "1.png", **options: Any) -> Path:
    (folder / "a").mkdir(exist_ok=True)
    image.save(folder / "a" / name, **options)
    return folder


@pytest.mark.parametrize(
    ("mode", "suffix", "pixels"),
    [
        ("I;16", "png", np.linspace(0, 65535, 256).astype(np.uint16)),
        ("I;16", "tif", np.linspace(0, 65535, 256).astype(np.uint16)),
        ("I;16", "tif", np.linspace(0, 65535, 256).astype(">u2")),
        ("I", "tif", np.linspace(-(2**31), 2**31 - 1, 256).astype(np.int32)),
        ("F", "tif", np.linspace(-1, 1, 256).astype(np.float32)),
    ],
)
@pytest.mark.parametrize("convert", [False, True])
def test_pixels_of_more_than_eight_bits_are_exact_or_refused(
    tmp_path: Path, mode: Any, suffix: str, pixels: np.ndarray[Any, Any], convert: bool
) -> None:
    folder = saved(tmp_path, Image.fromarray(pixels[None].repeat(2, 0)), f"1.{suffix}")
    found = ImageFolder(folder, mode=mode, convert=convert)[0][0]
    assert found.dtype == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, pixels[None].repeat(2, 0))
    for other in ("L", "RGB", "F" if mode != "F" else "I"):
        with pytest.raises(ValueError, match=f"read it with mode='{mode}'") as caught:
            ImageFolder(folder, mode=other, convert=convert)[0]
        assert "convert=True" not in str(caught.value)


def test_sixteen_bits_of_color_are_not_truncated_silently(tmp_path: Path) -> None:
    """Pillow silently opens such a file as 8-bit RGB."""
    (tmp_path / "a").mkdir()
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    chunks = ((b"IHDR", header), (b"IDAT", pixel), (b"IEND", b""))
    (tmp_path / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ))  # fmt: skip
    with pytest.raises(ValueError, match="16 bits per channel; convert=True keeps the upper 8"):
        ImageFolder(tmp_path)[0]
    assert ImageFolder(tmp_path, convert=True)[0][0].tolist() == [[[0x12, 0x56, 0x9A]]]


def test_an_image_stands_as_its_camera_says(tmp_path: Path) -> None:
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    folder = saved(tmp_path, Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(ImageFolder(folder)[0][0], np.rot90(pixels, -1))


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_frames_are_chosen_not_left_out(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), (gray,) * 3) for gray in (0, 255)]
    options = {"lossless": True} if suffix == "webp" else {}
    folder = saved(
        tmp_path, frames[0], f"1.{suffix}", save_all=True, append_images=frames[1:], **options
    )
    with pytest.raises(ValueError, match="has 2 frames; frame=0"):
        ImageFolder(folder)[0]
    for frame, gray in enumerate((0, 255)):
        assert np.all(ImageFolder(folder, frame=frame, convert=True)[0][0] == gray)
    with pytest.raises(ValueError, match="no frame 2"):
        ImageFolder(folder, frame=2)[0]


def test_links_are_followed_and_end(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    more = tmp_path_factory.mktemp("more")
    drawn(more / "x.png")
    (folder / "cat" / "more").symlink_to(more)
    (folder / "cat" / "up").symlink_to(folder / "cat")
    (folder / "linked").symlink_to(more)
    dataset = ImageFolder(folder)
    assert [dataset.labels.count(n) for n in range(3)] == [3, 4, 1]
    (folder / "cat" / "lost.png").symlink_to(folder / "nowhere")
    with pytest.raises(ValueError, match=r"lost\.png is a link to .*nowhere, which does not exist"):
        ImageFolder(folder)


def test_splits_number_their_classes_alike(folder: Path) -> None:
    classes = ["bird", "cat", "Dog"]
    assert set(ImageFolder(folder, classes=classes).labels) == {1, 2}
    with pytest.raises(ValueError, match="'Dog' is not in classes; did you mean 'dog'"):
        ImageFolder(folder, classes=["cat", "dog"])


def test_a_pipe_called_image_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "cat" / "9.png")
    with pytest.raises(OSError, match="a pipe, not a regular file"):
        ImageFolder(folder)[6]


@pytest.mark.parametrize("length", [3, 20, 200, 3000])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, kind: str, length: int) -> None:
    """Whatever Pillow reports."""
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    path = folder / f"x.{kind.lower()}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, kind)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises((OSError, ValueError), match=re.escape(path.name)):
        ImageFolder(tmp_path / "images")[0]


def test_folders_that_systems_make_are_no_classes(folder: Path) -> None:
    for name in ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"):
        (folder / name).mkdir()
    drawn(folder / "cat" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB.png")
    drawn(folder / "__MACOSX" / "cat" / "0.png")
    dataset = ImageFolder(folder)
    assert dataset.classes == ["Dog", "cat"]
    assert len(dataset) == 6
    assert len(dataset.like(folder)) == 6


def test_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "Val"):
        drawn(tmp_path / split / "cat" / "0.png")
    with pytest.raises(
        ValueError, match=r"folders called Val, train, which look like splits, not classes"
    ):
        ImageFolder(tmp_path)
    assert len(ImageFolder(tmp_path, classes=["train", "Val"])) == 2
    assert ImageFolder(tmp_path / "train").classes == ["cat"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("docs", "test", "train"), "test, train"),
        (("test-set", "train_images"), "test-set, train_images"),
        (("Training", "holdout 2", "x"), "Training, holdout 2"),
        (("train2017", "val2017"), "train2017, val2017"),
        (("testA", "testB", "trainA", "trainB"), "testA, testB, trainA, trainB"),
    ],
)
def test_splits_among_other_folders_are_no_classes(
    names: tuple[str, ...], splits: str, tmp_path: Path
) -> None:
    for name in names:
        drawn(tmp_path / name / "cat" / "0.png")
    with pytest.raises(ValueError, match=rf"folders called {splits}, which look like splits"):
        ImageFolder(tmp_path)
    assert len(ImageFolder(tmp_path, classes=list(names))) == len(names)


@pytest.mark.parametrize(
    "names",
    [
        ("test tube", "train"),
        ("car", "toy_train", "test-tube"),
        ("dev board", "train"),
        ("Contest", "trainer"),
        ("latest", "train"),
        ("car", "train_val"),
    ],
)
def test_classes_may_have_the_words_of_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        drawn(tmp_path / name / "0.png")
    assert ImageFolder(tmp_path).classes == sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        ("test", "train"), ("test_images", "train-set"), ("trainset", "testset"),
        ("TrainSet", "TestSet"), ("traindata", "valdata"), ("trainImages", "testImages"),
        ("trainval", "test"), ("train_val", "test"), ("xTrain", "xTest"), ("train", "test_public"),
        ("Training", "PublicTest", "PrivateTest"), ("trainA", "trainB"), ("train1", "train2"),
    ],
)  # fmt: skip
def test_splits_without_folders_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        drawn(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="look like splits"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("images", "masks"), "images, masks"),
        (("Images", "labels", "other"), "Images, labels"),
        (("JPEGImages", "Annotations", "SegmentationClass"), "JPEGImages, Annotations, Segmentat"),
        (("train_images", "train_masks"), "train_images, train_masks"),
        (("imagesTr", "labelsTr"), "imagesTr, labelsTr"),
        (("img", "gt"), "img, gt"),
        (("image_2", "label_2"), "image_2, label_2"),
    ],
)
def test_images_beside_their_masks_are_no_classes(
    names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    for name in names:
        drawn(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=rf"folders called {said}.*, which look like images and"):
        ImageFolder(tmp_path)
    assert len(ImageFolder(tmp_path, classes=list(names))) == len(names)


def test_classes_called_labels_and_pictures_among_others_are_told_of(tmp_path: Path) -> None:
    names = ["labels", "pictures", "tables", "texts"]
    for name in names:
        drawn(tmp_path / name / "0.png")
    with pytest.warns(UserWarning, match="called pictures, labels, which look like images and"):
        assert ImageFolder(tmp_path).classes == names
    assert len(ImageFolder(tmp_path, classes=names)) == 4


@pytest.mark.parametrize(
    "names",
    [("mask", "no_mask"), ("with_mask", "without_mask"), ("image", "text"), ("labels", "boxes"),
     ("mask_images", "no_mask_images")],
)  # fmt: skip
def test_masks_and_labels_may_be_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        drawn(tmp_path / name / "0.png")
    assert ImageFolder(tmp_path).classes == sorted(names)


def test_images_in_folders_spelled_like_classes_have_no_labels(
    folder: Path, tmp_path: Path
) -> None:
    drawn(tmp_path / "other" / "cats" / "0.png")
    train = ImageFolder(folder)
    with pytest.warns(UserWarning, match="have no labels, .*; should 'cats' be 'cat'"):
        assert train.like(tmp_path / "other").labels == []
    drawn(tmp_path / "test" / "unknown" / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train.like(tmp_path / "test").labels == []


@pytest.mark.parametrize("name", ["root", "transform", "image_size", "class_names"])
def test_options_of_other_libraries_are_named(folder: Path, name: str) -> None:
    make: Any = ImageFolder
    with pytest.raises(TypeError, match=f"ImageFolder takes no '{name}'; here it is"):
        make(folder, **{name: None})


def test_a_folder_above_the_classes_is_said_to_be_one_class(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        drawn(tmp_path / "pets" / name / "0.png")
    with pytest.warns(UserWarning, match=r"one class, pets, with folders .*\(cat, dog\)") as said:
        assert ImageFolder(tmp_path).classes == ["pets"]
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(tmp_path, classes=["pets"]).classes == ["pets"]
        assert ImageFolder(tmp_path / "pets").classes == ["cat", "dog"]
        drawn(tmp_path / "pets" / "0.png")  # images of its own: the folders are parts of it
        ImageFolder(tmp_path)


def test_a_train_may_be_a_class(tmp_path: Path) -> None:
    for name in ("bus", "train", "train_station"):
        drawn(tmp_path / name / "0.png")
    assert ImageFolder(tmp_path).classes == ["bus", "train", "train_station"]


def tiff(pixels: NDArray[Any]) -> bytes:
    """A TIFF of one channel, written by hand: Pillow writes none of these kinds."""
    (height, width), bits = pixels.shape, 8 * pixels.itemsize
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data += b"\0" * (len(data) % 2)
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, pixels.nbytes),
        (339, 3, {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    return header + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("pixels", "mode", "message"),
    [
        (np.array([[-1, 3]], np.int8), "L", "signed pixels of 8 bits"),
        (np.array([[2**31, 3]], np.uint32), "I", "unsigned pixels of 32 bits, of 2\\*\\*31"),
    ],
)
def test_a_sign_is_neither_made_nor_lost(
    pixels: NDArray[Any], mode: Any, message: str, tmp_path: Path
) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.tif").write_bytes(tiff(pixels))
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path, mode=mode)[0]


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        (np.array([[255, 3]], np.uint8), "L"),
        (np.array([[-(2**31), 3]], np.int32), "I"),
        (np.array([[2**31 - 1, 3]], np.uint32), "I"),
        (np.array([[-5, 3]], np.int16), "I"),
        (np.array([[2**16 - 1, 3]], np.uint16), "I;16"),
    ],
)
def test_pixels_of_a_tiff_are_exact(pixels: NDArray[Any], mode: Any, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.tif").write_bytes(tiff(pixels))
    np.testing.assert_array_equal(ImageFolder(tmp_path, mode=mode)[0][0], pixels)


def test_numbered_folders_are_sorted_as_text(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10):
        drawn(tmp_path / str(number) / "0.png")
    with pytest.warns(UserWarning, match="class 2 is the folder 10;") as found:
        assert ImageFolder(tmp_path).classes == ["0", "1", "10", "2"]
    assert found[0].filename == __file__
    ordered = sorted(os.listdir(tmp_path), key=int)
    assert ImageFolder(tmp_path, classes=ordered).labels == [0, 1, 3, 2]


def test_folders_of_decimal_numbers_are_sorted_as_text(tmp_path: Path) -> None:
    for number in ("0.5", "2.5", "10.5"):
        drawn(tmp_path / number / "0.png")
    with pytest.warns(UserWarning, match=r"class 1 is the folder 10\.5; .*, key=float\) sorts"):
        ImageFolder(tmp_path)


def test_a_transparent_color_is_not_dropped_silently(tmp_path: Path) -> None:
    drawn(tmp_path / "cat" / "0.png")
    Image.open(tmp_path / "cat" / "0.png").save(tmp_path / "cat" / "1.png", transparency=(1, 2, 3))
    with pytest.raises(ValueError, match=r"1\.png has a transparent color; convert=True"):
        ImageFolder(tmp_path)[1]
    given, plain = (ImageFolder(tmp_path, convert=True)[n][0] for n in (1, 0))
    np.testing.assert_array_equal(given, plain)


def test_images_of_formats_that_are_not_read_are_said(folder: Path) -> None:
    """Half of a class may be photographs of a telephone, or what a browser saves."""
    for name in ("cat/1.heic", "cat/2.HEIC", "Dog/brown/3.jfif"):
        (folder / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3 images are left out, since \.heic, \.jfif is") as said:
        dataset = ImageFolder(folder)
    assert said[0].filename == __file__
    assert len(dataset) == 6
    with pytest.warns(UserWarning, match="3 images are left out"):
        dataset.like(folder)


def saved_at(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("cat/test/1", "cat/train/1", "dog/train/1"), "cat has folders called test, train, which"),
        (("cat/1", "dog/images/1", "dog/masks/1"), "dog has folders called images, masks, which"),
        (("cat/a", "cat/a_mask", "dog/a"), "1 of 3 files are called like masks .* as a_mask.png"),
        (("cat/a (1)", "cat/a (1)_Seg_1", "dog/a"), r"such as a \(1\)_Seg_1.png"),
    ],
)
def test_splits_and_masks_within_classes_are_told_of(
    names: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    for name in names:
        saved_at(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=told) as found:
        ImageFolder(tmp_path)
    assert len(found) == 1
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path, classes=["cat", "dog"])


def test_images_without_masks_may_be_called_so(tmp_path: Path) -> None:
    for name in ("face_mask/face_mask", "face/face_label_1", "face/train/1", "face/hat/1"):
        saved_at(tmp_path / f"{name}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(tmp_path).classes == ["face", "face_mask"]


def test_images_beside_the_classes_are_told_of(tmp_path: Path) -> None:
    for name in ("cat/1", "dog/1", "sample", ".hidden"):
        saved_at(tmp_path / f"{name}.png")
    (tmp_path / "readme.txt").write_text("")
    with pytest.warns(UserWarning, match=r"1 images are left out, such as sample.png") as found:
        ImageFolder(tmp_path)
    assert len(found) == 1


def test_images_beside_the_classes_of_another_folder_are_told_of(
    folder: Path, tmp_path: Path
) -> None:
    train = ImageFolder(folder)
    for name in ("other/cat/1", "other/sample"):
        saved_at(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=r"1 images are left out, such as sample.png") as found:
        assert train.like(tmp_path / "other").labels == [1]
    assert found[0].filename == __file__


@pytest.mark.parametrize(
    "names", [("fold1", "fold2"), ("train", "extra"), ("train", "unlabeled"), ("part_1", "part_2")]
)
def test_folds_and_parts_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        saved_at(tmp_path / name / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"which look like splits, not classes"):
        ImageFolder(tmp_path)


def test_parts_without_folders_may_be_classes(tmp_path: Path) -> None:
    for name in ("part 1", "part 2"):
        saved_at(tmp_path / name / "1.png")
    assert ImageFolder(tmp_path).classes == ["part 1", "part 2"]


@pytest.mark.parametrize(
    "names",
    [
        ("HR", "LR"),
        ("HR", "LR_x4"),
        ("DIV2K_train_HR", "DIV2K_train_LR_bicubic"),
        ("input", "target"),
        ("inputs", "outputs"),
        ("source", "target"),
        ("rgb", "depth"),
        ("cats_images", "cats_masks"),
        ("images", "images_mask"),
    ],
)
def test_images_and_their_targets_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        saved_at(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=rf"folders called {', '.join(names)}, which look like im"):
        ImageFolder(tmp_path)
    assert len(ImageFolder(tmp_path, classes=list(names))) == 2


PAIRS = ("0", "1"), ("0", "1")


@pytest.mark.parametrize(
    ("files", "is_told"),
    [
        (PAIRS, True),
        ((("7", "900"), ("7", "900")), True),
        ((("a", "b", "c", "d"), ("a", "b", "d")), True),  # one without a mask
        ((("a", "b"), ("a_mask", "b_mask")), True),
        ((("im_a_L", "im_b_L"), ("im_a_R", "im_b_R")), True),
        ((("0",), ("0",)), False),
        ((("0", "1", "2"), ("0", "1")), False),
        ((("cat.0", "cat.1"), ("dog.0", "dog.1")), False),
        ((("a", "b", "c"), ("a", "d", "e")), False),
        ((("1/a", "2/b", "x"), ("3/a", "4/b", "y")), False),
    ],
)
@pytest.mark.parametrize("names", [("left", "right"), ("A", "B"), ("clean", "noisy")])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_two_folders_of_files_that_are_called_alike_are_told_of(
    names: tuple[str, str],
    files: tuple[tuple[str, ...], tuple[str, ...]],
    is_told: bool,
    suffix: str,
    tmp_path: Path,
) -> None:
    for name, stems, each in zip(names, files, (suffix, ".png"), strict=True):
        for stem in stems:
            saved_at(tmp_path / name / f"{stem}{each}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert ImageFolder(tmp_path).classes == [*names]
    said = f"the images in {', '.join(names)} are called alike, as images and what belongs to each"
    assert [said in str(each.message) for each in told] == [True] * is_told
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path, classes=names)


def test_several_folders_of_files_that_merely_count_are_classes(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1", "b/2", "c/1", "c/2", "d/1_1", "d/1_2", "e/1_1", "e/1_2"):
        saved_at(tmp_path / f"{name}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path)
    for name in ("c/9", "f/9", "f/1", "f/2"):
        saved_at(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match="the images in c, f are called alike"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("labeled", "unlabeled"),
        ("Labeled", "Unlabeled", "test"),
        ("labeled_images", "unlabeled_images"),
    ],
)
def test_labeled_and_unlabeled_images_are_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        saved_at(tmp_path / name / "1.png")
    with pytest.raises(ValueError, match="look like splits"):
        ImageFolder(tmp_path)


def test_folders_within_the_classes_may_be_the_classes(tmp_path: Path) -> None:
    for name in ("animals/cat", "animals/dog", "cars/bmw"):
        saved_at(tmp_path / name / "1.png")
    told = r"with all of their images in folders, such as animals \(cat, dog\): move these into one"
    with pytest.warns(UserWarning, match=told) as found:
        assert ImageFolder(tmp_path).classes == ["animals", "cars"]
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path, classes=["animals", "cars"])
        saved_at(tmp_path / "cars" / "1.png")
        ImageFolder(tmp_path)


@pytest.mark.parametrize("names", [("class_1", "class_10", "class_2"), ("10st", "1st", "9st")])
def test_numbers_in_the_names_of_folders_are_sorted_as_text(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for name in names:
        saved_at(tmp_path / name / "x.png")
    told = "so class [01] is the folder .*; classes=.* puts them in the order of their numbers"
    with pytest.warns(UserWarning, match=told):
        assert ImageFolder(tmp_path).classes == [*names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path, classes=names)


@pytest.mark.parametrize("names", [("input", "keyboard"), ("hr", "x")])
def test_classes_of_the_same_files(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        saved_at(tmp_path / name / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(tmp_path).classes == sorted(names)


def test_the_same_folders_in_all_classes_are_told_of(tmp_path: Path) -> None:
    for name in ("2023/cat/0", "2023/dog/0", "2024/cat/0", "2024/dog/0"):
        saved_at(tmp_path / f"{name}.png")
    told = (
        r"same folders in each, such as 2023 \(cat, dog\): use .*2023'.* classes=\['2023', '2024'"
    )
    with pytest.warns(UserWarning, match=told) as found:
        assert ImageFolder(tmp_path).classes == ["2023", "2024"]
    assert len(found) == 1
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolder(tmp_path, classes=["2023", "2024"])
    saved_at(tmp_path / "2024" / "bird" / "0.png")
    with pytest.warns(UserWarning, match=r"with all of their images in folders, such as 2023 "):
        ImageFolder(tmp_path)


def test_numbered_folders_in_classes_are_parts_of_them(tmp_path: Path) -> None:
    for name in ("run/video1/0", "run/video2/0", "walk/video1/0", "walk/video2/0"):
        saved_at(tmp_path / f"{name}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(tmp_path).classes == ["run", "walk"]


@pytest.mark.parametrize(
    "name", ["cat - Copy", "cat (1)", "Copy of cat", "cat (Copy)", "cat_copy_2"]
)
def test_copies_of_folders_are_told_of(name: str, tmp_path: Path) -> None:
    for folder in ("cat", "dog", name):
        saved_at(tmp_path / folder / "0.png")
    with pytest.warns(
        UserWarning, match=rf"folder '{re.escape(name)}' is called like a copy of 'c"
    ):
        ImageFolder(tmp_path)
    (tmp_path / "cat").rename(tmp_path / "mouse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert name in ImageFolder(tmp_path).classes


def test_classes_in_other_folders_are_told_of(folder: Path, tmp_path: Path) -> None:
    train = ImageFolder(folder)
    for name in ("test/cat", "test/Dog"):
        saved_at(tmp_path / "other" / name / "0.png")
    told = r"have no labels, .*; (cat|Dog) is in test: give like\('.*test'\)"
    with pytest.warns(UserWarning, match=told):
        assert train.like(tmp_path / "other").labels == []
    assert train.like(tmp_path / "other" / "test").labels == [0, 1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html></html>", "a web page: download the file again"),
        (b'{"error": "too many requests"}', "JSON: convert it, or"),
        (b"<?xml version='1.0'?><svg/>", "XML: convert it"),
        (b"", "empty: download it again"),
        (bytes(3000), "blank at its start: restore it"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC: convert it to PNG or JPEG"),
        (b"%PDF-1.4\n", "a PDF document"),
    ],
)
def test_files_that_are_no_images_say_what_they_are(
    content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(content)
    with pytest.raises(OSError, match=rf"1\.png cannot be read as an image: it is {told}"):
        ImageFolder(tmp_path)[0]


def test_a_damaged_image_is_none_of_another_kind(tmp_path: Path) -> None:
    saved_at(tmp_path / "cat" / "1.png")
    path = tmp_path / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(OSError, match=r"1\.png") as caught:
        ImageFolder(tmp_path)[0]
    assert "it is" not in str(caught.value)


@pytest.mark.parametrize("place", range(45, 140, 5))
def test_a_changed_bit_of_a_png_is_noticed(place: int, tmp_path: Path) -> None:
    """Pillow gives other pixels for some."""
    (tmp_path / "cat").mkdir()
    path = tmp_path / "cat" / "1.png"
    Image.new("RGB", (64, 64), (7, 7, 7)).save(path)
    ImageFolder(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"1\.png is damaged: its pixels do not fit their checks"):
        ImageFolder(tmp_path)[0]


def test_damaged_pixels_are_no_damaged_exif(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error was swallowed with those of EXIF data, and the pixels were others."""
    drawn(tmp_path / "cat" / "1.png", size=(64, 64))
    path = tmp_path / "cat" / "1.png"
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.write_bytes(data)
    monkeypatch.setattr(image_file, "_check_sums", lambda path: None)
    with pytest.raises(OSError, match=r"1\.png cannot be read: "):
        ImageFolder(tmp_path)[0]


def test_what_follows_a_png_is_none_of_it(tmp_path: Path) -> None:
    saved_at(tmp_path / "cat" / "1.png")
    with (tmp_path / "cat" / "1.png").open("ab") as file:
        file.write(struct.pack(">I", 4) + b"IDATabcd" + bytes(4))
    assert ImageFolder(tmp_path)[0][0].shape == (2, 2, 3)


def test_a_png_without_its_end_is_whole(tmp_path: Path) -> None:
    drawn(tmp_path / "cat" / "1.png", size=(64, 64))
    path = tmp_path / "cat" / "1.png"
    whole = ImageFolder(tmp_path)[0][0]
    path.write_bytes(path.read_bytes()[:-12])
    np.testing.assert_array_equal(ImageFolder(tmp_path)[0][0], whole)


@pytest.mark.parametrize("name", ["test", "Validation", "unlabeled"])
def test_a_split_beside_classes_is_told_of(name: str, tmp_path: Path) -> None:
    for each in ("cat", "dog", name):
        saved_at(tmp_path / each / "1.png")
    with pytest.warns(UserWarning, match=f"the folder {name} is called like a split and is a cla"):
        ImageFolder(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ImageFolder(tmp_path, classes=["cat", "dog", name])) == 3
