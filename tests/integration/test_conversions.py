"""A conversion is exact, or is refused, or what it loses is said."""

from __future__ import annotations

import enum
import io
import math
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.nn import Linear
from rumus.optim import SGD
from rumus.tensor import (
    Generator,
    Parameter,
    PrecisionError,
    concat,
    float64,
    maximum,
    minimum,
    stack,
    tensor,
    where,
)
from rumus.train import (
    ArrayDataset,
    Checkpoints,
    CsvDataset,
    DataLoader,
    LengthBuckets,
    Mixup,
    NpyDataset,
    Pad,
    ParquetDataset,
    RunFolder,
    SampleError,
    Trainer,
    images,
    metrics,
)
from rumus.train.base.toml_text import parse_toml
from rumus.train.command_line.predict import write_table
from rumus.train.tables.csv_cell import Days

RANDOM = np.random.default_rng(0)
HIDDEN = np.ma.masked_array([1.0, -999.0], [False, True])


def written(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


# Tables


def read(kind: str, folder: Path, name: str, cells: list[Any], **options: Any) -> Any:
    """A column of a text file, or of a table in memory."""
    if kind == "csv":
        lines = [name, *('""' if cell is None else str(cell) for cell in cells)]
        return CsvDataset(written(folder, "\n".join(lines) + "\n"), **options)
    pyarrow = pytest.importorskip("pyarrow")
    return ParquetDataset(pyarrow.table({name: cells}), **options)


KINDS = pytest.mark.parametrize("kind", ["csv", "parquet"])


@KINDS
@pytest.mark.parametrize("options", [{}, {"missing": "mean"}], ids=["as it is", "with means"])
def test_whole_numbers_that_are_rounded_are_said(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.warns(
        UserWarning, match="'a' has whole numbers that float32 rounds, 16777217"
    ) as w:
        read(kind, tmp_path, "a", [16777217, 1], **options)
    assert w[0].filename == __file__
    read(kind, tmp_path, "a", [16777216, 1], **options)
    read(kind, tmp_path, "a", [16777217, 1], dtype=np.float64, **options)
    read(kind, tmp_path, "a", [16777217, 1], standardize=True, **options)


@KINDS
@pytest.mark.parametrize("options", [{}, {"missing": "mean"}], ids=["as it is", "with means"])
def test_numbers_that_become_0_are_said(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Such as p-values, whose logarithms would be -inf."""
    with pytest.warns(UserWarning, match=r"'p' has numbers too small for float32, .* 3e-50"):
        read(kind, tmp_path, "p", [0.0, 3e-50, 1.0], **options)
    read(kind, tmp_path, "p", [0.0, 3e-40, 1.0], **options)
    read(kind, tmp_path, "p", [0.0, 3e-50, 1.0], dtype=np.float64, **options)


@KINDS
@pytest.mark.parametrize("options", [{}, {"missing": "mean"}], ids=["as it is", "with means"])
def test_times_of_day_that_are_rounded_are_said(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    times = [datetime(2024, 5, 5, 12), datetime(2024, 5, 5, 12, 1)]
    options = {"dates": ["a"], **options}
    with pytest.warns(
        UserWarning, match="'a' has times of day that float32 rounds, by up to 60"
    ) as w:
        read(kind, tmp_path, "a", times, **options)
    assert w[0].filename == __file__
    exact = read(kind, tmp_path, "a", times, dtype=np.float64, **options)
    seconds = np.diff(exact.batch(np.arange(2))[0][:, 0]) * 86_400
    assert seconds == pytest.approx(60, abs=1e-6)
    read(kind, tmp_path, "a", times, standardize=True, **options)
    read(kind, tmp_path, "a", [datetime(2024, 5, 5)], **options)


@KINDS
@pytest.mark.parametrize("options", [{}, {"missing": "mean"}], ids=["as it is", "with means"])
def test_a_single_second_that_is_lost_is_said(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="'a' has times of day that float32 rounds, by up to 1 s"):
        read(kind, tmp_path, "a", [datetime(2024, 5, 5, 0, 0, 1)], dates=["a"], **options)


def test_microseconds_are_kept() -> None:
    days = [float(Days(None)(f"2024-05-05 12:00:00.00000{n}")) for n in (1, 2)]
    assert days[0] < days[1]


@KINDS
def test_a_number_beyond_the_largest_is_refused_beside_means(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a' is not float32"):
        read(kind, tmp_path, "a", [1e300, 1.0, None], missing="mean")
    huge = read(kind, tmp_path, "a", [1e300, 3e300], standardize=True)
    assert huge.batch(np.arange(2))[0].tolist() == [[-1.0], [1.0]]


def test_whole_numbers_beside_missing_ones_are_exact() -> None:
    """Arrow's own arrays of them are of float64, which has no 2**53 + 1."""
    large = 2**53 + 1
    dataset = read("parquet", Path(), "a", [large, None], missing=0.0, dtype=np.int64)
    assert dataset.batch(np.arange(2))[0].tolist() == [[large], [0]]


@pytest.mark.parametrize("missing", [0.5, float("nan"), "mean"])
def test_whole_numbers_that_missing_ones_round_are_said(missing: Any) -> None:
    with pytest.warns(UserWarning, match="that float64 rounds, .* keep them with an int64 dtype="):
        read("parquet", Path(), "a", [2**53 + 1, None], missing=missing, dtype=np.float64)


@KINDS
def test_whole_numbers_that_float64_rounds_are_said(kind: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="'a' has whole numbers that float64 rounds, 90071992547"):
        read(kind, tmp_path, "a", [2**53 + 1, 1], dtype=np.float64)


def test_targets_of_several_dtypes_are_exact() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1.0], "x": [2**53 + 1], "y": [2.0]})
    found = ParquetDataset(table, target=["x", "y"], target_dtype=np.int64)[0][1]
    assert found.tolist() == [2**53 + 1, 2]


