"""Parquet and Arrow: how columns are read, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.train import DataLoader, ParquetDataset

pyarrow: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")
feather: Any = pytest.importorskip("pyarrow.feather")

TABLE = pyarrow.table(
    {
        "length": pyarrow.array([5.1, None, 4.0]),
        "count": pyarrow.array([1, 2, 3], pyarrow.int64()),
        "wild": [True, False, True],
        "color": pyarrow.array(["red", None, "blue"]).dictionary_encode(),
        "day": [datetime.date(1970, 1, 2), datetime.date(1969, 12, 31), datetime.date(1970, 1, 1)],
        "kind": ["rose", "iris", "rose"],
        "list": [[1], [2, 3], []],
        "text": ["a", "b", "c"],
    }
)
OPTIONS: dict[str, Any] = {
    "columns": ["length", "count", "wild", "color", "day"], "target": "kind", "target_dtype": str,
    "categories": ["color"], "dates": ["day"], "missing": -1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1e300], {}, "row 0: 1e\\+300 in column 'a' is not float32; a float64"),
        ([1.0, 70000.0], {"dtype": np.float16}, "row 1: 70000.0 in column 'a' is not float16"),
        ([1.5], {"dtype": np.int32}, "row 0: 1.5 in column 'a' is not int32; a floating"),
        ([300], {"dtype": np.int8}, "row 0: 300 in column 'a' is not int8; an int64"),
        ([float("nan")], {"dtype": np.int32}, "row 0: nan in column 'a' is not int32"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(
    values: list[float], options: dict[str, Any], message: str
) -> None:
    table = pyarrow.table({"a": values, "b": [1] * len(values)})
    with pytest.raises(ValueError, match=message):
        ParquetDataset(table, **options)
    target = {"target": "a", "target_dtype": options.get("dtype", np.float32)}
    with pytest.raises(ValueError, match=message):
        ParquetDataset(table, **target)


@pytest.mark.parametrize("options", [{"missing": "mean"}, {"standardize": True}])
def test_means_need_a_floating_dtype(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="means need a floating dtype, not int32"):
        ParquetDataset(TABLE, columns=["count"], dtype=np.int32, **options)


def test_infinity_and_nan_are_kept() -> None:
    dataset = ParquetDataset(pyarrow.table({"a": [float("inf"), float("nan")]}))
    np.testing.assert_array_equal(dataset.batch(np.array([0, 1]))[0][:, 0], [np.inf, np.nan])


def test_a_broken_footer_is_not_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    with pytest.raises(ValueError, match="is not a Parquet or Arrow file"):
        ParquetDataset(path)


def saved(table: Any, kind: str, folder: Path) -> Any:
    """The path of a Parquet or Arrow file of the table, or the table itself."""
    path = folder / f"data.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path)
    elif kind == "arrow":
        feather.write_feather(table, str(path), compression="uncompressed")
    return table if kind == "table" else path


@pytest.mark.parametrize("kind", ["parquet", "arrow", "table"])
def test_columns(kind: str, tmp_path: Path) -> None:
    dataset = ParquetDataset(saved(TABLE, kind, tmp_path), **OPTIONS)
    assert dataset.features == ["length", "count", "wild", "color=blue", "color=red", "day"]
    assert dataset.classes == ["iris", "rose"]
    ((x, y),) = DataLoader(dataset, 3)
    assert x.tolist() == [
        [np.float32(5.1), 1, 1, 0, 1, 1], [-1, 2, 0, 0, 0, -1], [4, 3, 1, 1, 0, 0]
    ]  # fmt: skip
    assert y.tolist() == [1, 0, 1]
    rest = TABLE.slice(2).drop_columns(["kind"])
    assert [field.tolist() for field in dataset.like(rest)[0]] == [[4, 3, 1, 1, 0, 0]]


def test_means() -> None:
    dataset = ParquetDataset(TABLE, columns=["length", "count"], missing="mean", standardize=True)
    x = np.array([[5.1, 1], [4.55, 2], [4, 3]])
    deviation = np.array([np.std([5.1, 4.0]), np.std([1, 2, 3])])
    np.testing.assert_allclose(dataset.batch(np.arange(3))[0], (x - x.mean(0)) / deviation,
                               atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": ["list"]}, "column 'list' holds list<.*a feature is a single number"),
        ({"columns": ["count"], "target": "list"}, "column 'list' holds list<"),
        ({"columns": ["lenght"]}, "no column 'lenght'; did you mean 'length'"),
        ({"columns": ["length"]}, r"column 'length' has 1 missing values; missing=0\.0"),
        ({"columns": ["text"]}, r"column 'text' holds string; categories=\['text'\]"),
        ({"columns": ["day"]}, r"column 'day' holds date32.*dates=\['day'\] reads it"),
        ({"columns": ["color"], "categories": ["color"]}, "column 'color' has 1 missing"),
        ({"columns": ["text"], "categories": {"text": ["a", "b"]}}, "row 2: column 'text': 'c'"),
        ({"columns": ["count"], "categories": ["text"]}, "are not among the features"),
        ({"columns": ["count"], "target": "kind", "classes": ["rose"]}, "'iris' is not in classes"),
        ({"columns": ["count"], "target_dtype": str}, "give target="),
        ({"columns": ["count"], "target": "length"}, "'length' is missing in 1 rows: remove"),
        ({"columns": ["count"], "target": "day"}, "'day' holds date32.*convert it to numbers"),
    ],
)
def test_refused_input(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ParquetDataset(TABLE, **options)


def test_a_time_of_day_and_a_duration_are_not_dates() -> None:
    from datetime import time, timedelta

    for value in (time(1), timedelta(1)):
        for dates in ([], ["x"]):
            with pytest.raises(ValueError, match=r"column 'x' holds .*; columns=\[...\] leaves"):
                ParquetDataset(pyarrow.table({"x": [value]}), dates=dates)


def test_two_columns_of_one_name() -> None:
    columns = [pyarrow.array([value]) for value in (1.0, 2.0, 3.0)]
    table = pyarrow.Table.from_arrays(columns, names=["a", "a", "b"])
    with pytest.raises(ValueError, match="the table has 2 columns called 'a'"):
        ParquetDataset(table)
    assert ParquetDataset(table, columns=["b"])[0][0].tolist() == [3.0]


def test_invalid_tables(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match="; it is a web page: download the file again"):
        ParquetDataset(path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match="is not a Parquet or Arrow file"):
        ParquetDataset(path)
    with pytest.raises(ValueError, match="has no rows"):
        ParquetDataset(TABLE.slice(0, 0), columns=["count"])
    with pytest.raises(FileNotFoundError):
        ParquetDataset(tmp_path / "none.parquet")


def test_the_pandas_index_is_not_a_feature() -> None:
    table = pyarrow.table({"Unnamed: 0": [0, 1], "a": [1.5, 2], "__index_level_0__": [7, 9]})
    with pytest.warns(UserWarning, match="'Unnamed: 0', '__index_level_0__' are left out") as said:
        assert ParquetDataset(table).columns == ["a"]
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match="'user_id' has a different number in each row"):
        ParquetDataset(pyarrow.table({"user_id": [5, 3], "a": [1.5, 2]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParquetDataset(table, columns=["a", "__index_level_0__"])


def of_pandas(columns: dict[str, Any], index: Any) -> Any:
    """A table with pandas' note of which columns were the index."""
    note = json.dumps({"index_columns": index, "columns": []})
    return pyarrow.table(columns).replace_schema_metadata({"pandas": note})


