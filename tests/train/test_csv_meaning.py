"""What a CSV file means: row names, classes, numbers as tables write them; and what is refused."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor
from rumus.train import CsvDataset, DataLoader, Trainer, random_split

WITH_ROW_NAMES = '"{}","length","kind"\n"1",5.1,"setosa"\n"51",7,"virginica"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "rownames", "row.names"])
def test_row_names_are_no_feature_and_that_is_said(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, WITH_ROW_NAMES.format(name))
    with pytest.warns(UserWarning, match=rf"first column, '{name}', is left out") as said:
        dataset = CsvDataset(path, target="kind", target_dtype=str)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert dataset.columns == ["length"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = CsvDataset(path, columns=[name, "length"])
    assert chosen[1][0].tolist() == [51, 7]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a,,b\n1,2,3\n", {}, r"column 2 has no name; give columns"),
        (",,b\n1,2,3\n", {}, r"column 2 has no name"),
        ("a,b\n1,2,3\n", {}, r"3 cells instead of 2; .*header=\[''"),
        ("a;b\n1;2\n", {"target": "b"}, r"no column 'b'; it has a;b alone; give delimiter=';'"),
        ("a,k\n1,cat\n", {}, r"'cat' in column 'k' is no float32; .*target='k', target_dtype=str"),
        ("a,k\n1,NA\n", {}, r"'NA' in column 'k' is no float32; missing="),
        ("a,k\n1,TRUE\n", {}, r"'TRUE' .* write 0 and 1"),
        ('a,k\n1,"1,5"\n', {}, r"'1,5' .* decimal comma as a point"),
        ('a,k\n1,"1,500,000.5"\n', {}, r"without thousands separators"),
        ("a,k\n1,2024-01-31\n", {}, r"a date is left out with columns"),
        ("a,k\n1,cat\n", {"target": "k", "classes": ["Cat", "dog"]}, r"'cat' is not in classes"),
        ("a,k\n1,cat\n", {"target": "k", "classes": ["dog", "dog"]}, r"classes has 'dog' twice"),
        ("a,k\n1,cat\n", {"target": "k", "classes": []}, r"classes is empty"),
        ("a,k\n1,cat\n", {"classes": ["cat"]}, r"one target: give target="),
        ("a,b,c\n1,2,3\n", {"target": ["b", "d"]}, r"no column 'd'"),
    ],
)
def test_what_is_unclear_is_refused_with_what_to_pass(
    tmp_path: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        CsvDataset(written(tmp_path, text), **options)


@pytest.mark.parametrize(
    "cell",
    ["1_000", "infinity", "Infinity", "INF", "NAN", "-nan", "٣", "\uff11", "0x10", "1e400", "-1e39",
     "1e", ".", "1 2", "--1", "9" * 5000, "\x1b[2J", "\N{NO-BREAK SPACE}1"],
)  # fmt: skip
def test_only_what_a_table_means_by_a_number_is_one(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ValueError, match=r"csv:3: .* in column 'b' is no float32") as caught:
        CsvDataset(written(tmp_path, f"a,b\n1,2\n3,{cell}\n"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match="is no int64"):
        CsvDataset(written(tmp_path, f"a,b\n1,2\n3,{cell}\n"), dtype=np.int64)


@pytest.mark.parametrize("cell", ["nan", "NaN", "inf", "-inf", "+inf", "Inf", " 1.5e-3 ", "+2"])
def test_numbers_as_numpy_pandas_and_r_write_them(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"a\n{cell}\n")
    np.testing.assert_array_equal(CsvDataset(path)[0][0], np.array([cell], np.float32))


@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=50))
def test_written_floats_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = written(tmp_path_factory.getbasetemp(), "a\n" + "\n".join(map(repr, values)))
    found = CsvDataset(path).batch(np.arange(len(values)))[0][:, 0]
    np.testing.assert_array_equal(found, np.array(values, np.float32))


def test_splits_number_their_classes_alike(tmp_path: Path) -> None:
    train = CsvDataset(
        written(tmp_path, "a,k\n1,dog\n2,bird\n3,cat\n"), target="k", target_dtype=str
    )
    test = CsvDataset(written(tmp_path, "a,k\n1,dog\n"), target="k", classes=train.classes)
    assert (train.classes, test.classes) == (["bird", "cat", "dog"],) * 2
    assert int(test[0][1]) == 2


def test_missing_cells_are_taken_for_the_number_that_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,y\n1,,3\nNA,5,6\n")
    values = CsvDataset(path, target="y", missing=float("nan")).batch(np.arange(2))[0]
    np.testing.assert_array_equal(values, [[1, np.nan], [np.nan, 5]])
    with pytest.raises(ValueError, match="in column 'a' is no float32"):
        CsvDataset(path, columns=["b"], target="a", missing=0.0)


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


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    with listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(OSError, match="where a regular file is needed"):
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