@pytest.mark.parametrize("is_dictionary", [False, True])
def test_bytes_are_no_texts(is_dictionary: bool) -> None:
    """Python's b'rose' would be the name of a class, which no other file has."""
    pyarrow = pytest.importorskip("pyarrow")
    kinds = pyarrow.array([b"rose", b"iris"])
    table = pyarrow.table({"a": [1, 2], "k": kinds.dictionary_encode() if is_dictionary else kinds})
    for options in ({"target": "k", "target_dtype": str}, {"categories": ["k"]}):
        given: dict[str, Any] = options
        with pytest.raises(ValueError, match="'k' holds binary, not texts; cast it to strings"):
            ParquetDataset(table, **given)


def test_decimals_that_are_whole_are_exact() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": [1.0], "y": [Decimal("12345678901234567")]})
    assert ParquetDataset(table, target="y", target_dtype=np.int64)[0][1] == 12345678901234567


def test_what_is_no_number_is_missing_as_in_a_text_file() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [float("nan"), 1.0]})
    assert ParquetDataset(table, missing=0.0).batch(np.arange(2))[0].tolist() == [[0.0], [1.0]]


def test_an_empty_text_is_no_category_unasked() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"c": ["", "red"]})
    with pytest.raises(ValueError, match="row 0: an empty text in column 'c'"):
        ParquetDataset(table, categories=["c"])
    assert ParquetDataset(table, categories=["c"], missing=0.0)[0][0].tolist() == [0.0]


def test_zeros_before_a_number_are_digits(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n" + "0" * 5000 + "16777217\n")
    with pytest.warns(UserWarning, match="float32 rounds"):
        assert float(CsvDataset(path)[0][0][0]) == 16777216.0


# Masks, which `np.asarray` drops


class Samples:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Any]:
        return (HIDDEN,)


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: ArrayDataset(HIDDEN),
        lambda folder: next(iter(DataLoader(Samples(), 2))),
        lambda folder: next(iter(DataLoader(Samples(), 2, collate=Pad()))),
        lambda folder: next(iter(DataLoader(Samples(), 2, collate=lambda samples: samples[0]))),
        lambda folder: metrics.mean_absolute_error(HIDDEN, np.ones(2)),
        lambda folder: Checkpoints(folder).save(1, {"state": {"x": HIDDEN}}),
        lambda folder: Linear(2, 1).load_weights({"weight": HIDDEN[None], "bias": [0.0]}),
        lambda folder: Linear(2, 1).load_state_dict({"weight": HIDDEN[None], "bias": [0.0]}),
    ],
    ids=["dataset", "samples", "pad", "collate", "metric", "checkpoint", "weights", "state"],
)
def test_masked_elements_are_not_taken_for_numbers(
    use: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError), match="mask"):
        use(tmp_path)


