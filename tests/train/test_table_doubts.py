"""What a table may mean otherwise is told once: divisions, weights, missing numbers, units."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.train import CsvDataset, ParquetDataset


def written(folder: Path, names: str, rows: list[str]) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([names, *rows, ""]), "utf-8")
    return path


def told(path: Path, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        CsvDataset(path, **options)
    assert all(each.filename == __file__ for each in found)
    return [str(each.message) for each in found]


@pytest.mark.parametrize(
    ("name", "cells"),
    [("fold", "01201201201"), ("kfold", "01010101010"), ("cv_fold", "12121212121"),
     ("Split", "00000000111"), ("partition", "00000000111"), ("is_train", "11111110000"),
     ("sample_weight", "35935935935"), ("instanceWeight", "11111111112")],
)  # fmt: skip
def test_what_divides_or_weighs_samples_is_told_of(tmp_path: Path, name: str, cells: str) -> None:
    path = written(tmp_path, f"a,{name}", [f"{n}.5,{cell}" for n, cell in enumerate(cells)])
    (said,) = told(path)
    assert re.search(f"'{name}' is named like what divides or weighs samples, and read as a", said)
    assert told(path, columns=["a", name]) == []
    assert told(path, target=name) == []


def test_weights_of_samples_are_1_in_the_mean_and_those_of_bodies_are_not(tmp_path: Path) -> None:
    balanced = [2.0, 2.0, *[0.8] * 10]
    (said,) = told(written(tmp_path, "a,weight", [f"{n}.5,{w}" for n, w in enumerate(balanced)]))
    assert "'weight' is named like what" in said
    assert told(written(tmp_path, "a,weight", [f"{n}.5,{60 + n}" for n in range(12)])) == []
    assert told(written(tmp_path, "a,weight", [f"{n}.5,1" for n in range(12)])) == []
    assert told(written(tmp_path, "a,fold", [f"{n}.5,{n}.25" for n in range(12)])) == []


@pytest.mark.parametrize(
    "cell", ["-999", "-9999.0", "-99", "999", "99999", "-32768", "-2147483648", "-3.4028235e+38"]
)
def test_numbers_for_missing_ones_are_told_of(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, "a,b", ["1.5,2", f"{cell},3", "2.5,4", "3,5"])
    (said,) = told(path)
    assert re.search(r"column 'a' has -?\d.*, far from all its other numbers, .* missing_ce", said)
    given = CsvDataset(path, missing_cells=[cell], missing="mean")
    assert np.isclose(given[1][0][0], 7 / 3)
    again = CsvDataset(path, missing_cells=[repr(float(cell))], missing="mean")
    assert again[1][0].tolist() == given[1][0].tolist()
    assert np.isclose(given.encode([{"a": cell, "b": 1}])[0, 0], 7 / 3)
    assert given.like(path)[1][0].tolist() == given[1][0].tolist()
    assert told(path, missing_cells=[]) == []
    assert told(path, columns=["a"]) != []


def test_usual_numbers_are_not_told_of(tmp_path: Path) -> None:
    ages = [f"{age},{age % 7}" for age in range(20, 100)]  # up to 99
    assert told(written(tmp_path, "age,b", ages)) == []
    assert told(written(tmp_path, "a,b", ["-99,1", "1,2", "150,3"])) == []
    assert told(written(tmp_path, "a,b", ["-999,1", "-999,2"])) == []
    filled = written(tmp_path, "a,b", ["1.5,2", ",3", "2.5,4", "3,5"])
    assert told(filled, missing=-999) == []


def test_a_target_with_numbers_for_missing_ones_is_told_of(tmp_path: Path) -> None:
    path = written(tmp_path, "a,y", ["1,0.5", "2,-999", "4,0.75", "5,1"])
    (said,) = told(path, target="y")
    assert "column 'y' has -999" in said
    dropped = CsvDataset(path, target="y", missing_cells=["-999"], missing_target="drop")
    assert [float(y) for _, y in dropped] == [0.5, 0.75, 1]  # type: ignore[attr-defined]


def test_missing_cells_are_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "a", ["1", "2"])
    with pytest.raises(TypeError, match=r"missing_cells must be texts as in .*: write '-999'"):
        CsvDataset(path, missing_cells=[-999])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="missing_cells must be a list"):
        CsvDataset(path, missing_cells="-999")


def test_a_line_of_units_among_texts_is_told_of(tmp_path: Path) -> None:
    data = [f"{color},{kind}" for color in ("red", "blue") for kind in ("rose", "iris")] * 4
    options = {"categories": ["color"], "target": "kind", "target_dtype": str}
    (said,) = told(written(tmp_path, "color,kind", ["(name),(class)", *data]), **options)
    assert re.search(r"data.csv:2: '\(name\)', '\(class\)' occur in no other line", said)
    assert told(written(tmp_path, "color,kind", data), **options) == []
    rare = written(tmp_path, "color,kind", ["green,rose", *data])
    assert told(rare, **options) == []
    classes = {"classes": ["(class)", "rose", "iris"], "target": "kind", "categories": ["color"]}
    assert told(written(tmp_path, "color,kind", ["(name),(class)", *data]), **classes) == []


def test_tables_of_arrow_tell_of_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1.5, -999.0, 2.5, 3.0], "fold": [0, 1, 0, 1]})
    with pytest.warns(UserWarning, match="^the table: ") as said:
        ParquetDataset(table)
    assert [str(each.message).split(";")[0] for each in said] == [
        "the table: 'fold' is named like what divides or weighs samples, and read as a feature",
        "the table: column 'a' has -999, far from all its other numbers, and is read like them",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParquetDataset(table, columns=["a", "fold"])


def test_a_last_row_of_totals_is_told_of(tmp_path: Path) -> None:
    rows = [(n % 7 + 0.5, n * n) for n in range(20)]
    total = [sum(column) for column in zip(*rows, strict=True)]
    lines = [f"{a},{b}" for a, b in rows]
    (said,) = told(written(tmp_path, "a,b", [*lines, f"{total[0]},{total[1]}"]))
    assert "data.csv:22: the last row is the sum of all others in each column of numbers" in said
    assert told(written(tmp_path, "a,b", lines)) == []
    assert told(written(tmp_path, "a,b", [*lines, f"{total[0]},5"])) == []
    assert told(written(tmp_path, "a,b", ["0,0"] * 12)) == []
    assert told(written(tmp_path, "a,weight", [*["inf,inf", "-inf,-inf"] * 9, "0,0"])) == []
    assert told(written(tmp_path, "a,b", [*["0,0"] * 12, "0,3", "0,3"])) == []
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [*range(20), sum(range(20))]})
    with pytest.warns(UserWarning, match="the table, row 20: the last row is the sum"):
        ParquetDataset(table)


def test_a_table_of_one_class_is_told_of(tmp_path: Path) -> None:
    path = written(tmp_path, "a,kind", [f"{n % 3}.5,rose" for n in range(20)])
    (said,) = told(path, target="kind", target_dtype=str)
    assert "all 20 rows are of the class 'rose', as of a part of a table that is sorted" in said
    assert told(path, target="kind", classes=["iris", "rose"]) == []


@pytest.mark.parametrize("cell", ["9999-12-31", "0001-01-01", "1900-01-01"])
def test_dates_for_missing_ones_are_told_of(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, "a,day", [f"1.5,{cell}", "2,2020-01-01", "3,2021-05-05"])
    (said,) = told(path, dates=["day"])
    assert f"column 'day' has {cell}, far from all its other numbers" in said
    assert f"missing_cells=['{cell}'] says so" in said
    given = CsvDataset(path, dates=["day"], missing_cells=[cell], missing="mean")
    assert given[0][0][1] == (given[1][0][1] + given[2][0][1]) / 2


def test_a_feature_that_numbers_the_classes_is_told_of(tmp_path: Path) -> None:
    rows = [f"{n}.5,{7 * (n % 3)},{'abc'[n % 3]}" for n in range(20)]
    path = written(tmp_path, "a,code,kind", rows)
    (said,) = told(path, target="kind", target_dtype=str)
    assert "the feature 'code' is another number for each class, so the model sees its" in said
    assert told(path, target="kind", target_dtype=str, columns=["a", "code"]) == []
    (said,) = told(path, target="code", categories=["kind"])
    assert "the feature 'kind' is another text for each target, so the model sees its" in said
    near = written(tmp_path, "a,code,kind", [*rows, "20.5,0,c"])
    assert told(near, target="kind", target_dtype=str) == []
    two = [f"{n}.5,{n % 2},{'abc'[n % 3]}" for n in range(20)]  # for two of three classes
    assert told(written(tmp_path, "a,code,kind", two), target="kind", target_dtype=str) == []
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"code": [0, 1] * 10, "kind": ["u", "v"] * 10})
    with pytest.warns(UserWarning, match="the table: the feature 'code' is another number for"):
        ParquetDataset(table, target="kind", target_dtype=str)


def test_a_target_in_another_unit_is_told_of(tmp_path: Path) -> None:
    y = [round(0.37 * n % 7, 3) for n in range(40)]
    for factor, offset in ((-1, 0), (1.8, 32), (1e-3, 0)):
        rows = [f"{n % 11},{factor * each + offset:.9f},{each}" for n, each in enumerate(y)]
        (said,) = told(written(tmp_path, "a,other,y", rows), target="y")
        assert "the feature 'other' is a factor times the target and an offset in all rows" in said
    rows[3] = f"3,0.5,{y[3]}"
    assert told(written(tmp_path, "a,other,y", rows), target="y") == []
    rows[3] = f"3,,{y[3]}"
    (said,) = told(written(tmp_path, "a,other,y", rows), target="y", missing="mean")
    assert "and an offset in all rows that have it, so the model sees" in said
    nearly = [f"{n % 11},{each + n % 2 / 100},{each}" for n, each in enumerate(y)]
    assert told(written(tmp_path, "a,other,y", nearly), target="y") == []


def test_texts_and_numbers_that_stand_for_the_targets_are_told_of(tmp_path: Path) -> None:
    rows = [f"{n}.5,{'xyz'[n % 3]},{'abc'[n % 3]},{(5, 1, 9)[n % 3]}" for n in range(20)]
    path = written(tmp_path, "a,letter,kind,number", rows)
    named: dict[str, Any] = {"target": "kind", "target_dtype": str, "categories": ["letter"]}
    (said,) = told(path, **named)
    assert "the feature 'letter' is another text for each class" in said
    permuted = [f"{n}.5,{(4, 2, 3)[n % 3]},{(5, 1, 9)[n % 3]}" for n in range(20)]
    (said,) = told(written(tmp_path, "a,code,y", permuted), target="y", target_dtype=np.int64)
    assert "the feature 'code' is another number for each target" in said


@pytest.mark.parametrize("missing", [None, "mean"])
def test_a_column_in_another_unit_is_told_of(tmp_path: Path, missing: Any) -> None:
    def table(name: str, factor: float, rows: int = 40) -> Path:
        path = tmp_path / name
        lines = [f"{n % 7},{factor * (3 + n % 5)},{n % 2}" for n in range(rows)]
        path.write_text("\n".join(["a,b,y", *lines, ""]), "utf-8")
        return path

    train = CsvDataset(table("train.csv", 1.0), target="y", missing=missing)
    with pytest.warns(UserWarning, match="column 'b' has numbers of about 5e.03, and of 5 in trai"):
        train.like(table("grams.csv", 1000.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.like(table("alike.csv", 3.0))
        train.like(table("few.csv", 1000.0, rows=20))
    of_b = CsvDataset(table("train.csv", 1.0), target="b", missing=missing)
    with pytest.warns(UserWarning, match="column 'b' has numbers of about 5e.03, and of 5 in trai"):
        of_b.like(table("grams.csv", 1000.0))
    pyarrow = pytest.importorskip("pyarrow")
    numbers = np.arange(1.0, 50.0)
    of_arrow = ParquetDataset(pyarrow.table({"a": numbers}), missing=missing)
    with pytest.warns(UserWarning, match="the table: column 'a' has numbers of about 0.025, and"):
        of_arrow.like(pyarrow.table({"a": numbers / 1000}))


def test_a_last_row_of_means_is_told_of(tmp_path: Path) -> None:
    rows = [f"{n},{n * n},{2 * n % 5}" for n in range(1, 21)]
    (said,) = told(written(tmp_path, "a,b,c", [*rows, "10.5,143.5,2"]))
    assert "data.csv:22: the last row is the mean of all others in each column of numbers" in said
    assert told(written(tmp_path, "a,b,c", [*rows, "10.5,143.5,3"])) == []
    assert told(written(tmp_path, "a,b,c", ["1,2,3"] * 20)) == []


def test_numeric_targets_that_are_all_equal_are_told_of(tmp_path: Path) -> None:
    path = written(tmp_path, "a,y", [f"{n % 7},3" for n in range(20)])
    (said,) = told(path, target="y")
    assert "data.csv: all 20 rows have the target 3.0, as of a part of a table that is so" in said
    assert told(written(tmp_path, "a,y", ["1,3"] * 3), target="y") == []
    (said,) = told(written(tmp_path, "a,y", ["1,1"] * 20), target="y")  # and not of the feature
    assert "all 20 rows have the target 1.0" in said


@pytest.mark.parametrize(("first", "second"), [("", "+02:00"), ("Z", "")])
def test_times_of_two_tables_have_zones_alike(tmp_path: Path, first: str, second: str) -> None:
    days = [f"2020-01-{n:02}T08:30{first},{n % 2}" for n in range(1, 12)]
    options: dict[str, Any] = {"dates": ["t"], "target": "y", "dtype": np.float64}
    train = CsvDataset(written(tmp_path, "t,y", days), **options)
    other = tmp_path / "other.csv"
    other.write_text(f"t,y\n2020-02-01T08:30{second},1\n", "utf-8")
    with pytest.raises(ValueError, match=r"other.csv: column 't' has times with\w* a zone, unlike"):
        train.like(other)
    other.write_text("t,y\n2020-02-01,1\n", "utf-8")
    assert train.like(other)[0][0] == 18293
    pyarrow = pytest.importorskip("pyarrow")
    times = np.array(["2020-01-01T08:30"], "M8[s]")
    zones = [
        pyarrow.timestamp("s", tz="Europe/Berlin" if each else None) for each in (first, second)
    ]
    one, two = (pyarrow.table({"t": pyarrow.array(times, zone)}) for zone in zones)
    read = ParquetDataset(one, dates=["t"], dtype=np.float64)
    with pytest.raises(ValueError, match="the table: column 't' has times with"):
        read.like(two)


def test_one_of_very_many_targets_in_another_unit_is_told_of_in_linear_time(tmp_path: Path) -> None:
    count = 4000
    numbers = np.random.default_rng(0).normal(size=(12, 2 * count)).round(4)
    numbers[:, 5] = (32 + 1.8 * numbers[:, count + 1234]).round(9)
    names = [f"c{n}" for n in range(2 * count)]
    path = written(tmp_path, ",".join(names), [",".join(map(str, row)) for row in numbers])
    begun = time.process_time()
    (said,) = told(path, target=names[count:])
    assert time.process_time() - begun < 3  # it was 10 with all columns beside each target
    assert "the feature 'c5' is a factor times the target and an offset in all rows" in said
