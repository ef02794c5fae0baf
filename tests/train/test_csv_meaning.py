"""How a CSV file is read: row names, classes, number formats; and what is refused."""

from __future__ import annotations

import csv
import gzip
import os
import pickle
import re
import socket
import warnings
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor
from rumus.train import CsvDataset, DataLoader, NpyDataset, Trainer, random_split

WITH_ROW_NAMES = '"{}","length","kind"\n"1",5.1,"setosa"\n"51",7,"virginica"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, "utf-8")
    return path


ROW_NAMES = ["Unnamed: 0", "Unnamed: 0.1.1", "Unnamed: 3", "rownames", "row.names", "...1",
             "rowname", "row_names", "Row.names"]  # fmt: skip


@pytest.mark.parametrize("name", ["", *ROW_NAMES])
def test_row_names_are_not_a_feature_and_this_is_reported(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, WITH_ROW_NAMES.format(name))
    with pytest.warns(UserWarning, match=rf"column '{re.escape(name)}' is left out") as said:
        dataset = CsvDataset(path, target="kind", target_dtype=str)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert dataset.columns == ["length"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = CsvDataset(path, columns=[name, "length"])
    assert chosen[1][0].tolist() == [51, 7]


def test_rewritten_files_have_several_columns_of_row_names(tmp_path: Path) -> None:
    path = written(tmp_path, ",Unnamed: 0.1,Unnamed: 0,a\n0,0,5,1.5\n1,1,6,2\n")
    with pytest.warns(UserWarning, match=r"columns '', 'Unnamed: 0.1', 'Unnamed: 0' are left o"):
        assert CsvDataset(path).columns == ["a"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = CsvDataset(written(tmp_path, "a,Unnamed: 0\n1.5,7\n"), target="Unnamed: 0")
    assert kept.columns == ["a"]


@pytest.mark.parametrize("name", [*ROW_NAMES, "__index_level_0__"])
def test_row_names_are_recognized_in_any_place(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, f"length,{name},kind\n5.1,7,1\n7,9,0\n")
    with pytest.warns(UserWarning, match=rf"column '{re.escape(name)}' is left out as that of row"):
        assert CsvDataset(path, target="kind").columns == ["length"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CsvDataset(path, target=name).columns == ["length", "kind"]
        named = CsvDataset(path, target="kind", categories=[name])
        assert named.features == ["length", f"{name}=7", f"{name}=9"]


@pytest.mark.parametrize(
    ("name", "cells"),
    [("X.1", "1,2,3"), ("V1", "1,2,3"), ("rn", "1,2,3"), ("Obs", "1,2,3"), ("Row name", "0,1,2"),
     ("Column1", "1,2,3"), ("...5", "1,2,3"), ("id", "907,12,33"),
     ("PassengerId", "1,2,3"), ("user_id", "1,3,2"), ("UID", "5,6,7"),
     ("index", "0,1,2"), ("index", "5,3,9"), ("level_0", "2,0,1"),
     ("X", "1,2,3"), ("row_number", "4,5,6"), ("No.", "1,2,3")],
)  # fmt: skip
def test_numbers_that_only_identify_rows_are_reported(
    tmp_path: Path, name: str, cells: str
) -> None:
    """They stay features, since nothing tells otherwise; `columns=` confirms it."""
    text = "\n".join(f"{cell},{number}.5" for number, cell in enumerate(cells.split(",")))
    path = written(tmp_path, f"{name},a\n{text}\n")
    with pytest.warns(UserWarning, match=rf"'{name}' has a different number in each") as said:
        dataset = CsvDataset(path, standardize=True)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert dataset.columns == [name, "a"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(path, columns=[name, "a"])
        dataset.like(path)


@pytest.mark.parametrize(
    ("name", "cells"),
    [("paid", "1,2,3"), ("id", "1,1,2"), ("index", "100,104,99"), ("X", "0.5,2,9"),
     ("user_id", "1.5,2,3"), ("time", "0,1,2"), ("humid", "1,2,3"), ("V1", "2,4,9"),
     ("...5", "3,1,2")],
)  # fmt: skip
def test_informative_numbers_are_not_reported(tmp_path: Path, name: str, cells: str) -> None:
    text = "\n".join(f"{cell},1" for cell in cells.split(","))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(written(tmp_path, f"{name},a\n{text}\n"))


def test_a_first_line_of_numbers_read_as_names_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path, "5.1,3.5,0\n4.9,3.0,1\n")
    with pytest.warns(UserWarning, match=r"first line .* only numbers; give header=\[") as said:
        assert len(CsvDataset(path)) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(CsvDataset(path, header=["a", "b", "c"])) == 2
        CsvDataset(path, columns=["5.1", "3.5"])
        CsvDataset(written(tmp_path, "0,1,2\n5.1,3.5,0\n"))  # as pandas names columns
        CsvDataset(written(tmp_path, "1990,1991,mean\n5.1,3.5,0\n"))


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a,,b\n1,2,3\n", {}, r"column 2 has no name; give columns"),
        (",,b\n1,2,3\n", {}, r"column 2 has no name"),
        ("a,b\n1,2,3\n", {}, r"3 cells instead of 2; .*header=\[''"),
        ("a;b\n1;2\n", {"target": "b"}, r"no column 'b'; it has a;b only; give delimiter=';'"),
        (
            "a,k\n1,cat\n",
            {},
            r"'cat' in column 'k' is not float32; categories=\['k'\] .*target='k', target_dty",
        ),
        ("a,k\n1,NA\n", {}, r"'NA' in column 'k' is not float32; missing="),
        ("a,k\n1,TRUE\n", {}, r"'TRUE' .* booleans=\['k'\] reads"),
        ('a,k\n1,"1,5"\n', {}, r"'1,5' .* decimal=',' reads the comma"),
        ('a,k\n1,"1,500,000.5"\n', {}, r"thousands=',' reads commas"),
        ("a,k\n1,2024-01-31\n", {}, r"dates=\['k'\] reads the column as dates"),
        ("a;b\n1;2\n", {}, r"'1;2' in column 'a;b' is not float32; delimiter=';' reads it as se"),
        ("a\tb\n1\t2\n", {}, r"delimiter='\\t' reads it as several columns"),
        ("a,b\n1,2\n", {"delimiter": ";"}, r"delimiter=',' reads it as several columns"),
        ("a b\n1 2\n", {}, r"delimiter=' ' reads it as several columns"),
        ("home city\nNew York\n", {}, r"'New York' .* categories=\['home city'\] reads"),
        ("a;b\n1,5;2\n", {}, r":2: 2 cells instead of 1; give delimiter=';'\?"),
        ("a;b\n1,5;2,5\n", {}, r":2: 3 cells instead of 1; give delimiter=';'\?"),
        ("price, USD\tb\n1\t2\n", {}, r":2: 1 cells instead of 2; give delimiter='\\t'\?"),
        ("1;2\n", {"header": ["a", "b"]}, r":1: 1 cells instead of 2; give delimiter=';'\?"),
        ("sep=;\na;b\n1;2\n", {"delimiter": ";"}, r"remove it, and give delimiter=';'"),
        ("a,k\n1,1e39\n", {}, r"'1e39' .* not float32; a float64 dtype= or target_dtype= holds it"),
        ("a,k\n1,1e39\n", {"target": "k"}, r"not float32; a float64 dtype= or target_dtype= holds"),
        ("a,k\n1,1e400\n", {}, r"'1e400' .* not float32; no dtype holds it: correct it, or leave"),
        ("a,k\n1,300\n", {"dtype": np.int8}, r"'300' .* not int8; an int64 dtype= .* holds it"),
        ("a,k\n1,5.0\n", {"dtype": np.int64}, r"'5.0' .* not int64; a floating dtype= .* holds"),
        ("a,k\n1,-1\n", {"dtype": np.uint8}, r"'-1' .* not uint8; an int64 dtype= .* holds it"),
        ("a,k\n1,NA\n", {"dtype": np.int64}, r"'NA' .* not int64; missing=0 replaces it"),
        ("a,k\n1,NA\n", {"target": "k"}, r"'NA' .* not float32; missing_target='drop' skips such"),
        ("a,k\n1,\n", {"missing": 1e39}, r"'' .* nor is missing=1e\+39: a float64 dtype= .* holds"),
        ("a,k\n1,\n", {"missing": 0.5, "dtype": int}, r"nor is missing=0.5: a floating dtype="),
        ("a,k\n1,\n", {"missing": 10**400}, r"missing is beyond float64"),
        ("a,k\n1,cat\n", {"target": "k"}, r"'cat' .* not float32; target_dtype=str reads the col"),
        ("a,k\n1,no\n", {"target": "k"}, r"'no' .* not float32; target_dtype=str reads the column"),
        ("a,k\n1,50%\n", {}, r"'50%' .* remove what is no number from the cells"),
        ("a,k\n1,$5\n", {}, r"'\$5' .* remove what is no number from the cells"),
        ("a,k\n1,5\x0c\n", {}, r"remove the control characters or special spaces beside the"),
        ("a,k\n1,<5\n", {}, r"'<5' .* categories=\['k'\] reads"),
        ("a,k\n1,1_000\n", {}, r"'1_000' .* thousands='_' reads that mark"),
        ("a,k\n1,-Infinity\n", {}, r"reads nan, inf and -inf: write it so"),
        ("a,k\n1,2\n", {"booleans": ["k"]}, r"'2' .* is not a boolean; of numbers only 1 and 0"),
        (
            "a,k\n1,310120\n",
            {"dates": ["k"]},
            r"not a date; dates={'k': '19%y%m%d'}, or its format",
        ),
        ("a,k\n1,1.5\n", {"decimal": ","}, r"not float32; its marks are not those of decimal="),
        ('a,k\n1,"1,5e39"\n', {"decimal": ","}, r"'1.5e39' .* a float64 dtype= .* holds it"),
        ("a,k\n1,cat\n", {"target": "k", "classes": ["Cat", "dog"]}, r"'cat' is not in classes"),
        ("a,k\n1,cat\n", {"target": "k", "classes": ["dog", "dog"]}, r"classes has 'dog' twice"),
        ("a,k\n1,cat\n", {"target": "k", "classes": []}, r"classes is empty"),
        ("a,k\n1,cat\n", {"classes": ["cat"]}, r"a single target: give target="),
        ("a,b,c\n1,2,3\n", {"target": ["b", "d"]}, r"no column 'd'"),
        ("# by X\na,b\n1,2\n", {}, r":2: 2 cells instead of 1; if '# by X' is a comment, remove"),
        ("# by X\na b\n1 2\n", {"delimiter": " "}, r":2: 2 cells instead of 3; if '#' is a comm"),
        ("# by X\n# of Y\na,b\n1,2\n", {}, r":3: 2 cells instead of 1; if '# by X' is a comment"),
        ("# by X\na,b\n1,2\n", {"target": "b"}, r"no column 'b'; if '# by X' is a comment"),
        ("# by X, 1\na,b\n1,2\n", {}, r":2: 'a' in .* not float32; if '# by X' is a comment"),
        ("a,b\n1,2\n# end\n", {}, r":3: 1 cells instead of 2; if '# end' is a comment, remove"),
        ("# by X\n1,2\n", {"header": ["a", "b"]}, r":1: 1 cells .* if '# by X' is a comment"),
        ("#a;b\n1,5;2\n", {}, r":2: 2 cells instead of 1; give delimiter=';'\?"),
    ],
)
def test_ambiguous_input_is_refused_with_what_to_pass(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        CsvDataset(written(tmp_path, text), **options)


@pytest.mark.parametrize(
    "cell",
    ["1_000", "infinity", "Infinity", "INF", "NAN", "-nan", "٣", "\uff11", "0x10", "1e400", "-1e39",
     "1e", ".", "1 2", "--1", "9" * 5000, "\x1b[2J", "\N{NO-BREAK SPACE}1"],
)  # fmt: skip
def test_only_usual_number_formats_are_numbers(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ValueError, match=r"csv:3: .* in column 'b' is not float32") as caught:
        CsvDataset(written(tmp_path, f"a,b\n1,2\n3,{cell}\n"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match="is not int64"):
        CsvDataset(written(tmp_path, f"a,b\n1,2\n3,{cell}\n"), dtype=np.int64)


@pytest.mark.parametrize("cell", ["nan", "NaN", "inf", "-inf", "+inf", "Inf", " 1.5e-3 ", "+2"])
def test_numbers_as_numpy_pandas_and_r_write_them(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"a\n{cell}\n")
    np.testing.assert_array_equal(CsvDataset(path)[0][0], np.array([cell], np.float32))


@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=50))
def test_written_floats_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = written(
        tmp_path_factory.getbasetemp(), "a\n" + "".join(f"{value!r}\n" for value in values)
    )
    dataset = CsvDataset(path, missing_cells=[])  # the largest number may stand for a missing one
    found = dataset.batch(np.arange(len(values)))[0][:, 0]
    np.testing.assert_array_equal(found, np.array(values, np.float32))


def test_splits_number_their_classes_alike(tmp_path: Path) -> None:
    train = CsvDataset(
        written(tmp_path, "a,k\n1,dog\n2,bird\n3,cat\n"), target="k", target_dtype=str
    )
    test = CsvDataset(written(tmp_path, "a,k\n1,dog\n"), target="k", classes=train.classes)
    assert (train.classes, test.classes) == (["bird", "cat", "dog"],) * 2
    assert int(test[0][1]) == 2


def test_missing_cells_become_the_given_number(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,y\n1,,3\nNA,5,6\n")
    values = CsvDataset(path, target="y", missing=float("nan")).batch(np.arange(2))[0]
    np.testing.assert_array_equal(values, [[1, np.nan], [np.nan, 5]])
    with pytest.raises(ValueError, match="in column 'a' is not float32"):
        CsvDataset(path, columns=["b"], target="a", missing=0.0)


def test_whole_numbers_with_missing_ones(tmp_path: Path) -> None:
    found = CsvDataset(written(tmp_path, "a,b\n1,\n"), dtype=np.int64, missing=0.0)
    assert found[0][0].tolist() == [1, 0]


def test_several_targets_are_one_array(tmp_path: Path) -> None:
    dataset = CsvDataset(written(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), target=["c", "a"])
    assert [x.tolist() for x in dataset.batch(np.arange(2))] == [[[2], [5]], [[3, 1], [6, 4]]]


def test_a_name_cannot_command_the_terminal(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07"
    for options in ({}, {"target": "b"}, {"target": name + "x"}, {"columns": ["zz"]}):
        with pytest.raises(ValueError, match="column") as caught:
            CsvDataset(written(tmp_path, f"{name},c\nx,y\n"), **options)
        assert str(caught.value).isprintable()


def test_as_many_columns_as_a_genome_has(tmp_path: Path) -> None:
    """Quadratic time would take minutes."""
    names = [f"gene_{i}" for i in range(60_000)]
    path = written(tmp_path, ",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n")
    assert len(CsvDataset(path, target="gene_59999")[0][0]) == 59_999
    with pytest.raises(ValueError, match="did you mean 'gene_"):
        CsvDataset(path, target="gen_59999")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    with listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(OSError, match="not a regular file"):
                CsvDataset(path)


def test_a_validation_with_other_classes_is_refused_before_the_first_step(tmp_path: Path) -> None:
    train = CsvDataset(
        written(tmp_path, "a,k\n1,dog\n2,bird\n3,cat\n"), target="k", target_dtype=str
    )
    path = written(tmp_path, "a,k\n1,dog\n2,cat\n")
    alike = CsvDataset(path, target="k", classes=train.classes)
    other = random_split(CsvDataset(path, target="k", target_dtype=str), [1.0])[0]
    weight = Parameter([1.0], name="w")
    trainer = Trainer(SGD([weight], 0.1))

    def loss(x: Tensor, _: Tensor) -> Tensor:
        return (x * weight).sum()

    with pytest.raises(ValueError, match=r"number 0 on: .*bird.* and .*cat.*classes=train"):
        trainer.fit(DataLoader(train, 1), loss, epochs=1, validate=(DataLoader(other, 2), loss))
    assert weight.tolist() == [1]
    trainer.fit(DataLoader(train, 1), loss, epochs=1, validate=(DataLoader(alike, 2), loss))
    assert weight.tolist() != [1]


@pytest.mark.parametrize(
    ("second", "options", "told"),
    [
        ("c,a,k\n5,1,0\n", {}, r"differ from 0 on: .*'a'.*'c'.*train\.like"),
        ("a,c,k\n1,7,0\n", {"categories": ["c"]}, r"differ from 1 on: .*'c=5'.*'c=7'"),
        ("a,c,k\n9,7,0\n", {"standardize": True}, "have means of their own"),
        ("a,c,k\n,6,0\n9,6,0\n", {"missing": "mean"}, "have means of their own"),
    ],
)
def test_a_validation_with_other_features_is_refused_before_the_first_step(
    tmp_path: Path, second: str, options: dict[str, Any], told: str
) -> None:
    train = CsvDataset(written(tmp_path, "a,c,k\n1,5,0\n2,6,1\n"), target="k", **options)
    path = written(tmp_path, second)
    weight = Parameter([1.0], name="w")
    trainer = Trainer(SGD([weight], 0.1))

    def fit(validation: CsvDataset) -> None:
        loaders = DataLoader(train, 1), DataLoader(random_split(validation, [1.0])[0], 2)
        loss = lambda x, _: (x * x * weight).sum()
        trainer.fit(loaders[0], loss, epochs=1, validate=(loaders[1], loss))

    with pytest.raises(ValueError, match=told):
        fit(CsvDataset(path, target="k", **options))
    assert weight.tolist() == [1]
    if "categories" not in options:
        fit(train.like(path))
        assert weight.tolist() != [1]


HABITS = """name;when;price;paid;size
a;2024-01-31;"1.234,5";TRUE;S
b;2024-02-01 12:00;-0,25;no;M
a;;NA;f;
"""


def habits(folder: Path, **options: Any) -> CsvDataset:
    return CsvDataset(
        written(folder, HABITS), delimiter=";", decimal=",", thousands=".", categories=["name",
        "size"], booleans=["paid"], dates=["when"], **options,
    )  # fmt: skip


def test_named_columns_are_used(tmp_path: Path) -> None:
    dataset = habits(tmp_path, missing=-1.0)
    assert dataset.features == [
        "name=a", "name=b", "when", "price", "paid", "size=M", "size=S"
    ]  # fmt: skip
    found = dataset.batch(np.arange(3))[0]
    expected = [
        [1, 0, 19753, 1234.5, 1, 0, 1], [0, 1, 19754.5, -0.25, 0, 1, 0], [1, 0, -1, -1, 0, 0, 0]
    ]  # fmt: skip
    assert found.tolist() == expected
    rows: list[dict[str, Any]] = [
        {"name": "b", "when": "2024-01-31", "price": 1.5, "paid": True, "size": None},
        {"name": "a", "when": None, "price": None, "paid": False, "size": "S"},
    ]
    assert dataset.encode(rows).tolist() == [
        [0, 1, 19753, 1.5, 1, 0, 0], [1, 0, -1, -1, 0, 0, 1]
    ]  # fmt: skip


def test_means_and_deviations_are_those_of_the_first_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(5, 3, (20, 2))
    x[3, 0] = x[7, 1] = np.nan
    text = "\n".join(",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in x)
    path = written(tmp_path, f"a,b\n{text}\n")
    mean, deviation = np.nanmean(x, 0), np.nanstd(x, 0)
    filled = CsvDataset(path, missing="mean")
    np.testing.assert_allclose(
        filled.batch(np.arange(20))[0], np.where(np.isnan(x), mean, x), rtol=1e-6
    )
    standard = CsvDataset(path, missing="mean", standardize=True)
    np.testing.assert_allclose(
        standard.batch(np.arange(20))[0],
        (np.where(np.isnan(x), mean, x) - mean) / deviation,
        rtol=1e-4,
        atol=1e-6,
    )
    other = tmp_path / "other.csv"
    other.write_text("c,b,a\n9,NA,1\n")
    expected = [[(1 - mean[0]) / deviation[0], 0.0]]
    np.testing.assert_allclose(standard.like(other)[0][0][None], expected, rtol=1e-5)
    np.testing.assert_allclose(standard.encode([{"a": 1, "b": None}]), expected, rtol=1e-5)


def test_another_file_with_and_without_a_target(tmp_path: Path) -> None:
    train = written(tmp_path, "kind,x,color\nrose,1,red\niris,2,blue\n")
    dataset = CsvDataset(train, target="kind", target_dtype=str, categories=["color"])
    test = tmp_path / "test.csv"
    test.write_text("color,kind,x\nblue,rose,3\n")
    features, target = dataset.like(test)[0]
    assert (features.tolist(), int(target)) == ([3, 1, 0], 1)
    test.write_text("x,color\n3,red\n")
    assert [field.tolist() for field in dataset.like(test)[0]] == [[3, 0, 1]]
    test.write_text("x,color\n3,green\n")
    with pytest.raises(ValueError, match=r"test.csv:2: column 'color': 'green' is not one of"):
        dataset.like(test)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("k\nmaybe\n", {"booleans": ["k"]}, r":2: 'maybe' in column 'k' is not a boolean"),
        ("k\n31.01.2024\n", {"dates": ["k"]}, r"is not a date; dates={'k': '%d.%m.%Y'}"),
        ("k\n2024-13-01\n", {"dates": ["k"]}, r":2: '2024-13-01' in column 'k' is not a date"),
        ("k\n1.5\n", {"decimal": ","}, r"'1.5' in column 'k' is not float32"),
        ('k\n"1,23,4"\n', {"thousands": ","}, r"'1,23,4' in column 'k' is not float32"),
        ("k\n1\n", {"decimal": ",", "thousands": ","}, "cannot both be ','"),
        ("k\n1\n", {"decimal": "1"}, "must be single characters"),
        ("k\n1\n", {"categories": ["j"]}, r"categories: \['j'\] are not among the features"),
        (
            "k,paid\n1,yes\n",
            {"target": "paid", "booleans": ["paid"]},
            r"booleans: \['paid'\] are not among the features .*target_dtype=str reads texts",
        ),
        ("k\n1\n", {"categories": ["k"], "dates": ["k"]}, "can have only one of the kinds"),
        (
            "k,j\n,1\n",
            {"categories": ["k"]},
            r":2: '' in column 'k' is not a category; set missing=",
        ),
        (
            "k\nred\n",
            {"categories": {"k": ["Red"]}},
            r"'red' is not one of its categories; did you mean 'Red'",
        ),
        ("k\nNA\n", {"missing": "mean"}, "column 'k' has no numbers at all"),
        ("k\n1\n", {"missing": "median"}, 'missing must be a number or "mean"'),
    ],
)
def test_named_columns_of_another_kind(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        CsvDataset(written(tmp_path, text), **options)


def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    dataset = CsvDataset(written(tmp_path, "x,color\n3,red\n"), categories=["color"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"x": 1}, "row 0 has no 'color'"),
        ({"x": None, "color": "red"}, "row 0: '' in column 'x' is not float32; missing="),
        (
            {"x": 1, "color": "blue"},
            r"row 0: column 'color': 'blue' is not one of its categories; they are \['red'\]",
        ),
    ]
    for row, said in cases:
        with pytest.raises(ValueError, match=said):
            dataset.encode([row])
    single: Any = {"x": 1, "color": "red"}
    with pytest.raises(
        TypeError, match=r"a list of rows; for a single one, write encode\(\[row\]\)"
    ):
        dataset.encode(single)
    with pytest.raises(TypeError, match="means need a floating dtype"):
        CsvDataset(written(tmp_path, "x\n1\n"), dtype=np.int32, missing="mean")
    with pytest.raises(TypeError, match="categories must be a list of names"):
        CsvDataset(written(tmp_path, "x\n1\n"), categories="x")


def test_lines_without_a_target(tmp_path: Path) -> None:
    path = written(tmp_path, "x,y,kind\n1,2,rose\n2,NA,NA\n3,4,iris\n")
    with pytest.raises(
        ValueError,
        match=r":3: 'NA' in column 'kind' is not a class; drop such rows with missing_target=",
    ):
        CsvDataset(path, columns=["x"], target="kind", target_dtype=str)
    given: list[dict[str, Any]] = [
        {"target": "kind", "target_dtype": str}, {"target": ["y"]}, {"target": "y"}
    ]  # fmt: skip
    for options in given:
        dataset = CsvDataset(path, columns=["x"], missing_target="drop", **options)
        assert dataset.batch(np.arange(2))[0].tolist() == [[1], [3]]
        assert dataset.describe(1).endswith(":4")
    classes = ["NA", "iris", "rose"]
    named = CsvDataset(path, columns=["x"], target="kind", classes=classes)
    assert named.batch(np.arange(3))[1].tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="missing_target must be"):
        CsvDataset(path, missing_target="skip")  # type: ignore[arg-type]


def test_rounded_whole_numbers_are_reported(tmp_path: Path) -> None:
    """Times in seconds, as a feature and as a target; not exact values, nor fractions."""
    path = tmp_path / "times.csv"
    path.write_text("at,even,part,y\n1700000001,16777218,16777217.5,16777217\n1,2,3,4\n")
    with pytest.warns(UserWarning, match="whole numbers that float32 rounds") as found:
        CsvDataset(path, target="y")
    (said,) = found
    assert "columns 'at', 'y' have whole numbers" in str(said.message)
    assert "1700000001 to 1700000000 in 'at'; keep them" in str(said.message)
    assert said.filename == __file__
    kept = CsvDataset(path, target="y", dtype=np.float64, target_dtype=np.float64)
    assert kept[0][0].tolist() == [1700000001.0, 16777218.0, 16777217.5]


@pytest.mark.parametrize(
    ("cell", "options", "has"),
    [
        ("16777217", {}, "have whole numbers that float32 rounds, 16777217 to 16777216 in 'c0'; k"),
        ("16777217", {"missing": "mean"}, "have whole numbers that float32 rounds, 16777217 to"),
        ("1e-50", {}, "have numbers too small for float32, which become 0, such as 1e-50 in 'c0';"),
        (
            "2024-05-05T12:01",
            {"dates": [f"c{n}" for n in range(35)]},
            "have times of day that float32 rounds, by up to 60 seconds in 'c0'; keep",
        ),
    ],
)
def test_many_columns_of_one_doubt_are_told_of_once(
    cell: str, options: dict[str, Any], has: str, tmp_path: Path
) -> None:
    """Tables of probabilities have hundreds of them."""
    path = tmp_path / "wide.csv"
    lines = [",".join(f"c{n}" for n in range(35)), *[",".join([cell] * 35)] * 2]
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="and 32 others have") as found:
        dataset = CsvDataset(path, **options)
    (said,) = found
    assert f"columns 'c0', 'c1', 'c2' and 32 others {has}" in str(said.message)
    assert said.filename == __file__
    with pytest.warns(UserWarning, match="and 32 others have") as found:  # of another file, too
        dataset.like(path)
    assert len(found) == 1


