"""Input of any size or damage is answered in linear time, with the documented error.

Quadratic time would take minutes here, and be noticed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.nn import (
    GRU,
    LSTM,
    Linear,
    Sequential,
    Upsample,
    load_lora,
    lora,
    read_weights,
    save_lora,
)
from rumus.nn.weights_file import WeightsFileError
from rumus.optim import (
    SGD,
    LossScale,
    Muon,
    Plateau,
    Scaling,
    constant,
    load_state,
    load_torch_state,
    save_state,
    torch_state,
)
from rumus.tensor import Generator, Parameter, StateMismatchError, ones, split, stack, zeros
from rumus.train import (
    ArrayDataset,
    Checkpoints,
    ConfigurationError,
    CsvDataset,
    DataLoader,
    EarlyStopping,
    FeedPlateau,
    ImageFolder,
    NpyDataset,
    ParquetDataset,
    RunFolder,
    StreamLoader,
    Subset,
    Trainer,
    load_configuration,
    load_model,
    metrics,
)
from rumus.train.base.datasets import datasets_of
from rumus.train.base.toml_text import parse_toml
from rumus.train.command_line.main import main
from rumus.train.data.dataset import batch_of, describe

ESCAPE = "\x1b[2J"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def error_of(use: Callable[[], object]) -> Exception | None:
    """What a call raises, if it does."""
    try:
        use()
    except Exception as error:
        return error
    return None


# Datasets in each other


class Named:
    """A dataset that is read sample by sample."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.float32]:
        return (np.float32(index),)

    def describe(self, index: int) -> str:
        return f"line {index}"


class Part(Subset):
    """A subset of one's own, which may do anything."""


def parts_in_each_other(whole: Any) -> Any:
    part = whole
    for _ in range(2_001):
        part = Subset(part, [4, 3, 2, 1, 0])
    return part


@pytest.mark.parametrize("whole", [ArrayDataset(np.arange(5.0)), Named()], ids=["arrays", "others"])
def test_a_part_of_a_part_of_thousands(whole: Any) -> None:
    part = parts_in_each_other(whole)
    loader = DataLoader(part, 2)
    assert [x.tolist() for (x,) in loader] == [[4.0, 3.0], [2.0, 1.0], [0.0]]
    assert describe(part, 1) == ("line 3" if isinstance(whole, Named) else "3 of the whole dataset")
    assert [*datasets_of(loader)][-1] is whole


def test_a_part_of_a_part_of_thousands_in_a_worker_process() -> None:
    part = parts_in_each_other(ArrayDataset(np.arange(5.0)))
    with closing(DataLoader(part, 2, workers=1, processes=True)) as loader:
        assert [x.tolist() for (x,) in loader] == [[4.0, 3.0], [2.0, 1.0], [0.0]]


def test_parts_of_other_kinds_are_found_without_recursion() -> None:
    part: Any = ArrayDataset(np.arange(5.0))
    for _ in range(2_001):
        part = Part(part, [4, 3, 2, 1, 0])
    read = batch_of(part)
    assert read is not None
    (found,) = read(np.arange(5))
    assert np.asarray(found).tolist() == [4, 3, 2, 1, 0]
    assert describe(part, 1) == "3 of the whole dataset"


def test_a_dataset_that_holds_itself_is_looked_at_once() -> None:
    class Looped(Named):
        @property
        def dataset(self) -> Looped:
            return self

    class Endless(Named):
        @property
        def dataset(self) -> Endless:
            return Endless()

    assert len([*datasets_of(DataLoader(Looped(), 2))]) == 1
    assert len([*datasets_of(DataLoader(Endless(), 2))]) == 1000


# Tables of many columns and texts


def test_a_table_of_many_columns() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    names = [f"gene_{n}" for n in range(20_000)]
    table = pyarrow.table({name: [1.0] for name in names})
    assert len(ParquetDataset(table, target="gene_19999")[0][0]) == 19_999