@pytest.mark.parametrize("kind", ["parquet", "arrow", "table"])
def test_a_named_index_is_not_a_feature(kind: str, tmp_path: Path) -> None:
    table = of_pandas({"a": [1.5, 2.0], "key": [7, 9], "y": [0, 1]}, ["key", {"kind": "range"}])
    source = saved(table, kind, tmp_path)
    with pytest.warns(UserWarning, match="column 'key' is left out as that of row names") as said:
        dataset = ParquetDataset(source, target="y")
    assert said[0].filename == __file__
    assert dataset.columns == ["a"]
    with pytest.warns(UserWarning, match="'key' is left out"):
        assert len(dataset.like(source)) == len(ParquetDataset(source))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ParquetDataset(source, columns=["key", "a"]).columns == ["key", "a"]
        assert ParquetDataset(source, target="key").columns == ["a", "y"]
        assert ParquetDataset(source, categories=["key"]).columns == ["a", "key", "y"]


@pytest.mark.parametrize("index", [[], ["gone"], 3, None, [{"name": "a"}]])
def test_a_note_that_names_no_column_leaves_all_of_them(index: Any) -> None:
    table = of_pandas({"a": [1.5, 2.0], "b": [7, 9]}, index)
    assert ParquetDataset(table).columns == ["a", "b"]
    broken = table.replace_schema_metadata({"pandas": "{"})
    assert ParquetDataset(broken).columns == ["a", "b"]