def test_categories_and_formats_of_dates_of_many_columns_are_told_of_once(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(8)]
    path = tmp_path / "wide.csv"
    lines = [",".join(names), *(",".join([text] * 8) for text in ("red", "Red", "blue"))]
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="'c0': 'Red' and 'red' are two categor") as found:
        CsvDataset(path, categories=names)
    (said,) = found
    assert str(said.message).endswith("'c1', 'c2', 'c3' and 4 others have such texts, too")
    lines = [",".join(names), ",".join(["05.06."] * 8)]
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="'c0', 'c1', 'c2' and 5 others has no year") as found:
        CsvDataset(path, dates=dict.fromkeys(names, "%d.%m."))
    assert len(found) == 1


def test_fractions_of_large_numbers_that_become_equal_are_reported(tmp_path: Path) -> None:
    """Times with tenths of seconds; a number with an exponent says how exact it is."""
    path = tmp_path / "times.csv"
    path.write_text("at,far,y\n1700000001.5,1.7000000015e9,0\n-1700000002.5,1.23456789012e20,1\n")
    with pytest.warns(UserWarning, match="'at' has large numbers that float32 rounds") as found:
        CsvDataset(path, target="y")
    assert len(found) == 1


def test_texts_as_numerous_as_rows_are_not_features(tmp_path: Path) -> None:
    """20,000 names would take 1.6 GB; as class names they are fine."""
    path = tmp_path / "names.csv"
    path.write_text("name,y\n" + "".join(f"k{number},1\n" for number in range(20_000)))
    with pytest.raises(ValueError, match=r"'name' has 20,000 different texts in .* 1\.6 GB"):
        CsvDataset(path, target="y", categories=["name"])
    with pytest.warns(UserWarning, match="class 2 is the text k10; classes="):
        assert len(CsvDataset(path, target="name", target_dtype=str).classes) == 20_000