@pytest.mark.parametrize("kind", ["booleans", "categories", "dates"])
def test_many_columns_that_are_no_numbers(kind: str, tmp_path: Path) -> None:
    names = [f"column_{n}" for n in range(20_000)]
    cell = {"booleans": "yes", "categories": "red", "dates": "2024-01-01"}[kind]
    text = ",".join(names) + "\n" + ",".join([cell] * len(names)) + "\n"
    options: dict[str, Any] = {kind: names}
    dataset = CsvDataset(written(tmp_path / "a.csv", text), **options)
    assert len(dataset.features) == len(names)
    with pytest.raises(ValueError, match="only one of the kinds"):
        CsvDataset(tmp_path / "a.csv", **{"booleans": names, "dates": names, **options})


def test_many_texts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "c\n" + "".join(f"t{n}\n" for n in range(4_000)))
    dataset = CsvDataset(path, categories=["c"])
    assert len(dataset.like(path)) == 4_000


def test_texts_that_are_too_many_are_refused_as_soon_as_they_are(tmp_path: Path) -> None:
    """Not after all lines, of which the last is damaged here."""
    lines = "".join(f"t{n}\n" for n in range(300_000))
    path = written(tmp_path / "a.csv", f"c\n{lines}t,t\n")
    with pytest.raises(ValueError, match=r"'c' has 262,144 different texts in 262,144 rows, for"):
        CsvDataset(path, categories=["c"])


def test_many_texts_of_a_table_of_arrow() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"c": [f"t{n}" for n in range(20_000)]})
    with pytest.raises(ValueError, match=r"'c' has 20,000 different texts in 20,000 rows, for"):
        ParquetDataset(table, categories=["c"])


@pytest.mark.parametrize("metric", [metrics.f1, metrics.precision, metrics.recall])
def test_rates_of_many_classes_take_no_matrix(metric: Callable[..., Any]) -> None:
    """Of 10,000 classes it has 0.8 GB."""
    scores, targets = np.eye(3, 9_999, dtype=np.float32), np.array([0, 1, 9_998])
    state = metric(scores, targets)
    assert sum(part.size for part in state.parts) < 50_000
    expected = {"f1": 2 / 4, "precision": 2 / 4, "recall": 2 / 4}[metric.__name__]
    assert float(state) == expected
    assert float(state + state) == expected
    assert float(metric(scores, targets, positive=1)) == 1


def test_many_classes_of_which_one_is_there_twice(tmp_path: Path) -> None:
    classes = [str(n) for n in range(100_000)]
    with pytest.raises(ValueError, match="classes has '99999' twice"):
        CsvDataset(tmp_path / "a.csv", target="y", classes=[*classes, "99999"])


def test_a_cell_of_spaces(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "a;b\n1;" + " " * 130_000 + "x\n")
    with pytest.raises(ValueError, match=r"a\.csv:2: .* is not float32"):
        CsvDataset(path, delimiter=";", decimal=",")


