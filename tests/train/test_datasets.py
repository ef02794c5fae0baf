"""Datasets of arrays, `.npy` and CSV files, and parts of them."""

from __future__ import annotations

import math
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rumus.train import (
    ArrayDataset,
    CsvDataset,
    DataLoader,
    ImageFolder,
    NpyDataset,
    ParquetDataset,
    SampleError,
    Subset,
    random_split,
)
from rumus.train.data.dataset import batch_of


@pytest.mark.parametrize(
    ("arrays", "error", "said"),
    [
        ((), ValueError, "at least one array"),
        (([1.0], [1.0, 2.0]), ValueError, "equally long, not array 0: 1, array 1: 2"),
        ((3.0,), ValueError, "array 0 has no axes"),
        (([1.0], ["a"]), TypeError, "array 1 has dtype <U1"),
        (([None],), TypeError, "array 0 has dtype object"),
    ],
)
def test_invalid_arrays(arrays: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ArrayDataset(*arrays)


def test_a_batch_is_its_samples() -> None:
    dataset = ArrayDataset(np.arange(12.0).reshape(4, 3), [True, False, True, True])
    found = dataset.batch(np.array([2, 0, 2]))
    for i, index in enumerate([2, 0, 2]):
        for field, value in zip(found, dataset[index], strict=True):
            np.testing.assert_array_equal(field[i], value)
    assert found[1].dtype == bool


def test_subsets_of_subsets() -> None:
    whole = ArrayDataset(np.arange(10) * 10)
    part = Subset(Subset(whole, [9, 8, 7, 6]), [3, 0])
    assert [int(part[i][0]) for i in range(2)] == [60, 90]
    batch = batch_of(part)
    assert batch is not None
    (values,) = batch(np.array([1, 0]))
    assert np.asarray(values).tolist() == [90, 60]
    assert part.describe(1) == "9 of the whole dataset"
    assert batch_of(Subset([(1,), (2,)], [1])) is None


@pytest.mark.parametrize(
    ("indices", "error", "said"),
    [
        ([0, 4], IndexError, r"index 4 is outside \[0, 4\)"),
        ([-1], IndexError, "index -1"),
        ([[0]], ValueError, r"shape \(1, 1\)"),
        ([0.0], TypeError, "float64"),
        ([True, False, True, True], TypeError, "bool"),
    ],
)
def test_bad_subsets(indices: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Subset(ArrayDataset(range(4)), indices)


@pytest.mark.parametrize("mask", [[0, 1, 0, 1], np.array([1, 0, 0], np.uint8), [True, 0, 1]])
def test_a_mask_of_zeros_and_ones_is_no_list_of_indices(mask: Any) -> None:
    """It took samples 0 and 1 many times over, as (y == 1).astype(int) does."""
    with pytest.warns(UserWarning, match=r"Subset: indices are \d zeros and ones for \d samples"):
        Subset(ArrayDataset(range(len(mask))), mask)


@pytest.mark.parametrize(
    ("samples", "indices"),
    [
        (2, [1, 0]), (4, [0, 0, 0, 0]), (4, [1, 1, 1, 1]), (4, [0, 1]), (4, [1, 0, 1]),
        (3, [0, 2, 1]), (4, [0, 1, 0, 1, 0, 1, 0, 1]), (1, [0]), (3, []), (4, [0, 1, 1, 2]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_indices_that_are_no_mask(samples: int, indices: list[int]) -> None:
    part = Subset(ArrayDataset(range(samples)), indices)
    assert [int(part[i][0]) for i in range(len(part))] == indices


@given(total=st.integers(1, 200), shares=st.lists(st.integers(1, 9), min_size=1, max_size=5),
       seed=st.integers(0, 9))  # fmt: skip
@settings(deadline=None, max_examples=100, derandomize=True)
def test_parts_are_disjoint_and_whole(total: int, shares: list[int], seed: int) -> None:
    dataset = ArrayDataset(range(total))
    fractions = [share / sum(shares) for share in shares]
    if min(fractions) * total < 1:
        with pytest.raises(ValueError, match="gets none of the"):
            random_split(dataset, [1.0, 0.0], seed=seed)
        return
    parts = random_split(dataset, fractions, seed=seed)
    together = np.concatenate([part.indices for part in parts])
    assert sorted(together.tolist()) == list(range(total))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * total) <= 1
    again = random_split(dataset, [len(part) for part in parts], seed=seed)
    assert [p.indices.tolist() for p in again] == [p.indices.tolist() for p in parts]


def test_splits_differ_by_seed() -> None:
    dataset = ArrayDataset(range(50))
    found = {tuple(random_split(dataset, [25, 25], seed=s)[0].indices.tolist()) for s in range(5)}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([5, 6], r"lengths \[5, 6\] do not add up to the 10"),
        ([11, -1], "do not add up"),
        ([0.5, 0.6], "add up to 1"),
        ([1.5, -0.5], r"in \[0, 1\]"),
        ([float("nan"), 1.0], r"in \[0, 1\]"),
        ([0.99, 0.01], "part 1 of .* gets none of the 10 samples"),
        ([10, 0], "part 1"),
        ([], "at least one part"),
    ],
)
def test_bad_splits(parts: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        random_split(ArrayDataset(range(10)), parts)


def saved(folder: Path, name: str, array: Any) -> Path:
    path = folder / name
    np.save(path, array)
    return path


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
@settings(deadline=None, max_examples=30, derandomize=True)
def test_npy_files_one_after_another(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("npy")
    x = [data.draw(hnp.arrays(np.float32, (n, 2), elements=st.integers(0, 99))) for n in lengths]
    y = np.arange(sum(lengths))
    dataset = NpyDataset(
        [saved(folder, f"x{i}.npy", part) for i, part in enumerate(x)], saved(folder, "y.npy", y)
    )
    whole = np.concatenate(x)
    assert len(dataset) == len(whole)
    indices = np.array(data.draw(st.lists(st.sampled_from(y.tolist()), max_size=9)), np.intp)
    for found in (dataset, pickle.loads(pickle.dumps(dataset))):
        first, second = found.batch(indices)
        np.testing.assert_array_equal(first, whole[indices])
        np.testing.assert_array_equal(second, indices)
        for index in range(len(whole)):
            np.testing.assert_array_equal(found[index][0], whole[index])


def test_npy_files_are_not_read_to_be_sent(tmp_path: Path) -> None:
    dataset = NpyDataset(saved(tmp_path, "x.npy", np.zeros((100_000, 2))))
    assert len(pickle.dumps(dataset)) < 1000
    dataset[3][0][...] = 7  # a copy: the file has not changed
    assert np.load(tmp_path / "x.npy").sum() == 0
    assert dataset.describe(3) == f"{tmp_path / 'x.npy'}, row 3"
    with pytest.raises(IndexError, match="100000 is outside"):
        dataset[100_000]


def test_bad_npy_files(tmp_path: Path) -> None:
    good = saved(tmp_path, "good.npy", np.zeros((3, 2)))
    (tmp_path / "cut.npy").write_bytes(good.read_bytes()[:-1])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("hello, this is not an array")
    for name in ("cut", "empty", "text"):
        with pytest.raises(ValueError, match=rf"{name}\.npy cannot be mapped"):
            NpyDataset(tmp_path / f"{name}.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        NpyDataset(tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"object\.npy cannot be mapped"):
        NpyDataset(saved(tmp_path, "object.npy", np.array([None])))
    with pytest.raises(ValueError, match=r"scalar\.npy holds .* shape \(\)"):
        NpyDataset(saved(tmp_path, "scalar.npy", np.array(1.0)))
    with pytest.raises(ValueError, match=r"rows of .*wide\.npy have shape \(5,\) and dtype float6"):
        NpyDataset([good, saved(tmp_path, "wide.npy", np.zeros((3, 5)))])
    with pytest.raises(ValueError, match=r"equally long, not .*good\.npy: 3, .*long\.npy: 4"):
        NpyDataset(good, saved(tmp_path, "long.npy", np.zeros(4)))
    with pytest.raises(ValueError, match="at least one file"):
        NpyDataset()
    with pytest.raises(ValueError, match="at least one file"):
        NpyDataset([])


FLOWERS = "length,width,kind,count\n5.1,3.5,rose,1\n\n4.9,3.0,iris,2\n6.0,nan,rose,-3\n"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_csv_columns(tmp_path: Path) -> None:
    path = written(tmp_path, FLOWERS)
    dataset = CsvDataset(path, columns=["width", "length"], target="kind", target_dtype=str)
    assert dataset.classes == ["iris", "rose"]
    features, target = dataset.batch(np.arange(3))
    wanted = np.array([[3.5, 5.1], [3.0, 4.9], [np.nan, 6.0]], np.float32)
    np.testing.assert_array_equal(features, wanted)
    assert features.dtype == np.float32
    assert target.tolist() == [1, 0, 1]
    assert target.dtype == np.int64
    np.testing.assert_array_equal(dataset[1][0], wanted[1])
    assert [dataset.describe(i) for i in range(3)] == [f"{path}:{line}" for line in (2, 4, 5)]
    counted = CsvDataset(path, columns=["length"], target="count", target_dtype=np.int8)
    assert counted.batch(np.arange(3))[1].tolist() == [1, 2, -3]
    only = CsvDataset(path, columns=["count"], dtype=np.int64)
    assert [len(only[0]), only[2][0].tolist()] == [1, [-3]]


def test_csv_dialects(tmp_path: Path) -> None:
    quoted = CsvDataset(written(tmp_path, '\ufeff"a; b";c\r\n"1";"2"\r\n'), delimiter=";")
    assert quoted.columns == ["a; b", "c"]
    assert quoted[0][0].tolist() == [1, 2]
    bare = CsvDataset(written(tmp_path, "1,2\n3,4"), header=["a", "b"], target="b")
    assert [bare[1][0].tolist(), float(bare[1][1])] == [[3], 4]
    latin = CsvDataset(written(tmp_path, "größe\n1\n", "latin-1"), encoding="latin-1")
    assert latin.columns == ["größe"]


def test_a_csv_file_of_many_lines(tmp_path: Path) -> None:
    """With more lines than are kept as text at a time."""
    lines = [f"{i},{i % 3}" for i in range(10_000)]
    dataset = CsvDataset(written(tmp_path, "\n".join(["x,y", *lines, ""])), target="y")
    features, target = dataset.batch(np.arange(10_000))
    assert features[:, 0].tolist() == list(range(10_000))
    assert target.tolist() == [i % 3 for i in range(10_000)]
    lines[7000] = "7000,?"
    with pytest.raises(ValueError, match=r"data\.csv:7002: '\?' in column 'y' is not float32"):
        CsvDataset(written(tmp_path, "\n".join(["x,y", *lines, ""])), target="y")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a,b\n1,2\n1,x\n", {}, r"csv:3: 'x' in column 'b' is not float32"),
        ("a,b\n1,\n", {}, r"csv:2: '' in column 'b' is not float32"),
        ("a,b\n1,1e39\n", {}, r"csv:2: '1e39' in column 'b' is not float32"),
        ("a,b\n1,2.5\n", {"dtype": np.int32}, r"csv:2: '2.5' in column 'b' is not int32"),
        ("a,b\n1,300\n", {"dtype": np.uint8}, r"csv:2: '300' in column 'b' is not uint8"),
        ("a,b\n1,-1\n", {"dtype": np.uint8}, r"'-1' in column 'b' is not uint8"),
        (f"a\n{10**30}\n", {"dtype": np.int64}, r"csv:2: '10+' in column 'a' is not int64"),
        ("a,b\n1,2\n1,2,3\n", {}, r"csv:3: 3 cells instead of 2"),
        ("a,b\n1\n", {}, r"csv:2: 1 cells instead of 2"),
        ('a,b\n1,"2\n', {}, r"csv:2: .*(quot|end of data)"),
        ("a,b\n1,2\n", {"target": "c"}, r"no column 'c'; it has a, b"),
        ("width,b\n1,2\n", {"columns": ["widht"]}, r"no column 'widht'; did you mean 'width'\?"),
        ("a,a\n1,2\n", {}, r"several columns named 'a'"),
        ("a,b\n", {}, r"has no data rows"),
        ("", {}, r"is empty; its first line must name the columns"),
        ("a\n1\n", {"target": "a"}, r"no columns for the features"),
        (
            "a,b\n1, \n",
            {"target": "b", "target_dtype": str},
            r"csv:2: '' in column 'b' is not a cl",
        ),
    ],
)
def test_bad_csv_files(tmp_path: Path, text: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CsvDataset(written(tmp_path, text), **options)


def test_other_bad_csv(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.csv:\d: .*utf-8.* can't decode"):
        CsvDataset(written(tmp_path, "a\n1\nß\n", "latin-1"))
    with pytest.raises(TypeError, match="integer or floating, not bool"):
        CsvDataset(written(tmp_path, "a\n1\n"), dtype=bool)
    with pytest.raises(FileNotFoundError):
        CsvDataset(tmp_path / "none.csv")


def test_a_transform_of_a_csv_line_is_blamed_with_its_line(tmp_path: Path) -> None:
    def check(sample: Any, _: np.random.Generator) -> Any:
        if sample[0][0] > 5.5:
            raise ValueError("too long")
        return sample

    dataset = CsvDataset(written(tmp_path, FLOWERS), columns=["length"])
    with pytest.raises(SampleError, match=r"sample 2 \(.*data\.csv:5\) could not be transformed"):
        list(DataLoader(dataset, 3, transform=check))


def test_images_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'rumus-train\[images\]'"):
        ImageFolder(tmp_path)


def test_dicts_and_sparse_matrices_are_no_arrays() -> None:
    class Sparse:
        def toarray(self) -> None: ...

    given: Any = {"x": [1.0]}
    with pytest.raises(TypeError, match=r"array 1 is a dict: .*ArrayDataset\(\*data\.values\(\)\)"):
        ArrayDataset([1.0], given)
    given = Sparse()
    with pytest.raises(TypeError, match=r"array 0 is sparse: .*, toarray\(\)"):
        ArrayDataset(given)


def test_items_of_a_derived_class_are_read() -> None:
    """Its `__getitem__` was passed over by the `batch` of the class it derives from."""

    class Doubled(ArrayDataset):
        def __getitem__(self, index: int, /) -> Any:
            (x,) = super().__getitem__(index)
            return (2 * x,)

    class Negative(Subset):
        def __getitem__(self, index: int, /) -> Any:
            return tuple(-x for x in super().__getitem__(index))

    class Quick(Doubled):
        def batch(self, indices: Any) -> Any:
            return (self.arrays[0][indices] * 2,)

    class Named(ArrayDataset):
        classes = ("a", "b")

    class Together(list[Any]):
        def __getitems__(self, indices: Any) -> Any:
            return [self[index] for index in indices]

    class Halved(Together):
        def __getitem__(self, index: Any, /) -> Any:
            return tuple(x / 2 for x in super().__getitem__(index))

    class Wrapped:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return len(self.dataset)

        def __getitem__(self, index: int, /) -> Any:
            return tuple(-x for x in self.dataset[index])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.dataset, name)

    x = np.arange(6.0)
    plain, doubled = ArrayDataset(x), Doubled(x)
    firsts: list[tuple[Any, list[float]]] = [
        (doubled, [0.0, 2.0]),
        (Quick(x), [0.0, 2.0]),
        (Subset(doubled, [2, 1]), [4.0, 2.0]),
        (Together([(3.0,), (4.0,)]), [3.0, 4.0]),
        (Halved([(3.0,), (4.0,)]), [1.5, 2.0]),
        (Wrapped(plain), [0.0, -1.0]),
        (Wrapped(Together([(3.0,), (4.0,)])), [-3.0, -4.0]),
        (Subset(Wrapped(plain), [2, 1]), [-2.0, -1.0]),
        (Negative(plain, [2, 1]), [-2.0, -1.0]),
        (Negative(doubled, [2, 1]), [-4.0, -2.0]),
        (Subset(Negative(plain, [2, 1]), [1, 0]), [-1.0, -2.0]),
    ]
    for dataset, expected in firsts:
        assert next(iter(DataLoader(dataset, 2)))[0].tolist() == expected
    for fast in (plain, Named(x), Quick(x), Subset(plain, [0])):
        assert batch_of(fast) is not None


def test_a_series_that_holds_no_numbers_says_its_dtype() -> None:
    pandas: Any = pytest.importorskip("pandas")
    days = pandas.Series(pandas.date_range("2020", periods=2, tz="UTC"))
    for series, dtype in (
        (pandas.Series(["a", "b"], dtype="category"), "category"),
        (pandas.Series([True, None], dtype="boolean"), "boolean"),
        (days, r"datetime64\[\w+, UTC\]"),
    ):
        with pytest.raises(TypeError, match=rf"array 1 has dtype {dtype}; a dataset .*convert it"):
            ArrayDataset([1.0, 2.0], series)


def test_arrays_of_a_dataset_are_no_tuple_and_no_list() -> None:
    """Two arrays of one shape were two samples."""
    x = np.ones((4, 3))
    with pytest.raises(TypeError, match=r"one by one, not a tuple: ArrayDataset\(x, y\)"):
        ArrayDataset((x, x))
    with pytest.raises(TypeError, match=r"\(\*arrays\) if .* field, .*stack\(arrays\)\) if"):
        ArrayDataset([x, x])
    assert len(ArrayDataset((1.0, 2.0))) == len(ArrayDataset([[1.0], [2.0]])) == 2
    assert len(ArrayDataset([x, x], [0, 1])) == 2  # beside another one it can only be samples


@pytest.mark.parametrize("kind", ["arrays", "npy", "csv", "subset", "table"])
@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], [True, False], 1.5, True, None, "a"])
def test_an_index_that_is_no_whole_number(kind: str, index: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4))
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n")
    make: dict[str, Callable[[], Any]] = {
        "arrays": lambda: ArrayDataset(np.arange(4)),
        "npy": lambda: NpyDataset(tmp_path / "a.npy"),
        "csv": lambda: CsvDataset(tmp_path / "a.csv"),
        "subset": lambda: Subset(ArrayDataset(np.arange(4)), [0, 1]),
        "table": lambda: ParquetDataset(pytest.importorskip("pyarrow").table({"a": [1.0, 2.0]})),
    }
    dataset = make[kind]()
    with pytest.raises(TypeError, match="a dataset has a sample for each whole number, not for"):
        dataset[index]
    assert len(dataset[np.int32(1)]) == len(dataset[1])