@pytest.mark.parametrize("second", ["2020-01-03T00:00", "2020-01-03T05:00:00"])
def test_times_with_and_without_a_zone_are_not_mixed(second: str, tmp_path: Path) -> None:
    """They would be hours apart."""
    path = tmp_path / "a.csv"
    path.write_text(f"day,y\n2020-01-02T00:00:00+02:00,1\n{second},2\n")
    with pytest.raises(ValueError, match=r"a\.csv:3: column 'day' has times with and without a"):
        CsvDataset(path, target="y", dates=["day"], dtype=np.float64)
    path.write_text("day,y\n2020-01-02T00:00:00+02:00,1\n2020-01-03,2\n2020-01-04T00:00Z,3\n")
    dataset = CsvDataset(path, target="y", dates=["day"], dtype=np.float64)
    hours = [round(float(dataset[i][0][0]) * 24 - 18262 * 24) for i in range(3)]
    assert hours == [22, 48, 72]


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (gzip.compress(b"a,y\n1,2\n"), "it is compressed by gzip: unpack it first"),
        (b"PK\x03\x04\xff" + bytes(20), "it is a ZIP archive, or a spreadsheet"),
        (b"PAR1\xff" + bytes(20), "it is a Parquet file: use ParquetDataset"),
        (pickle.dumps(np.ones(3)), "it is a pickle: save its arrays with numpy.save"),
        (b"SQLite format 3\0" + bytes(99), "it is a database of SQLite: save its table as CSV"),
        (b"a.csv" + bytes(252) + b"ustar\0" + bytes(99), "it is an archive: unpack it first"),
        ("a,y\n1,2\n".encode("utf-16-le").join([b"\xff\xfe", b""]), "give encoding='utf-16'"),
        ("stra\xdfe,y\n1,2\n".encode("latin-1"), "give encoding='latin-1', or the file's encoding"),
    ],
    ids=["gzip", "zip", "parquet", "pickle", "sqlite", "tar", "utf-16", "latin-1"],
)
def test_what_is_not_text_is_told_what_it_is(content: bytes, advice: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"; {advice}"):
        CsvDataset(tmp_path / "a.csv", target="y")