@pytest.mark.parametrize("dtype", [complex, object, "M8[s]"])
def test_a_dtype_of_no_numbers(dtype: Any) -> None:
    table = pyarrow.table({"a": [1.5], "y": [2]})
    for options in ({"dtype": dtype}, {"target": "y", "target_dtype": dtype}):
        with pytest.raises(TypeError, match="dtype, of a column, must be integer or floating"):
            ParquetDataset(table, **options)
    for columns in ("a", "y"):
        with pytest.raises(TypeError, match="columns must be a list of names, not the text"):
            ParquetDataset(table, columns=columns)


def test_a_table_without_features() -> None:
    with pytest.raises(ValueError, match="the table has no columns for the features"):
        ParquetDataset(pyarrow.table({"a": [1.5, 2.0]}), target="a")


def test_ordered_categories_are_classes_in_their_order(tmp_path: Path) -> None:
    """Also one that this split lacks: the others number theirs alike."""
    order = pyarrow.array(["low", "middle", "high"])
    codes = pyarrow.array([2, 0, 2], pyarrow.int8())
    kinds = pyarrow.DictionaryArray.from_arrays(codes, order, ordered=True)
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0, 3.0], "kind": kinds}), tmp_path / "a")
    dataset = ParquetDataset(tmp_path / "a", target="kind", target_dtype=str)
    assert dataset.classes == ["low", "middle", "high"]
    assert [int(dataset[i][1]) for i in range(3)] == [2, 0, 2]
    given = ParquetDataset(
        tmp_path / "a", target="kind", target_dtype=str, classes=["high", "low", "middle"]
    )
    assert [int(given[i][1]) for i in range(3)] == [0, 1, 0]


def test_a_date_is_a_date() -> None:
    """A number of the form 20200101 is no number of days, and a far one does not wrap around."""
    dates = pyarrow.table({"a": [datetime.date(2020, 1, 1)] * 2})
    numbers = pyarrow.table({"a": [20200101] * 2})
    with pytest.raises(ValueError, match="column 'a' holds int64, not dates: leave it out of"):
        ParquetDataset(numbers, dates=["a"])
    with pytest.raises(ValueError, match="column 'a' holds int64, not dates: leave it out of"):
        ParquetDataset(dates, dates=["a"]).like(numbers)
    far = pyarrow.table({"a": pyarrow.array([2**62], pyarrow.timestamp("s"))})
    with pytest.raises(ValueError, match="a date further away than microseconds can count"):
        ParquetDataset(far, dates=["a"], dtype=np.float64)
    days = pyarrow.table({"a": pyarrow.array([86_400_000_000_123], pyarrow.timestamp("ns"))})
    assert ParquetDataset(days, dates=["a"], dtype=np.float64)[0][0].tolist() == [1.0]


def test_whole_numbers_that_standardizing_rounds_are_said() -> None:
    """They would all become 0."""
    table = pyarrow.table({"a": [2**60 + n for n in range(3)]})
    with pytest.warns(UserWarning, match="column 'a' has whole numbers that float64 rounds"):
        ParquetDataset(table, columns=["a"], standardize=True)