def test_lists_of_different_lengths_are_no_array() -> None:
    with pytest.raises(ValueError, match="lists of different lengths, which make no array"):
        ArrayDataset([[1, 2], [3]])


@pytest.mark.parametrize("use", [lambda x: DataLoader(x, 2), lambda x: Subset(x, [0])])
def test_tables_are_no_datasets(use: Callable[[Any], object]) -> None:
    pandas: Any = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0]})
    for table in (frame, frame["a"], pytest.importorskip("pyarrow").table(frame)):
        with pytest.raises(TypeError, match=r"dataset\[i\] is not row i of a \w+: give ArrayDatas"):
            use(table)


def test_a_description_that_fails_hides_no_error() -> None:
    class Odd:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            raise KeyError("lost")

        def describe(self, index: int) -> str:
            raise RuntimeError("of another kind")

    dataset: Any = Odd()
    with pytest.raises(SampleError, match="sample 0 could not be read: KeyError: 'lost'"):
        list(DataLoader(dataset, 1))


def test_two_arrays_in_one_file_are_refused(tmp_path: Path) -> None:
    """The second was left out silently."""
    with open(tmp_path / "a.npy", "wb") as file:
        np.save(file, np.arange(3))
        np.save(file, np.arange(4))
    with pytest.raises(ValueError, match=r"160 bytes follow its array, as of a second numpy\.save"):
        NpyDataset(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["arrays", "npy", "csv", "table"])