@pytest.mark.parametrize("options", [{"encoding": "nonsense"}, {"delimiter": '"'}])
def test_a_format_that_there_is_not(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CsvDataset(written(tmp_path / "a.csv", "a\n1\n"), **options)


def test_damaged_parquet_files(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    random = np.random.default_rng(0)
    table = pyarrow.table({"a": random.normal(size=50), "c": ["x", "y"] * 25, "i": np.arange(50)})
    for suffix in (".parquet", ".feather"):
        path = tmp_path / f"table{suffix}"
        if suffix == ".parquet":
            parquet.write_table(table, path)
        else:
            pytest.importorskip("pyarrow.feather").write_feather(table, path)
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for place in random.integers(len(whole), size=random.integers(1, 6)):
                damaged[place] = random.integers(256)
            path.write_bytes(bytes(damaged[: random.integers(8, len(whole) + 1)]))
            error = error_of(partial(ParquetDataset, path, categories=["c"]))
            assert error is None or isinstance(error, (ValueError, OSError)), error
            assert "\x1b" not in str(error)


# Configurations


@pytest.mark.parametrize(
    "text",
    [
        ".".join(['"a b"'] * 60_000) + " = 1",
        "x = {" + ".".join("a" * 60_000) + " = 1}",
        "x = {y = 1, " + ".".join(["'a'"] * 60_000) + " = 1}",
    ],
    ids=["in quotes", "in braces", "behind a comma"],
)
def test_keys_of_many_parts(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(text)


def test_texts_with_many_points_are_no_keys() -> None:
    text = '"' + ".".join("a" * 200) + '"'
    assert len(parse_toml(f"x = {text}\ny = [1.5, {text}]\n")["y"]) == 2


def test_a_setting_of_many_parts() -> None:
    @dataclass
    class Config:
        width: int = 1

    with pytest.raises(ConfigurationError, match="nested too deeply"):
        load_configuration(Config, settings=["width." + "a." * 20_000 + "b=1"])


# Weights and states


def index_of(folder: Path, weight_map: str) -> Path:
    return written(folder / "model.safetensors.index.json", f'{{"weight_map": {weight_map}}}')


def test_the_index_of_many_weights(tmp_path: Path) -> None:
    names = ", ".join(f'"n{n}": "f"' for n in range(100_000))
    with pytest.raises(WeightsFileError, match="'n99999' is there twice"):
        read_weights(index_of(tmp_path, f'{{{names}, "n99999": "g"}}'))
    with pytest.raises(WeightsFileError, match="does not exist"):
        read_weights(index_of(tmp_path, json.dumps({"a": f"x-1-of-{'9' * 200}.safetensors"})))


@pytest.mark.parametrize("alphas", ["[1]", '"ab"', "1", "[[1, 2, 3]]"])
def test_adapters_of_which_nothing_fits(alphas: str, tmp_path: Path) -> None:
    text = f'{{"peft_type": "LORA", "lora_alpha": 1, "alpha_pattern": {alphas}}}'
    written(tmp_path / "adapter_config.json", text)
    with pytest.raises(WeightsFileError, match="is not a LoRA configuration"):
        load_lora(Sequential(Linear(1, 1)), tmp_path)


def test_adapters_in_a_pipe_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(OSError, match="not a regular file"):
        load_lora(Sequential(Linear(1, 1)), tmp_path)


def test_the_state_of_many_parameters() -> None:
    names = [f"p{n}" for n in range(4_000)]
    optimizer = SGD([Parameter(np.zeros(1, np.float32), name=n) for n in names], 0.1, momentum=0.9)
    state = torch_state(optimizer, names)
    load_torch_state(optimizer, state, names, steps=0)
    with pytest.raises(ValueError, match="'p0': named twice"):
        torch_state(optimizer, [*names, "p0"])


def test_a_torch_state_with_a_list_for_a_number() -> None:
    optimizer = SGD([Parameter(np.zeros(1, np.float32), name="w")], 0.1, momentum=0.9)
    odd = {"state": {}, "param_groups": [{"params": [[0]]}]}
    with pytest.raises(StateMismatchError, match="is it an optimizer's state_dict"):
        load_torch_state(optimizer, odd, ["w"], steps=0)


def test_the_gradient_of_thousands_that_are_joined() -> None:
    def seconds(count: int) -> float:
        weight = Parameter([1.0], name="weight")
        total = stack([weight * 1.0 for _ in range(count)]).sum()
        start = time.thread_time()
        assert total.backward()[weight].tolist() == [count]
        return time.thread_time() - start

    few = min(seconds(4_000) for _ in range(3))
    assert seconds(16_000) < 8 * few


@pytest.mark.parametrize("metric", [metrics.f1, metrics.precision, metrics.confusion_matrix])
def test_classes_that_are_too_many_for_a_matrix(metric: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"30,000 by 30,000 classes would take 7\.2 GB"):
        metric(np.zeros((2, 30_000), np.float32), np.array([0, 29_999]))


def test_a_product_of_thousands() -> None:
    schedule = constant(0.5)
    for _ in range(3_000):
        schedule = schedule * 1.0
    assert schedule(7) == 0.5
    assert ((constant(2.0) * 3.0) * constant(5.0))(1) == 30.0


# What is no regular file, and what commands a terminal


@pytest.mark.parametrize("name", ["env.json", "config.toml", "DONE"])
def test_a_pipe_in_a_run_folder_does_not_block(name: str, tmp_path: Path) -> None:
    written(tmp_path / "metrics.jsonl", '{"split": "train", "step": 1}\n')
    os.mkfifo(tmp_path / name)
    weight = Parameter(np.ones(1, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    data = [(np.ones(1, np.float32),)]
    loss = lambda x: (weight * x).sum()
    error = error_of(lambda: trainer.fit(data, loss, epochs=1, callbacks=[RunFolder(tmp_path)]))
    assert error is None or name in str(error)


def test_a_pipe_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match=r"the lock must be a regular file: remove it.*/lock'"):
        Checkpoints(tmp_path).acquire()
    (tmp_path / "lock").unlink()
    Checkpoints(tmp_path).acquire()


def tables(folder: Path) -> dict[str, Callable[[], object]]:
    pyarrow = pytest.importorskip("pyarrow")
    path = folder / "a.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.table({"a": [1.0, None], "t": ["x", "y"]}), path
    )
    written(folder / "bad.parquet", "x")
    for name, array in {
        "text": np.array(["x"]),
        "b": np.zeros((2, 3)),
        "c": np.zeros((3, 4)),
    }.items():
        np.save(folder / f"{name}.npy", array)
    return {
        "texts": lambda: ParquetDataset(path),
        "unknown": lambda: ParquetDataset(path, columns=["zz"]),
        "missing": lambda: ParquetDataset(path, columns=["a"]),
        "both": lambda: ParquetDataset(path, columns=["a"], target="a"),
        "damaged": lambda: ParquetDataset(folder / "bad.parquet"),
        "no numbers": lambda: NpyDataset(folder / "text.npy"),
        "rows": lambda: NpyDataset([folder / "b.npy", folder / "c.npy"]),
        "lengths": lambda: NpyDataset(folder / "b.npy", folder / "c.npy"),
        "no run": lambda: load_model(folder / "none", Linear(1, 1)),
    }


def test_a_path_cannot_command_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / f"d{ESCAPE}"
    folder.mkdir()
    for name, use in tables(folder).items():
        with pytest.raises((ValueError, OSError)) as caught:
            use()
        assert "\x1b" not in str(caught.value), name


def test_runs_cannot_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / f"{name}{ESCAPE}" for name in "ab"]
    for number, run in enumerate(runs):
        run.mkdir()
        lines: list[dict[str, Any]] = [
            {"split": "train", "step": 1, "loss": 1.0 + number},
            {"split": "validation", "step": 1, "metrics": {f"acc{ESCAPE}": 1.0}, "best": True},
            {"split": "end", "step": 1, "reason": f"why{ESCAPE}"},
        ]
        written(run / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        written(run / "config.toml", f'x = "{number}\\u001b[2J"\n')
        written(run / "env.json", json.dumps({"starts": [{"seed": f"{number}{ESCAPE}"}]}))
    for command in (
        ["list", str(tmp_path)],
        ["compare", *map(str, runs)],
        ["doctor", str(runs[0])],
    ):
        assert main(command) == 0
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err, command
        assert "\\x1b" in printed.out


# Sizes that no memory holds, before anything loops over them


@pytest.mark.parametrize("size", [10**30, 10**9])
@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda n: GRU(2, 2, layers=n), "GRU: layers must be at most 10000, not 10"),
        (lambda n: LSTM(2, 2, layers=n), "LSTM: layers must be at most 10000, not 10"),
        (lambda n: Muon([Parameter(np.ones((2, 2)), name="w")], 0.1, iterations=n),
         "iterations must be at most 1000"),
        (lambda n: split(ones((6, 2)), n), "split: 10* does not split axis 0"),
        (lambda n: StreamLoader([1.0], 1, prefetch=n), "prefetch must be at most 65536"),
    ],
    ids=["GRU", "LSTM", "Muon", "split", "prefetch"],
)  # fmt: skip
def test_a_number_of_rounds_is_limited(use: Callable[[int], object], told: str, size: int) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=told):
        use(size)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "use",
    [
        lambda n: zeros(n),
        lambda n: ones((2, n)),
        lambda n: Linear(n, 2),
        lambda n: Linear(2, n),
        lambda n: GRU(2, n),
        lambda n: Generator(0).normal((n,)),
    ],
)
def test_a_shape_beyond_any_memory_is_shown(use: Callable[[int], object]) -> None:
    with pytest.raises(ValueError, match=r"the shape \(.*0{30}.*\) has more elements than any"):
        use(10**30)