def test_a_data_frame_is_told_how_to_become_a_table() -> None:
    class DataFrame:
        columns = ("a",)

    with pytest.raises(TypeError, match=r"not DataFrame: pyarrow\.Table\.from_pandas\(frame\)"):
        ParquetDataset(DataFrame())


def test_many_columns_that_are_rounded_are_told_of_once() -> None:
    """Features and targets of a table, and those of the next one that is read like it."""
    table = pyarrow.table({f"c{n}": [2**24 + 1, n] for n in range(35)})
    with pytest.warns(UserWarning, match="columns 'c0', 'c1', 'c2' and 32 others have") as found:
        dataset = ParquetDataset(table, target="c34")
    assert len(found) == 1
    with pytest.warns(UserWarning, match="columns 'c0', 'c1', 'c2' and 32 others have") as found:
        dataset.like(table)
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["float64", "decimal"])
def test_large_numbers_that_are_rounded_are_said(kind: str) -> None:
    """As of a CSV file: seconds since 1970 with a fraction lose up to a minute in float32."""
    times: list[Any] = [1700000033.25, 1700000034.5]
    if kind == "decimal":
        times = [decimal.Decimal(str(each)) for each in times]
    with pytest.warns(
        UserWarning, match=r"'a' has large numbers that float32 rounds, 1700000033.25 to"
    ):
        ParquetDataset(pyarrow.table({"a": times}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParquetDataset(pyarrow.table({"a": times}), dtype=np.float64)
        ParquetDataset(pyarrow.table({"a": [2.0**24 + 2, 100.25, np.inf, np.nan]}))


@pytest.mark.parametrize("options", [{}, {"missing": "mean"}, {"target": "a"}])
def test_decimals_that_float64_rounds_are_said(options: dict[str, Any]) -> None:
    """As of a CSV file with the same numbers."""
    kept = {"dtype": np.float64, "target_dtype": np.float64, **options}
    for cells, told in (
        (["9007199254740993", "0.5"], "large numbers that float64 rounds, 9007199254740993.00 to"),
        (["200000000000000000001"], "whole|large"),
    ):
        column = pyarrow.array([decimal.Decimal(each) for each in cells], pyarrow.decimal128(38, 2))
        with pytest.warns(UserWarning, match=told):
            ParquetDataset(pyarrow.table({"a": column, "b": [1] * len(cells)}), **kept)
    exact = pyarrow.array([decimal.Decimal("9007199254740992.25"), None], pyarrow.decimal128(38, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParquetDataset(pyarrow.table({"a": exact}), dtype=np.float64, missing=0.0)


def test_decimals_may_need_all_64_bits() -> None:
    column = pyarrow.array([decimal.Decimal(2**64 - 1)], pyarrow.decimal128(38, 2))
    dataset = ParquetDataset(pyarrow.table({"a": column}), dtype=np.uint64)
    assert int(dataset[0][0][0]) == 2**64 - 1


def test_a_stream_of_arrow_is_said_how_to_read(tmp_path: Path) -> None:
    table = pyarrow.table({"a": [1.0, 2.0]})
    with pyarrow.ipc.new_stream(tmp_path / "s.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=r"if it is a stream, give pyarrow.ipc.open_stream\("):
        ParquetDataset(tmp_path / "s.arrow")
    stream = pyarrow.ipc.open_stream(tmp_path / "s.arrow").read_all()
    assert len(ParquetDataset(stream)) == 2


PROGRAM = """
import signal, sys

class Late(Exception):
    pass

def handler(number, frame):
    raise Late

class Alarm:  # an alarm as pyarrow imports one of its modules
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGALRM)

from rumus.train import ParquetDataset

signal.signal(signal.SIGALRM, handler)
sys.meta_path.insert(0, Alarm())
try:
    ParquetDataset(sys.argv[2])
except Late:
    print("late")
print(ParquetDataset(sys.argv[2])[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarms")
@pytest.mark.parametrize("name", ["pyarrow.ipc", "pyarrow.types", "pyarrow.dataset"])
def test_a_handler_that_raises_as_pyarrow_is_imported(name: str, tmp_path: Path) -> None:
    """A half imported one stays without its parts as long as the process lives."""
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0]}), path)
    command = [sys.executable, "-c", PROGRAM, name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout.splitlines()[0], done.stderr) == ("late", "")
    assert "2." in done.stdout.splitlines()[1]


@pytest.mark.parametrize(("written", "named"), [("parquet", "arrow"), ("arrow", "parquet")])
def test_a_file_is_what_it_begins_like(written: str, named: str, tmp_path: Path) -> None:
    table = pyarrow.table({"a": [1.0, 2.0]})
    path = tmp_path / f"a.{named}"
    if written == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        pyarrow.feather.write_feather(table, path)
    assert [float(sample[0][0]) for sample in map(ParquetDataset(path).__getitem__, (0, 1))] == [
        1,
        2,
    ]


def test_a_text_is_said_to_be_none_of_arrow(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"a\.csv is not a Parquet or .*; CsvDataset reads text"):
        ParquetDataset(tmp_path / "a.csv")


def test_a_target_of_another_spelling_is_told_of() -> None:
    train = ParquetDataset(pyarrow.table({"a": [1.0], "kind": [2]}), target="kind")
    with pytest.warns(UserWarning, match="has no target 'kind', .*; should 'Kind' be it"):
        assert len(train.like(pyarrow.table({"a": [1.0], "Kind": [2]}))[0]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(train.like(pyarrow.table({"a": [1.0], "id": [2]}))[0]) == 1


def test_a_new_column_may_be_the_target_by_another_name() -> None:
    train = ParquetDataset(pyarrow.table({"a": [1.0], "y": [2]}), target="y")
    with pytest.warns(UserWarning, match="has no target 'y', .*; should 'y_true' be it"):
        train.like(pyarrow.table({"a": [1.0], "y_true": [2]}))


def test_a_feature_that_is_the_target_is_told_of() -> None:
    table = pyarrow.table({"a": [1.0] * 12, "y_true": [*range(12)], "y": [*range(12)]})
    with pytest.warns(UserWarning, match="the feature 'y_true' is equal to the target in all rows"):
        ParquetDataset(table, target="y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParquetDataset(table, target="y", columns=["a", "y_true"])


@pytest.mark.parametrize("ordered", [True, False])
def test_categories_that_a_table_lists_are_there_though_no_row_has_one(ordered: bool) -> None:
    kinds = pyarrow.array(["z", "b", "q"]).dictionary_encode()
    kinds = pyarrow.DictionaryArray.from_arrays(kinds.indices, kinds.dictionary, ordered=ordered)
    whole = pyarrow.table({"a": [1.0, 2.0, 3.0], "kind": kinds})
    part = whole.slice(0, 2)
    wanted = ["z", "b", "q"] if ordered else ["b", "q", "z"]
    for table in (whole, part):
        read = ParquetDataset(table, target="kind", target_dtype=str)
        assert read.classes == wanted
        assert read[0][1] == wanted.index("z")
        features = ParquetDataset(table, target="a", categories=["kind"]).features
        assert features == [f"kind={text}" for text in wanted]


def test_a_dictionary_of_too_many_texts_is_refused_as_the_texts_are() -> None:
    texts = pyarrow.array([str(n) for n in range(20_000)])
    for column in (texts.cast(pyarrow.large_string()), pyarrow.array(range(20_000))):
        with pytest.raises(ValueError, match="has 20,000 different texts in 20,000 rows"):
            ParquetDataset(pyarrow.table({"a": column}), categories=["a"])


def test_texts_of_any_type_are_categories_and_a_column_without_any_is_refused() -> None:
    views = pyarrow.array(["x", "y"], pyarrow.string_view())
    assert ParquetDataset(pyarrow.table({"a": views}), categories=["a"]).features == ["a=x", "a=y"]
    empty = pyarrow.table({"a": pyarrow.array([None, None], pyarrow.string()), "b": [1, 2]})
    with pytest.raises(ValueError, match="column 'a' has no texts at all; leave it out"):
        ParquetDataset(empty, categories=["a"], missing=0.0)