def test_a_mask_is_no_list_of_indices(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    make: dict[str, Callable[[], Any]] = {
        "arrays": lambda: ArrayDataset(np.arange(3)),
        "npy": lambda: NpyDataset([tmp_path / "a.npy"] * 2),
        "csv": lambda: CsvDataset(tmp_path / "a.csv"),
        "table": lambda: ParquetDataset(pytest.importorskip("pyarrow").table({"a": [1.0, 2, 3]})),
    }
    dataset = make[kind]()
    for indices in ([True, False, True], np.array([True, False, True]), np.array([0.5])):
        with pytest.raises(TypeError, match=r"indices must be integers, not (bool|float64)"):
            dataset.batch(indices)
    assert len(dataset.batch(np.array([0, 2]))[0]) == 2
    if kind == "npy":
        for outside in (-1, 6):
            with pytest.raises(IndexError, match=rf"index {outside} is outside \[0, 6\)"):
                dataset.batch(np.array([0, outside]))


def test_splits_into_many_fractions_take_linear_time_and_are_exact() -> None:
    count = 20_000
    parts = [1 / count] * count
    begun = time.process_time()
    found = random_split(ArrayDataset(np.zeros(count)), parts)
    assert time.process_time() - begun < 5  # it was 7 with the sums of all parts before each
    assert {len(part) for part in found} == {1}
    some = [0.1] * 10
    ends = [math.floor(math.fsum(some[:n]) * 1005 + 0.5) for n in range(11)]
    lengths = [len(part) for part in random_split(ArrayDataset(np.zeros(1005)), some)]
    assert lengths == np.diff(ends).tolist()