def test_a_mask_that_hides_nothing_is_none() -> None:
    assert ArrayDataset(np.ma.masked_array([1.0, 2.0]))[1][0] == 2.0


# Padding


@pytest.mark.parametrize(
    ("value", "array"),
    [
        (0.5, [1, 2]),
        (float("nan"), [1, 2]),
        (-100, np.array([1, 2], np.uint8)),
        (-100.0, np.array([1, 2], np.uint8)),
        (1e10, np.array([1, 2], np.int32)),
        (2, [True, False]),
        (1e6, np.array([1, 2], np.float16)),
    ],
)
def test_padding_that_a_dtype_lacks_is_refused(value: float, array: Any) -> None:
    with pytest.raises(ValueError, match=r"value=.* is not"):
        Pad(value)([(array,), (array[:1],)])


def test_padding_that_a_dtype_holds() -> None:
    found = Pad(-100)([([1, 2],), ([3],), ([],)])[0]
    assert found.dtype == np.int64
    assert found.tolist() == [[1, 2], [3, -100], [-100, -100]]
    assert Pad(2**53 + 1)([([1, 2],), ([3],)])[0][1, 1] == 2**53 + 1
    assert Pad(1)([([True, False],), ([False],)])[0].tolist() == [[True, False], [False, True]]
    assert np.isinf(Pad(float("inf"))([([1.0, 2.0],), ([1.0],)])[0][1, 1])
    assert Pad(0.1)([(np.ones(2, np.float32),), (np.ones(1, np.float32),)])[0].dtype == np.float32


@pytest.mark.parametrize(
    ("pad", "told"),
    [
        (Pad({"lables": -100}), "no field 'lables'; did you mean 'labels'"),
        (Pad([0, 0, 0]), "3 values for samples of 2 fields"),
        (Pad(mask=True), "the samples have one"),
    ],
)
def test_padding_of_fields_that_are_not_there(pad: Pad, told: str) -> None:
    names = ("labels", "mask")
    with pytest.raises(ValueError, match=told):
        pad([{name: [1, 2] for name in names}, {name: [1] for name in names}])


def test_fields_of_several_dtypes_are_joined_exactly_or_not() -> None:
    assert Pad()([([1, 2],), ([1.5],)])[0].tolist() == [[1.0, 2.0], [1.5, 0.0]]
    with pytest.raises(ValueError, match="float64 rounds 9007199254740993"):
        Pad()([([2**53 + 1],), ([1.5],)])


# Images


@pytest.mark.parametrize("values", [200.0, -1.0])
def test_colors_outside_of_their_range_are_not_cut_off(values: float) -> None:
    with pytest.raises(ValueError, match=r"needs values in \[0, 1\]"):
        images.ColorJitter(0.1)(np.full((2, 2, 3), values, np.float32), RANDOM)


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float64])
def test_pixels_of_many_bits_are_kept(dtype: Any) -> None:
    value = 1 / 3 if dtype == np.float64 else 2**30 + 1
    image = np.full((3, 3), value, dtype)
    assert images.turned(image, 0.0)[1, 1] == image[1, 1]
    assert images.ColorJitter()(image, RANDOM)[1, 1] == image[1, 1]


def test_a_fill_that_the_pixels_lack_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fill=-1\.0 is not uint8"):
        images.Rotate(10, -1.0)(np.zeros((4, 4), np.uint8), RANDOM)


def test_truth_values_are_an_image() -> None:
    assert images.Normalize()(np.ones((2, 2), bool), RANDOM).max() == 1.0


@pytest.mark.parametrize("options", [{"size": 0}, {"size": (4, -1)}, {"size": 4, "padding": -1}])
def test_a_crop_of_no_size(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="size must be positive"):
        images.Crop(**options)


# Others