def test_a_stream_has_sizes_of_the_machine() -> None:
    for name in ("batch_size", "shuffle"):
        options: dict[str, Any] = {"batch_size": 1, name: 10**30}
        with pytest.raises(ValueError, match=f"{name} must be at most"):
            StreamLoader([1.0], **options)
    with pytest.raises(ValueError, match="has more elements than any memory"):
        Upsample(size=10**30)(ones((1, 1, 2)))
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"interpolate: the shape .* has more elements than any"):
        Upsample(scale_factor=1e9)(ones((1, 1, 2, 2)))
    assert time.perf_counter() - started < 1


def test_more_workers_than_batches_have_nothing_to_do() -> None:
    given: list[dict[str, Any]] = [{"workers": 10**30}, {"workers": 1, "prefetch": 10**30}]
    for options in given:
        batches = DataLoader(ArrayDataset(np.arange(4)), 2, **options)
        assert [x.tolist() for (x,) in batches] == [[0, 1], [2, 3]]


# Paths that none can be


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda path: CsvDataset(path), "CsvDataset: path must"),
        (lambda path: ParquetDataset(path), "ParquetDataset: table must"),
        (lambda path: NpyDataset(path), "a path must"),
        (lambda path: ImageFolder(path), "ImageFolder: folder must"),
        (lambda path: Checkpoints(path), "Checkpoints: folder must"),
        (lambda path: RunFolder(path), "RunFolder: path must"),
        (lambda path: save_state(Plateau(0.1), path), "save_state: path must"),
        (lambda path: load_state(Plateau(0.1), path), "load_state: path must"),
    ],
)
def test_a_path_that_none_can_be(use: Callable[[Any], object], name: str) -> None:
    for letter, said in (
        ("\0", "a NUL character"),
        ("\ud800", r"'\\ud800', which no name of a file"),
    ):
        for path in (f"a{letter}b", Path(f"a{letter}b")):
            with pytest.raises(ValueError, match=f"{name} not have {said}"):
                use(path)


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda: Checkpoints(""), "Checkpoints: folder"),
        (lambda: small_fit(checkpoints=""), "Trainer.fit: checkpoints"),
        (lambda: small_fit(resume=""), "resume"),
        (lambda: RunFolder(""), "RunFolder: path"),
        (lambda: ImageFolder(""), "ImageFolder: folder"),
        (lambda: CsvDataset(""), "CsvDataset: path"),
        (lambda: save_state(Plateau(0.1), ""), "save_state: path"),
        (lambda: Linear(1, 1).save_file(""), "Linear.save_file: path"),
        (lambda: save_lora(lora(Sequential(Linear(2, 2)), 1), ""), "save_lora: folder"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    use: Callable[[], object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an environment variable that is not set: checkpoints went to the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{name} must not be empty: the current folder is"):
        use()
    assert list(tmp_path.iterdir()) == []
    small_fit(checkpoints=".")  # which asks for it by name
    assert (tmp_path / "lock").exists()


def small_fit(**options: Any) -> None:
    model = Linear(1, 1)
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
    data = [(np.ones((2, 1), np.float32),)]
    trainer.fit(data, lambda x: model(x).mean(), epochs=1, progress=None, **options)


@pytest.mark.parametrize("given", [3, None, b"x", [1], np.ones(2)])
def test_what_is_neither_a_file_nor_a_table(given: Any) -> None:
    with pytest.raises(TypeError, match=r"table must be a file or a pyarrow\.Table, not"):
        ParquetDataset(given)


@pytest.mark.parametrize("wrong", [None, [1], 3])
@pytest.mark.parametrize("kind", ["loader", "stream", "stopping", "plateau", "feed", "scaling"])
def test_a_state_that_is_no_dict_is_a_type_error(kind: str, wrong: Any) -> None:
    """As for optimizers: a checkpoint that lacks a part gives None, which had no attribute get."""
    made: dict[str, Callable[[], Any]] = {
        "loader": lambda: DataLoader(ArrayDataset(np.zeros(4)), 2),
        "stream": lambda: StreamLoader([1.0], 1),
        "stopping": lambda: EarlyStopping("loss", mode="min"),
        "plateau": lambda: Plateau(0.1),
        "feed": lambda: FeedPlateau(Plateau(0.1, mode="min"), "loss"),
        "scaling": lambda: Scaling(LossScale()),
    }
    with pytest.raises(TypeError, match="load_state_dict: state must be a dict, not"):
        made[kind]().load_state_dict(wrong)