@pytest.mark.parametrize("header", [None, ["a", "b"]])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        ("<!DOCTYPE html>\n<html><body>no, no</body></html>\n", "a web page: download the"),
        ('{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "JSON: convert it"),
        ('[{"a": 1}]', "JSON: convert it"),
        ("<?xml version='1.0'?>\n<rows/>\n", "XML: convert it"),
        ("%PDF-1.4\n%\n", "a PDF document"),
    ],
)
def test_what_is_no_table_is_told_what_it_is(
    content: str, told: str, header: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.csv is {told}"):
        CsvDataset(tmp_path / "a.csv", header=header)
    (tmp_path / "a.csv").rename(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=f"as a .npy file: it is {told}"):
        NpyDataset(tmp_path / "a.npy")


def test_names_in_angles_are_of_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("<OPEN>,<CLOSE>\n1,2\n")
    assert CsvDataset(tmp_path / "a.csv").columns == ["<OPEN>", "<CLOSE>"]


def test_names_of_classes_are_not_validated_with_numbers(tmp_path: Path) -> None:
    for name, kinds in (("names", "rose iris"), ("numbers", "1 0")):
        rows = [f"{n},{kind}" for n, kind in enumerate(kinds.split())]
        (tmp_path / name).write_text("\n".join(["length,kind", *rows, ""]))
    names = CsvDataset(tmp_path / "names", target="kind", target_dtype=str, columns=["length"])
    numbers = CsvDataset(tmp_path / "numbers", target="kind", columns=["length"])
    weight = Parameter(np.zeros(1, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    for train, test, told in (
        (names, numbers, "training are names of classes, those of validation numbers"),
        (numbers, names, "training are numbers, those of validation names of classes"),
    ):
        with pytest.raises(ValueError, match=told):
            trainer.fit(
                DataLoader(train, 2),
                lambda x, y: ((x * weight) ** 2).mean(),
                epochs=1,
                validate=(DataLoader(test, 2), lambda x, y: ((x * weight) ** 2).mean()),
            )
    assert weight.tolist() == [0.0]


def test_a_name_may_begin_like_a_comment(tmp_path: Path) -> None:
    """As those that NumPy's `savetxt` writes."""
    assert CsvDataset(written(tmp_path, "# time,flux\n1,2\n")).features == ["# time", "flux"]
    assert CsvDataset(written(tmp_path, "#chrom,start\n1,2\n")).features == ["#chrom", "start"]


@pytest.mark.parametrize(
    "encoding", ["a\0b", "", "nope", "hex", "\ud800", "a" * 9999, "\x1b[2J", "zip"]
)
def test_an_encoding_that_is_none(tmp_path: Path, encoding: str) -> None:
    said = r"^encoding must be that of a text, such as 'utf-8' or 'latin-1', not ('.{,30}'|str)$"
    with pytest.raises(ValueError, match=said) as caught:
        CsvDataset(written(tmp_path, "a\n1\n"), encoding=encoding)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("delimiter", ["", "ab", "\0", "\n", "\r", '"'])
def test_a_delimiter_that_is_none(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ValueError, match=r"^delimiter must (be one character|not be)"):
        CsvDataset(written(tmp_path, "a\n1\n"), delimiter=delimiter)


@pytest.mark.parametrize(
    ("lines", "cell"),
    [
        ("a,b\n1,2\n#3,4\n", "#3"),
        ("a,b\n1,2\n#comment\n", "#comment"),
        ("a,b\n1,2\n#one, two, three\n", "#one"),
        ("#made by x\na,b\n1,2\n", "#made by x"),
        ("#made by x, y\na,b\n1,2\n", "#made by x"),
    ],
)
def test_lines_of_comments_are_said_to_be_none(tmp_path: Path, lines: str, cell: str) -> None:
    with pytest.raises(ValueError, match=f"if '{cell}' is a comment, remove such lines"):
        CsvDataset(written(tmp_path, lines))


def test_a_name_with_a_hash_is_no_comment(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x' in column '#a' is not float32; categories="):
        CsvDataset(written(tmp_path, "#a,b\nx,2\n"))


def test_not_available_as_spreadsheets_write_it(tmp_path: Path) -> None:
    dataset = CsvDataset(written(tmp_path, "a,b\n1,2\n3,#N/A\n"), missing=-1.0)
    assert dataset[1][0].tolist() == [3, -1]


@pytest.mark.parametrize("written_as", ["%d.%m.", "%H:%M", "%%Y %d %b"])
def test_dates_without_a_year_are_told_of(tmp_path: Path, written_as: str) -> None:
    cell = datetime(1900, 1, 2, 3, 4).strftime(written_as)
    path = written(tmp_path, f"a,b\n1,{cell}\n")
    with pytest.warns(UserWarning, match=rf"the format '{written_as}' of 'b' has no year") as said:
        CsvDataset(path, dates={"b": written_as}, dtype=np.float64)
    assert len(said) == 1
    assert said[0].filename == __file__


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["a", "\u00e4", "\u0438\u043c\u044f"])
def test_wide_texts_without_a_byte_order_mark_are_named(
    tmp_path: Path, encoding: str, name: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"{name},b\n1,2\n", encoding)
    with pytest.raises(ValueError, match=f"give encoding='{encoding}'"):
        CsvDataset(path)
    assert CsvDataset(path, encoding=encoding).columns == [name, "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text('\ufeff"a",b\n1,2\n', encoding)
    assert CsvDataset(path, encoding=encoding, target="a").columns == ["b"]


@pytest.mark.parametrize(
    ("written_as", "cell", "told"),
    [
        ("%Y-%M-%d", "2024-05-01", "a day but no month.* %M is the minute"),
        ("%d.%m.%Y %M", "01.05.2024 30", "a minute but no hour"),
        ("%d.%m.%Y %I:%M", "01.05.2024 01:30", "an hour of 12 but no %p"),
        ("%d.%m.%Y %H:%M %p", "01.05.2024 01:30 PM", "%p but no %I"),
        ("%d.%m.%Y %I:%M %p", "01.05.2024 01:30 PM", None),
        ("%Y-%W", "2024-20", "a week but no day of the week"),
        ("%Y-%W-%w", "2024-20-1", None),
        ("%Y-%j", "2024-120", None),
        ("%Y", "2024", None),
        ("%Y-%m", "2024-05", None),
        ("20%y%b%d", "24May01", None),
        ("%m/%d/%Y %X", "05/01/2024 13:30:00", None),
    ],
)
def test_formats_of_dates_that_lose_a_part_are_told_of(
    tmp_path: Path, written_as: str, cell: str, told: str | None
) -> None:
    """`strptime` takes January for a month that is missing, and leaves out PM."""
    path = written(tmp_path, f"a,b\n1,{cell}\n")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        CsvDataset(path, dates={"b": written_as}, dtype=np.float64)
    assert len(found) == (told is not None)
    if told is not None:
        assert re.search(f"'b' has {told}", str(found[0].message))


def test_a_program_encodes_its_own_dates_whatever_the_format(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,01.02.2024\n")
    dataset = CsvDataset(path, dates={"b": "%d.%m.%Y"}, dtype=np.float64)
    rows = [{"a": 1, "b": datetime(2024, 2, 1, 12)}, {"a": 1, "b": date(2024, 2, 1)}]
    assert dataset.encode(rows)[:, 1].tolist() == [19754.5, 19754.0]
    with pytest.raises(ValueError, match=r"'2024-02-01' .* is not a date; its format in dates= is"):
        dataset.encode([{"a": 1, "b": "2024-02-01"}])


@pytest.mark.parametrize("rows", [["a", "b"], [[1, 2]], [(1, 2)]])
def test_rows_to_encode_are_dicts(tmp_path: Path, rows: Any) -> None:
    """A data frame of pandas yields the names of its columns."""
    dataset = CsvDataset(written(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(TypeError, match=r"row 0 must be a dict .*to_dict\('records'\)"):
        dataset.encode(rows)


def test_lines_of_spaces_are_blank(tmp_path: Path) -> None:
    dataset = CsvDataset(written(tmp_path, "a,b\n1,2\n   \n\t\n3,4\n  \n"))
    assert [dataset[n][0].tolist() for n in range(len(dataset))] == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match=r"data\.csv:3: ' ' in column 'a' is not float32"):
        CsvDataset(written(tmp_path, "a\n1\n \n"))


def test_a_delimiter_at_the_end_of_lines_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 cells instead of 2; remove the delimiter at the end"):
        CsvDataset(written(tmp_path, "a,b\n1,2,\n"))


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("Cat", "cat", "'Cat' and 'cat'"),
        ("caf\u00e9", "cafe\u0301", r"'cafe\\u0301' and 'caf\\xe9'"),
        ("big  cat", "big cat", "'big  cat' and 'big cat'"),
        ("1.0", "1", "'1' and '1.0'"),
    ],
)
def test_classes_that_look_like_one_are_told_of(
    tmp_path: Path, first: str, second: str, told: str
) -> None:
    path = written(tmp_path, f"a,kind\n1,{first}\n2,{second}\n3,other\n")
    with pytest.warns(UserWarning, match=f"{told} are two classes: write them alike") as said:
        classes = CsvDataset(path, target="kind", target_dtype=str).classes
    assert len(said) == 1
    with pytest.warns(UserWarning, match=rf"column 'kind': {told} are two categories.*'kind': \["):
        CsvDataset(path, categories=["kind"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(path, target="kind", target_dtype=str, classes=classes)
        CsvDataset(path, categories={"kind": classes})
        letters = written(tmp_path, "a,kind\n1,a\n2,A\n")
        CsvDataset(letters, target="kind", target_dtype=str)


@pytest.mark.parametrize(
    ("name", "told"),
    [("sep", "delimiter="), ("names", "header="), ("usecols", "columns="), ("nrows", "Subset"),
     ("parse_dates", "dates="), ("comment", "remove the lines of comments")],
)  # fmt: skip
def test_options_of_pandas_are_named(tmp_path: Path, name: str, told: str) -> None:
    make: Any = CsvDataset
    with pytest.raises(TypeError, match=f"CsvDataset takes no '{name}'; here it is .*{told}"):
        make(written(tmp_path, "a,b\n1,2\n"), **{name: ";"})


def test_a_pointer_of_git_lfs_is_no_table(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n"
    with pytest.raises(ValueError, match="is a pointer of Git LFS: fetch the file with git lfs"):
        CsvDataset(written(tmp_path, text))


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"it is an archive: save each of its arrays with numpy"):
        NpyDataset(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("5.1,3.5,0\n4.9,3.0,1\n", {"target": "0"}, "holds only numbers"),
        ("5.1\n4.9\n", {}, "holds only numbers"),
        (
            "5.1,3.5,setosa\n4.9,3.0,setosa\n4.7,3.2,virginica\n",
            {"target": "setosa", "target_dtype": str},
            "holds numbers and 'setosa', a class",
        ),
    ],
)
def test_a_first_line_of_data_is_told_of(
    text: str, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.warns(UserWarning, match=rf"first line is read as column names, but {told}; give"):
        CsvDataset(path, **options)
    columns = [name for name in text.split("\n")[0].split(",") if name != options.get("target")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(path, **options, columns=columns)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("0,1,spam\n5,6,spam\n7,9,ham\n", {}),
        ("words,spam\n5,spam\n7,ham\n", {}),
        ("color,spam\nred,spam\nblue,ham\n", {"categories": ["color"]}),
    ],
)
def test_a_target_may_be_called_like_a_class(
    text: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(written(tmp_path, text), target="spam", target_dtype=str, **options)


@pytest.mark.parametrize("header", ["infer", "ab"])
def test_a_text_is_no_list_of_names(header: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"header must be a list of names, not the text '{header}'"):
        CsvDataset(written(tmp_path, "1,2\n"), header=header)


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("zip,x\n90210,1\n02134,2\n", {}, "'zip' .*, and 02134 is read as 2134: categories="),
        ("x,y\n007,1\n7,2\n", {"dtype": int}, "'x' .*, and 007 is read as 7: categories="),
        ("x,zip\n1,00501\n", {"target": "zip"}, "'zip' .* 501: target_dtype=str keeps codes"),
    ],
)
def test_leading_zeros_are_told_of(
    text: str, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.warns(UserWarning, match=f"column {told}") as found:
        dataset = CsvDataset(path, **options)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.like(path)
        names = [name for name in text.split("\n")[0].split(",") if name != options.get("target")]
        CsvDataset(path, columns=names, **options)


@pytest.mark.parametrize("cell", ["01", "0.50", "00", "-0.001", "0", "000.5", "1000", "1e-005"])
def test_numbers_that_begin_with_zeros(cell: str, tmp_path: Path) -> None:
    """Months, hours and fractions."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CsvDataset(written(tmp_path, f"a,b\n{cell},1\n"))[0][0][0] == np.float32(cell)


@pytest.mark.parametrize(
    ("missing", "dtype", "told"),
    [
        (16777217, np.float32, "missing=16777217 becomes 16777216 in float32"),
        (-9999, np.float16, "missing=-9999 becomes -10000 in float16"),
        (1e-50, np.float32, "missing=1e-50 becomes 0 in float32"),
        (-999.9, np.float32, None),
        (-99999, np.float32, None),
        (float("nan"), np.float16, None),
        (2**53, np.float64, None),
    ],
)
def test_a_number_for_missing_ones_that_is_rounded_is_told_of(
    missing: float, dtype: Any, told: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path, "a,b\n1,1\n,2\n")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        CsvDataset(path, missing=missing, dtype=dtype)
    assert len(found) == (told is not None)
    if told is not None:
        assert told in str(found[0].message)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CsvDataset(path, missing=missing, dtype=np.float64)


def test_texts_of_a_program_are_written_as_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "a;b\n1.234,5;2\n")
    dataset = CsvDataset(path, delimiter=";", decimal=",", thousands=".")
    rows: list[dict[str, Any]] = [
        {"a": "1,5", "b": "1.234"}, {"a": 1.5, "b": np.float32(0.25)}, {"a": "1.234,5", "b": 2}
    ]  # fmt: skip
    assert dataset.encode(rows).tolist() == [[1.5, 1234], [1.5, 0.25], [1234.5, 2]]
    with pytest.raises(ValueError, match=r"row 0: '1\.5' .*; its marks are not those of decimal="):
        dataset.encode([{"a": "1.5", "b": 2}])


def test_dates_and_whole_numbers_of_a_program(tmp_path: Path) -> None:
    path = written(tmp_path, "n,day,paid\n3,2024-31-01,yes\n")
    dataset = CsvDataset(
        path, dates={"day": "%Y-%d-%m"}, booleans=["paid"], dtype=np.int64, missing=-1
    )
    rows: list[dict[str, Any]] = [
        {"n": 3.0, "day": np.datetime64("2024-02-01"), "paid": 1.0},
        {"n": np.float32(4), "day": np.datetime64("2024-02-01T00:00:00.000000000"), "paid": False},
        {"n": 5, "day": np.datetime64("NaT"), "paid": np.True_},
    ]
    assert dataset.encode(rows).tolist() == [[3, 19754, 1], [4, 19754, 0], [5, -1, 1]]
    with pytest.raises(ValueError, match=r"row 0: '3\.5' in column 'n' is not int64"):
        dataset.encode([{"n": 3.5, "day": None, "paid": None}])


def test_days_of_a_program_are_categories_as_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "day,y\n2020-01-01,1\n2020-01-02,2\n")
    dataset = CsvDataset(path, target="y", categories=["day"])
    days = [np.datetime64("2020-01-02"), np.datetime64("2020-01-01", "ns"), date(2020, 1, 2)]
    assert dataset.encode([{"day": day} for day in days]).tolist() == [[0, 1], [1, 0], [0, 1]]
    dataset = CsvDataset(path, target="y", dates=["day"])
    with pytest.raises(ValueError, match="row 0: '20200-01-01' in column 'day' is not a date"):
        dataset.encode([{"day": np.datetime64("20200-01-01")}])


def test_rows_of_an_iterator_are_encoded(tmp_path: Path) -> None:
    """None of them were: they were used up before."""
    dataset = CsvDataset(written(tmp_path, "a,b\n1,2\n"))
    rows: Any = ({"a": n, "b": 0} for n in range(3))
    assert dataset.encode(rows).tolist() == [[0, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (("1.0", "2.0", "10.0"), r"class 1 is the text 10\.0; target_dtype=float takes them"),
        (("-1", "-2", "3"), "class 0 is the text -1; target_dtype=float takes them"),
        (("1", "2", "1" * 299), r"class 1 is the text [1.]+; target_dtype=int takes them"),
        (("1", "2", "1" * 5000), None),
        (("1.0", "2.0", "3.0"), None),
    ],
)
def test_classes_of_numbers_are_sorted_as_text(
    cells: tuple[str, ...], told: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path, "a,y\n" + "".join(f"1,{cell}\n" for cell in cells))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        CsvDataset(path, target="y", target_dtype=str)
    assert len(found) == (told is not None)
    assert told is None or re.search(told, str(found[0].message))


@pytest.mark.parametrize("cell", ["(50)", "50-", "\u221250", "50%"])
def test_signs_that_are_none_of_a_number(cell: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="remove what is no number from the cells"):
        CsvDataset(written(tmp_path, f"a,b\n{cell},1\n"))


def test_numbers_of_days_are_no_dates(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"'43831' .* not a date; leave it out of dates=\[\.\.\.\]"
    ):
        CsvDataset(written(tmp_path, "day,b\n43831,1\n"), dates=["day"])


def test_a_long_text_says_how_it_is_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, f"a,text\n1,{'x ' * 70_000}\n")
    with pytest.raises(ValueError, match=r"csv:2: .*, csv\.field_size_limit\(10\*\*9\) allows it"):
        CsvDataset(path, columns=["a"])
    before = csv.field_size_limit(10**9)
    try:
        assert len(CsvDataset(path, columns=["a"])) == 1
    finally:
        csv.field_size_limit(before)


def test_a_conflict_of_a_merge_is_told_of(tmp_path: Path) -> None:
    text = "a,b\n<<<<<<< HEAD\n1,2\n=======\n1,3\n>>>>>>> main\n"
    with pytest.raises(ValueError, match=r"csv:2: 1 cells .* a conflict of a merge: resolve it"):
        CsvDataset(written(tmp_path, text))


@pytest.mark.parametrize("name", ["Kind", " kinds", "knid"])
def test_a_target_of_another_spelling_is_told_of(name: str, tmp_path: Path) -> None:
    """The samples had none, which nothing said."""
    train = CsvDataset(written(tmp_path, "a,kind\n1,2\n"), target="kind")
    path = tmp_path / "test.csv"
    path.write_text(f"a,{name}\n1,2\n")
    told = rf"test\.csv has no target 'kind', so the samples have none; should '{name.strip()}' be"
    with pytest.warns(UserWarning, match=told) as found:
        assert len(train.like(path)[0]) == 1
    assert found[0].filename == __file__
    path.write_text("a,id\n1,2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(train.like(path)[0]) == 1


@pytest.mark.parametrize("name", ["y_true", "label", "Kind of it"])
def test_a_new_column_may_be_the_target_by_another_name(name: str, tmp_path: Path) -> None:
    train = CsvDataset(written(tmp_path, "a,b,y\n1,2,3\n"), columns=["a"], target="y")
    path = tmp_path / "test.csv"
    path.write_text(f"a,b,{name}\n1,2,3\n")
    with pytest.warns(UserWarning, match=f"has no target 'y', .*; should '{name}' be it"):
        train.like(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(written(tmp_path, "a\n1\n")).like(path)
        for names in ("a,b", "a,b,id", "a,b,index"):
            path.write_text(f"{names}\n{','.join('1' for _ in names.split(','))}\n")
            assert len(train.like(path)[0]) == 1


def test_a_feature_that_is_the_target_is_told_of(tmp_path: Path) -> None:
    rows = [(n % 3, n % 2, n % 2) for n in range(3000)]
    text = "a,y_true,y\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows)
    path = written(tmp_path, text)
    told = "the feature 'y_true' is equal to the target in all rows"
    with pytest.warns(UserWarning, match=told) as found:
        CsvDataset(path, target="y")
    assert found[0].filename == __file__
    with pytest.warns(UserWarning, match=told):
        CsvDataset(path, target="y", standardize=True, target_dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvDataset(path, target="y", columns=["a", "y_true"])
        CsvDataset(path, target=["a"])
        CsvDataset(written(tmp_path, text + "1,1,0\n"), target="y")
        CsvDataset(written(tmp_path, "a,y\n1,1\n2,2\n"), target="y")


def test_a_first_line_of_data_with_a_class_of_its_own_is_told_of(tmp_path: Path) -> None:
    text = "1.5,4,2.5,a\n4,5,6,b\n4,5,7,c\n"
    with pytest.warns(UserWarning, match="first line .* holds numbers in no order; give header="):
        CsvDataset(written(tmp_path, text), target="a", target_dtype=str)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # wavelengths
        path = written(tmp_path, "400.5,402,404.5,a\n4,5,6,b\n4,5,7,c\n")
        CsvDataset(path, target="a", target_dtype=str)


@pytest.mark.parametrize("written_as", ["%d/%m/%y", "%y%m%d", "%x", "%%%y", "%d.%m. %y"])
def test_years_of_two_digits_say_no_century(written_as: str, tmp_path: Path) -> None:
    """`strptime` makes 2068 of 68, and 1969 of 69."""
    path = written(tmp_path, "a,b\n1,01/02/68\n")
    with pytest.raises(ValueError, match=r"dates: the format .* of 'b' has years of two digits, "):
        CsvDataset(path, dates={"b": written_as})


@pytest.mark.parametrize(("century", "year"), [("19", 1968), ("20", 2068), ("18", 1868)])
def test_a_format_says_the_century(century: str, year: int, tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\n1,29.02.68\n2,01.03.68\n")
    dataset = CsvDataset(path, dates={"b": f"%d.%m.{century}%y"}, dtype=np.float64)
    days = [(date(year, *day) - date(1970, 1, 1)).days for day in ((2, 29), (3, 1))]
    assert [dataset[n][0][1] for n in range(2)] == days
    with pytest.raises(
        ValueError, match=r"'01\.02\.1968' in column 'b' is not a date; its format in"
    ):
        CsvDataset(written(tmp_path, "b\n01.02.1968\n"), dates={"b": "%d.%m.19%y"})


def test_a_leap_day_of_a_century_without_one(tmp_path: Path) -> None:
    path = written(tmp_path, "b\n29.02.00\n")
    assert len(CsvDataset(path, dates={"b": "%d.%m.20%y"})) == 1
    with pytest.raises(ValueError, match=r"'29\.02\.00' in column 'b' is not a date"):
        CsvDataset(path, dates={"b": "%d.%m.19%y"})


@pytest.mark.parametrize(
    ("cell", "options"),
    [("01/02/68", {}), ("01/02/68", {"dates": ["b"]}), ("680201", {"dates": ["b"]})],
)
def test_advice_for_years_of_two_digits_says_a_century(
    cell: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"dates={'b': '.*19%y.*'}"):
        CsvDataset(written(tmp_path, f"b\n{cell}\n"), **options)


@pytest.mark.parametrize(
    ("written_as", "cell"),
    [("%Y%m%d", "2020111"), ("%Y%m%d", "112233"), ("%H%M %d.%m.%Y", "111 1.2.2020")],
)
def test_parts_of_a_date_without_marks_between_have_all_their_digits(
    written_as: str, cell: str, tmp_path: Path
) -> None:
    """`strptime` takes 2020111 for the 1st of November."""
    with pytest.raises(ValueError, match="is not a date; its format in dates="):
        CsvDataset(written(tmp_path, f"b\n{cell}\n"), dates={"b": written_as})
    path = written(tmp_path, "b\n20200111\n")
    assert CsvDataset(path, dates={"b": "%Y%m%d"})[0][0].tolist() == [18272]


WHOLE = "a,b\n1,25\n2,31\n3,47\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32-le"])
def test_a_file_that_was_cut_in_its_last_cell_is_told_of(
    end: str, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    for text, is_told in (
        (WHOLE, False),
        (WHOLE[:-1], False),  # as a program writes it that joins lines
        (WHOLE[:-2], True),
        (WHOLE + "  ", False),
        (WHOLE + "\n", False),
        ("a,b\n1,2", False),  # a single line that no other shows to be cut
        (WHOLE + "x" * 5000 + ",4", True),
    ):
        path.write_bytes(text.replace("\n", end).encode(encoding))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            CsvDataset(path, encoding=encoding, columns=["b"])
        assert len(told) == is_told, text[-9:]
        if is_told:
            assert "data.csv: the last line has no end, and its last cell" in str(told[0].message)
            assert told[0].filename == __file__


@pytest.mark.parametrize(
    ("cells", "last", "is_told"),
    [
        ("3 12 7 105", "44", False),
        ("3.25 12.5 7.125", "9.75", False),
        ("3.25 12.75 7.15", "19.5", True),  # fewer decimals than any
        ("3.25 12.75 7.1", "19.", True),
        ("1e-05 0.25 2e-07", "3e-", True),
        ("apple lemon plum apple", "plum", False),
        ("apple lemon plum apple", "appl", True),
        ("apple lemon plum apple", "kiwis", False),
        ("apple lemon plum apple", '"plu"', False),  # a quote ends it
        ("2024-01-05 2024-11-12", "2024-12-1", True),
        ("1 2 3", "10", False),
    ],
)
def test_what_is_like_the_cells_above_it_was_not_cut(
    cells: str, last: str, is_told: bool, tmp_path: Path
) -> None:
    lines = [f"{n},{cell}" for n, cell in enumerate([*cells.split(), last])]
    path = written(tmp_path, "\n".join(["a,b", *lines]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        CsvDataset(path, columns=["a"])
    assert [f"its last cell, {last!r}" in str(each.message) for each in told] == [True] * is_told


def test_another_file_that_was_cut_is_told_of(tmp_path: Path) -> None:
    train = CsvDataset(written(tmp_path, WHOLE), target="b")
    (tmp_path / "test.csv").write_text(WHOLE[:-2])
    with pytest.warns(
        UserWarning, match=r"test\.csv: the last line has no end, and its last cell, .4., is"
    ):
        train.like(tmp_path / "test.csv")


def test_a_footer_of_text_has_no_other_delimiter(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.csv:5: 1 cells instead of 2$"):
        CsvDataset(written(tmp_path, "a,y\n3,2\n5,6\n\nSource: x\n"), target="y")
    with pytest.raises(ValueError, match="1 cells instead of 2; give delimiter=' '"):
        CsvDataset(written(tmp_path, "a,y\n3 2\n"), target="y")


def test_a_line_that_repeats_the_names_is_none_of_data(tmp_path: Path) -> None:
    """A table of texts had a row, a category and a class more."""
    path = written(tmp_path, "a,k\n1,x\n3,y\na, k\n5,x\n")
    with pytest.raises(ValueError, match=r"data\.csv:4: the line repeats the names of the columns"):
        CsvDataset(path, target="k", target_dtype=str, categories=["a"])
    numbers = written(tmp_path, "0,1\n5,6\n0,1\n")
    assert len(CsvDataset(numbers)) == 2
    single = written(tmp_path, "yes\nno\nyes\n")
    assert len(CsvDataset(single, categories=["yes"])) == 2


@pytest.mark.parametrize("zone", ["UTC", "CET"])
def test_names_of_zones_are_not_dropped(zone: str, tmp_path: Path) -> None:
    """`strptime` takes those of the machine's own zone, and leaves them out."""
    path = written(tmp_path, f"b\n2020-01-01 12:00 {zone}\n")
    with pytest.raises(
        ValueError, match="%Z, which reads names of zones and drops them: write UTC"
    ):
        CsvDataset(path, dates={"b": "%Y-%m-%d %H:%M %Z"})
    if zone == "UTC":
        assert CsvDataset(path, dates={"b": "%Y-%m-%d %H:%M UTC"})[0][0].tolist() == [18262.5]


@pytest.mark.parametrize(
    ("format_", "told"),
    [("%d.%d.%Y", "a part twice"), ("%Q", "'Q' is a bad directive"), ("", "no part of a date"),
     ("%Y-%m-%d %-H", "'-' is a bad directive"), ("%Y %", "stray %")],
)  # fmt: skip
def test_formats_of_dates_that_are_none_are_refused(
    format_: str, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "day\n2020-01-01\n")
    with pytest.raises(ValueError, match=f"dates: the format .* of 'day' has {told}"):
        CsvDataset(path, dates={"day": format_})