def test_lengths_without_a_sign_are_sorted_alike() -> None:
    lengths = [0, 3, 1]
    plain, unsigned = LengthBuckets(lengths, shuffle=False), np.array(lengths, np.uint8)
    order = LengthBuckets(unsigned, shuffle=False).order(ArrayDataset(lengths), 0, 0, 1)
    assert order.tolist() == plain.order(ArrayDataset(lengths), 0, 0, 1).tolist() == [1, 2, 0]


def test_batches_have_one_dtype_whether_they_are_mixed_or_not() -> None:
    dataset = ArrayDataset(np.zeros((40, 2), np.uint8), np.arange(40) % 3)
    loader = DataLoader(dataset, 4, batch_transform=Mixup(3, share=0.5))
    assert {x.dtype for x, _ in loader} == {np.dtype(np.float32)}
    targets = np.array([[1e300], [1e300]])
    mixed = Mixup(None)((np.ones((2, 1), np.float32), targets), np.random.default_rng(0))
    assert np.isfinite(mixed[1]).all()


def test_predictions_are_written_with_all_digits() -> None:
    values = [np.array([2**31 - 1], np.int32), np.array([0.1 + 1e-12]), np.array([0.1], np.float32)]
    for found in values:
        file = io.StringIO()
        write_table(file, found, [])
        told = file.getvalue().splitlines()[1]
        assert found.dtype.type(told) == found[0]
    assert told == "0.100000001"


def test_numbers_of_a_configuration_come_back(tmp_path: Path) -> None:
    class Level(enum.IntEnum):
        LOW = 1

    folder = RunFolder(tmp_path, config={"lr": np.float64(0.1), "level": Level.LOW})
    assert parse_toml(folder._config) == {"lr": 0.1, "level": 1}


def test_weights_that_would_become_infinite_are_not_converted() -> None:
    model = Linear(1, 1)
    model.weight.assign(np.array([[1e5]], np.float32))
    with pytest.raises(OverflowError, match="does not fit"):
        model.half()
    assert model.weight.dtype == model.bias.dtype == np.float32  # type: ignore[union-attr]


def test_a_count_that_a_step_logs_is_exact() -> None:
    weight = Parameter(np.ones(1, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 0.0))
    trainer.train_step(
        lambda x: {"loss": (weight * x).sum(), "tokens": 2**24 + 1}, np.ones(1, np.float32)
    )
    assert trainer.epoch_averages() == {"tokens": 2**24 + 1}


# In-place changes of tensors that hold no fractions


@pytest.mark.parametrize(
    ("held", "value", "error"),
    [
        ([1, 2, 3], 1.7, "1.7 does not fit a tensor of int32"),
        ([1, 2, 3], np.array([1.0, 2.5, 3.0]), "2.5 does not fit"),
        ([1, 2, 3], tensor([1.0, 2.0, 3.0]), r"assign value\.astype\(int32\)"),
        ([True, False], 2, "2 does not fit a tensor of bool"),
        ([True, False], tensor([1, 0]), r"assign value\.astype\(bool_\)"),
    ],
)
def test_what_is_assigned_is_not_cut_off(held: Any, value: Any, error: str) -> None:
    x = tensor(held)
    for act in (lambda: x.assign(value), lambda: x.__setitem__(slice(None), value)):
        with pytest.raises((TypeError, ValueError), match=error):
            act()
    assert x.tolist() == held


def test_what_is_assigned_exactly() -> None:
    x, mask = tensor([1, 2, 3]), tensor([True, False, True])
    x[0], mask[1] = 7.0, 1
    x[1:] = np.array([8.0, 9.0])
    assert (x.tolist(), mask.tolist()) == ([7, 8, 9], [True, True, True])
    x.assign(mask)
    assert x.tolist() == [1, 1, 1]
    for number in (3e9, float("nan")):
        with pytest.raises(OverflowError, match="do not fit int32"):
            x[0] = number


