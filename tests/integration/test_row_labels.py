"""Objects of pandas that are given together: rows are paired by position, which is said."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.train import (
    ArrayDataset,
    BalancedSampler,
    CsvDataset,
    DataLoader,
    LengthBuckets,
    NpyDataset,
    ParquetDataset,
    Subset,
    WeightedSampler,
    metrics,
    random_split,
)

pandas: Any = pytest.importorskip("pandas")


def frame() -> Any:
    return pandas.DataFrame({"a": np.arange(6.0), "y": np.arange(6) % 2})


PAIRS: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (lambda table: table.sample(frac=1, random_state=0)[["a"]], lambda table: table["y"]),
    (lambda table: table["a"], lambda table: table.sort_values("y")["y"]),
    (lambda table: table[["a"]], lambda table: table["y"][::-1]),
    (lambda table: table.iloc[[0, 0, 1, 2]]["a"], lambda table: table.iloc[[0, 1, 0, 2]]["y"]),
    (lambda table: table.set_index(["a", "y"], drop=False)["a"],
     lambda table: table.set_index(["a", "y"], drop=False)["y"][::-1]),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_same_labels_in_another_order_are_refused(one: Any, other: Any) -> None:
    x, y = one(frame()), other(frame())
    with pytest.raises(ValueError, match=r"array 0 and array 1 have the same row labels in anot"):
        ArrayDataset(x, y)
    with pytest.raises(ValueError, match=r"array 0 and array 2 .*second\.loc\[first\.index\]"):
        ArrayDataset(x, np.zeros(len(x)), y)
    assert ArrayDataset(x.to_numpy(), y.to_numpy()).batch(np.array([1]))[1] == y.iloc[1]
    if x.index.is_unique:
        assert len(ArrayDataset(x, y.loc[x.index])) == len(x)


ALIKE: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (lambda table: table.sample(frac=1, random_state=0)["a"], lambda table: table["y"].to_numpy()),
    (lambda table: table.sample(frac=1, random_state=0)["a"].set_axis(list("bcdefg")),
     lambda table: table["y"]),
    (lambda table: table[table["y"] == 0]["a"],
     lambda table: table[table["y"] == 0]["y"].reset_index(drop=True)),
    (lambda table: table.iloc[[3, 3, 1]]["a"], lambda table: table.iloc[[3, 3, 1]]["y"]),
    (lambda table: table["a"], lambda table: table["y"].tolist()),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_other_labels_say_nothing(one: Any, other: Any) -> None:
    x, y = one(frame()), other(frame())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ArrayDataset(x, y)) == len(x)


def test_labels_of_other_rows_are_refused() -> None:
    """As of columns whose missing values were dropped one by one, or of two parts of a frame."""
    x, y = frame()["a"], frame()["y"]
    for one, other in ((x[[1, 2, 4]], y[[1, 3, 4]]), (x[3:], y[[5, 1, 0]]), (x[1:4], y[2:5])):
        with pytest.raises(ValueError, match=r"array 0 and array 1 have labels of different rows"):
            ArrayDataset(one, other)
        assert len(ArrayDataset(one.to_numpy(), other)) == 3
        assert len(ArrayDataset(one.reset_index(drop=True), other)) == 3
    days = pandas.date_range("2020-01-01", periods=3)
    with pytest.raises(ValueError, match="different rows, such as Timestamp"):
        ArrayDataset(x[:3].set_axis(days), y[:3].set_axis(days + pandas.Timedelta(days=1)))
    assert len(ArrayDataset(x[3:].set_axis(days), y[3:])) == 3


def test_an_array_of_pandas_that_lacks_a_number_has_nan_or_is_refused() -> None:
    found = ArrayDataset(pandas.array([1, None], dtype="Int64"), [0, 1])
    assert np.isnan(found[1][0])
    with pytest.raises(ValueError, match="array 0: 9007199254740993 becomes 9007199254740992 in"):
        ArrayDataset(pandas.array([2**53 + 1, None], dtype="Int64"), [0, 1])


def test_metrics_pair_scores_and_targets() -> None:
    targets = frame()["y"]
    scores = pandas.DataFrame({0: 1.0 - targets, 1: targets * 1.0})
    assert float(metrics.accuracy(scores, targets)) == 1
    assert float(metrics.r2(scores[1], targets)) == 1
    mixed = targets[::-1]
    score: Any
    for score in (metrics.accuracy, metrics.confusion_matrix, metrics.perplexity):
        with pytest.raises(ValueError, match="have the same row labels in another order"):
            score(scores, mixed)
    for score in (metrics.r2, metrics.auroc, metrics.mean_absolute_error):
        with pytest.raises(ValueError, match="predictions and targets have the same row labels"):
            score(scores[1], mixed)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (["x", "y"], r"'b' \((str|object)\), or leave"),
        ([True, False], r"'b' \(bool\), or leave"),
        (pandas.to_datetime(["2020", "2021"]), r"'b' \(datetime64\[.s\]\), or leave"),
        (pandas.Categorical(["u", "v"]), r"'b' \(category\), or leave"),
    ],
)
def test_columns_of_no_numbers_are_named(column: Any, told: str) -> None:
    table = pandas.DataFrame({"a": [1.0, 2.0], "b": column})
    with pytest.raises(TypeError, match=f"array 0 has dtype object; .* convert the columns {told}"):
        ArrayDataset(table, np.zeros(2))
    assert len(ArrayDataset(table[["a"]], np.zeros(2))) == 2


@pytest.mark.parametrize("sampler", [WeightedSampler, BalancedSampler, LengthBuckets])
def test_samplers_of_another_order_are_refused(sampler: Any) -> None:
    table = frame()
    mixed = table.sample(frac=1, random_state=0)
    dataset = ArrayDataset(mixed[["a"]], mixed["y"].to_numpy())
    with pytest.raises(ValueError, match="the dataset and its sampler have the same row labels in"):
        DataLoader(dataset, 2, sampler=sampler(table["y"]))
    half = Subset(dataset, [0, 1, 2])
    with pytest.raises(ValueError, match="the dataset and its sampler have the same row labels in"):
        DataLoader(half, 2, sampler=sampler(mixed["y"][:3][::-1]))
    for given in (mixed["y"], table["y"].to_numpy(), mixed["y"].reset_index(drop=True).to_list()):
        assert len(DataLoader(dataset, 2, sampler=sampler(given))) == 3
    assert len(DataLoader(half, 2, sampler=sampler(mixed["y"][:3]))) == 2
    assert len(DataLoader(ArrayDataset(mixed.to_numpy()), 2, sampler=sampler(table["y"]))) == 3


def test_row_labels_are_no_positions() -> None:
    table = frame()
    mixed = table.sample(frac=1, random_state=0)
    dataset = ArrayDataset(mixed["a"])
    chosen = mixed.index[mixed["y"] == 1]
    with pytest.raises(ValueError, match=r"row labels of pandas, .*frame\.index\.get_indexer"):
        Subset(dataset, chosen)
    found = Subset(dataset, mixed.index.get_indexer(chosen))
    assert [float(found[i][0]) for i in range(3)] == chosen.tolist()
    assert Subset(dataset, chosen.to_numpy()).indices.tolist() == chosen.tolist()
    assert len(Subset(ArrayDataset(table["a"]), table.index[table["y"] == 1])) == 3
    assert len(Subset(ArrayDataset(table["a"].to_numpy()), chosen)) == 3
    assert len(Subset(ArrayDataset(table["a"][3:]), pandas.Index([0, 1]))) == 2
    assert len(random_split(dataset, [3, 3])) == 2
    with pytest.raises(TypeError, match=r"not bool: numpy\.flatnonzero\(mask\) gives them"):
        Subset(dataset, mixed["y"] == 1)


def test_worker_processes_get_no_row_labels() -> None:
    dataset = ArrayDataset(frame()["a"].set_axis(list("abcdef")))
    assert b"pandas" not in pickle.dumps(dataset)
    assert len(pickle.loads(pickle.dumps(dataset))) == 6


@pytest.mark.parametrize("sampler", [WeightedSampler, BalancedSampler, LengthBuckets])
@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_samplers_of_another_order_than_a_file_are_refused(
    kind: str, sampler: Any, tmp_path: Path
) -> None:
    table = frame().reset_index(drop=True)
    path = tmp_path / f"data.{kind}"
    if kind == "npy":
        np.save(path, table["a"])
    else:
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    read = {"csv": CsvDataset, "parquet": ParquetDataset, "npy": NpyDataset}[kind]
    dataset: Any = read(path)
    mixed = table["y"].sample(frac=1, random_state=0)
    for given, weights in (
        (dataset, mixed),
        (Subset(dataset, [1, 3]), table["y"][[3, 1]]),
    ):
        with pytest.raises(ValueError, match="row labels of the dataset in another order than its"):
            DataLoader(given, 2, sampler=sampler(weights))
    for weights in (table["y"], mixed.to_numpy(), mixed.set_axis(list("abcdef"))):
        assert len(DataLoader(dataset, 2, sampler=sampler(weights))) == 3
    assert len(DataLoader(Subset(dataset, [3, 1]), 2, sampler=sampler(table["y"][[3, 1]]))) == 1


def test_a_file_of_which_rows_are_left_out_has_no_positions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,y\n1,1\n2,\n3,1\n")
    dataset = CsvDataset(tmp_path / "a.csv", target="y", missing_target="drop")
    weights = pandas.Series([1.0, 2.0], index=[1, 0])
    assert len(DataLoader(dataset, 2, sampler=WeightedSampler(weights))) == 1