# Orders of a sampler, which NumPy would take for something else


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([-1, 0, 1, 2], "index -1, outside of"),
        ([0, 1, 2, 8], "index 8, outside of"),
        ([0.5, 1.0, 2.0, 3.0], "not float64"),
        ([True, False, True, True], "not bool"),
        ([0, 1], r"4 whole numbers, .*not int64 of shape \(2,\)"),
        (list(range(8)), r"4 whole numbers, .*not int64 of shape \(8,\)"),
    ],
)
def test_an_order_that_is_none(order: Any, told: str) -> None:
    class Odd:
        def count(self, dataset: Any) -> int:
            return 4

        def order(self, dataset: Any, seed: int, epoch: int, batch_size: int) -> Any:
            return np.array(order)

    loader = DataLoader(ArrayDataset(np.arange(8)), 2, sampler=Odd())
    with pytest.raises(ValueError, match=told):
        next(iter(loader))


@pytest.mark.parametrize("name", ["normal", "uniform"])
def test_lengths_given_one_by_one(name: str) -> None:
    draw: Any = getattr(Generator(0), name)
    with pytest.raises(TypeError, match=rf"{name}\(\(2, 3\)\); if 3 is no length, write 3\.0"):
        draw(2, 3)
    assert draw(2, -3.0, 4.0).shape == draw((2,), -3, 4).shape == draw(2, 0, 1).shape == (2,)


BEYOND = 2**53 + 1  # the first whole number that float64 lacks
MIXED = {"key": [BEYOND, 2], "x": [0.5, 1.5]}


def joined(kind: str) -> Any:
    rows = [[BEYOND, 0.5], [2, 1.5]]
    if kind == "lists":
        return rows
    if kind == "lists with an array":
        return [[rows[0], np.array(rows[1])]]
    frame = pytest.importorskip("pandas").DataFrame(MIXED)
    return pytest.importorskip("pyarrow").table(frame) if kind == "arrow" else frame


@pytest.mark.parametrize("kind", ["lists", "lists with an array", "frame", "arrow"])
def test_whole_numbers_beside_fractions_are_not_rounded_silently(kind: str) -> None:
    given = joined(kind)
    with pytest.raises(ValueError, match=r"array 0:.* 9007199254740993 becomes 9007199254740992"):
        ArrayDataset(given)
    if kind == "frame":
        assert ArrayDataset(given["key"], given["x"])[0][0] == BEYOND
        assert ArrayDataset(given.astype(np.float64))[0][0].tolist() == [BEYOND - 1, 0.5]
    if kind in ("frame", "arrow"):
        with pytest.raises(ValueError, match="array 0: column 'key': 9007199254740993"):
            ArrayDataset(given)


def test_large_numbers_that_are_exact_are_kept() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"a": [2**53, 2**60], "b": [1e300, np.inf]})
    assert ArrayDataset(frame)[1][0].tolist() == [2.0**60, np.inf]
    assert ArrayDataset([[2**60, 1e20], [3, np.nan]])[0][0].tolist() == [2.0**60, 1e20]
    assert ArrayDataset([BEYOND, 1])[0][0] == BEYOND
    with pytest.raises(ValueError, match="9223372036854775809 becomes 9223372036854775808"):
        ArrayDataset([2**63 + 1, -1])


@pytest.mark.parametrize("beside", [0.25, float("nan"), 1e30])
def test_a_column_of_whole_numbers_that_are_rounded_is_said(beside: float) -> None:
    seconds = [1_700_000_001.0, 1_700_000_003.0]
    table = np.array([[second, beside] for second in seconds])
    for data in (table, table[:, ::-1], table[None], np.asfortranarray(table)):
        with pytest.warns(UserWarning, match=r"rounds these whole numbers beyond 2\*\*24"):
            tensor(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (
            table + np.array([0.5, 0]),
            table - seconds[0],
            table * np.array([0, 1]),
            table[:0],
        ):
            tensor(data)
        tensor(table, dtype=float64)


def test_lists_in_samples_are_not_rounded_silently() -> None:
    with pytest.raises(SampleError, match=r"sample 0 has a field .* 9007199254740993 becomes"):
        list(DataLoader([([BEYOND, 0.5],), ([1, 2.0],)], 2))
    rows = [{"key": BEYOND, "x": 0.5}, {"key": 2, "x": 1.5}]
    (batch,) = DataLoader(rows, 2)
    assert batch["key"].tolist() == [BEYOND, 2]


def test_structures_and_dicts_say_how_they_are_given(tmp_path: Path) -> None:
    rows = np.array([(BEYOND, 0.5), (2, 1.5)], [("key", np.int64), ("x", np.float64)])
    with pytest.raises(TypeError, match=r"array 0 is an array of structures: give each of its fi"):
        ArrayDataset(rows)
    assert ArrayDataset(*(rows[field] for field in ("key", "x")))[0][0] == BEYOND
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(
        ValueError, match=r"a\.npy holds an array of structures: save each of its f"
    ):
        NpyDataset(tmp_path / "a.npy")
    dicts: Any = [{"key": 1}, {"key": 2}]
    with pytest.raises(
        TypeError, match=r"array 0 is a list of dicts, .* give the list itself to a"
    ):
        ArrayDataset(dicts)


def test_whole_numbers_beside_missing_ones_are_not_rounded_silently() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    for given in (
        pyarrow.array([BEYOND, None]),
        pyarrow.chunked_array([[None], [BEYOND]], pyarrow.int64()),
        pyarrow.table({"key": [None, BEYOND]}),
        pandas.Series([None, BEYOND], dtype="Int64"),
    ):
        with pytest.raises(
            ValueError, match="9007199254740993 becomes 9007199254740992 in float64"
        ):
            ArrayDataset(given)
    for given in (pyarrow.array([2**60, None]), pandas.Series([2**60, None], dtype="Int64")):
        assert float(ArrayDataset(given)[0][0]) == 2.0**60


def test_a_column_of_many_large_numbers_is_looked_at_at_once() -> None:
    frame = pytest.importorskip("pandas").DataFrame(np.full((300_000, 2), 1e20))
    frame["key"] = np.arange(300_000)
    start = time.perf_counter()
    assert len(ArrayDataset(frame)) == 300_000
    assert time.perf_counter() - start < 1.0


def test_identifiers_are_not_mixed() -> None:
    generator, targets = np.random.default_rng(0), np.array([0, 1])
    for x in (np.full((2, 3), 2**24 + 1), np.full((2, 3), 2**31 + 1, np.uint32)):
        with pytest.raises(ValueError, match="Mixup mixes numbers as float32, which rounds some"):
            Mixup(2)((x, targets), generator)
    mixed, _ = Mixup(2)((np.full((2, 3), 255, np.uint8), targets), generator)
    assert mixed.tolist() == [[255.0] * 3] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"collate": Pad()},
        {"collate": lambda samples: [BEYOND, 0.5]},
        {"collate": lambda samples: ([BEYOND, 0.5],)},
        {"transform": lambda sample, random: ([BEYOND, 0.5],)},
    ],
)
def test_what_a_program_makes_of_samples_is_not_rounded_silently(options: dict[str, Any]) -> None:
    samples = [([BEYOND, 0.5],), ([1, 2.0],)]
    with pytest.raises(SampleError, match="9007199254740993 becomes 9007199254740992 in float64"):
        list(DataLoader(samples, 2, **options))


def test_scalars_of_samples_are_not_rounded_silently_as_they_are_stacked() -> None:
    with pytest.raises(ValueError, match="and float64 rounds 9007199254740993: samples must agree"):
        Pad()([(np.int64(BEYOND),), (np.float64(0.5),)])
    (stacked,) = Pad()([(np.int64(2),), (np.float64(0.5),)])
    assert stacked.tolist() == [2.0, 0.5]


@pytest.mark.parametrize("whole", [2049, 70_000])
def test_integers_that_float16_has_not_are_refused_where_they_become_it(whole: int) -> None:
    """As those that float32 has not: 70,000 became infinite, and 2,049 became 2,048."""
    integers, half = tensor([whole]), tensor([1.0], dtype=np.float16)
    joins: list[Callable[[], Any]] = [
        lambda: where(tensor([True]), integers, half),
        lambda: maximum(integers, half),
        lambda: minimum(half, integers),
        lambda: concat([half, integers]),
        lambda: stack([half, integers]),
    ]
    for joined in joins:
        with pytest.raises(PrecisionError, match=f"become float16 here, which has no {whole}"):
            joined()
    assert where(tensor([True]), tensor([2048]), half).tolist() == [2048.0]
    held = {2049: 2048.0, 70_000: math.inf}[whole]
    assert (half * integers).tolist() == [held]  # a result, which is rounded
