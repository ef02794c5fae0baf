"""What all data of one model must mean alike, beyond the validation of `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matrix_model import MatrixModel

from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import (
    ArrayDataset,
    CsvDataset,
    DataLoader,
    ImageFolder,
    ParquetDataset,
    Subset,
    Trainer,
    metrics,
    random_split,
)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def drawn(folder: Path, *names: str) -> Path:
    image = pytest.importorskip("PIL.Image")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (2, 2)).save(folder / name)
    return folder


def fitted(dataset: Any, inputs: int, **options: Any) -> Trainer[Any]:
    model = MatrixModel(np.ones((inputs, 2)))
    trainer = Trainer(SGD([model.weight], 0.0), state={"model": model})
    loss = lambda x, *y: model(x).mean()
    trainer.fit(DataLoader(dataset, 2), loss, epochs=options.pop("epochs", 1), **options)
    return trainer


# Names whose order counts


@pytest.mark.parametrize("kind", [set, frozenset, lambda names: dict.fromkeys(names, 0)])
def test_a_set_or_a_mapping_is_no_order(kind: Callable[[Any], Any], tmp_path: Path) -> None:
    path = written(tmp_path / "f.csv", "x,y,kind\n1,2,a\n3,4,b\n")
    given: list[tuple[str, Any]] = [
        ("classes", {"target": "kind", "target_dtype": str, "classes": kind("ab")}),
        ("columns", {"columns": kind("xy")}),
        ("header", {"header": kind(["x", "y", "kind"])}),
        (r"categories\['kind'\]", {"categories": {"kind": kind("ab")}}),
    ]
    for name, options in given:
        with pytest.raises(TypeError, match=rf"{name} must be a list, since its order counts"):
            CsvDataset(path, **options)
    with pytest.raises(TypeError, match="classes must be a list, since its order counts"):
        ImageFolder(drawn(tmp_path / "images", "a/1.png"), classes=kind("ab"))


def test_names_in_any_ordered_form(tmp_path: Path) -> None:
    path = written(tmp_path / "f.csv", "x,y,kind\n1,2,a\n3,4,b\n")
    names: Any
    for names in (("b", "a"), np.array(["b", "a"]), {"b": 0, "a": 1}.keys(), iter("ba")):
        table = CsvDataset(path, columns=["x"], target="kind", target_dtype=str, classes=names)
        assert table.classes == ["b", "a"]


def test_a_column_is_given_once(tmp_path: Path) -> None:
    path = written(tmp_path / "f.csv", "x,y,z\n1,2,3\n")
    with pytest.raises(ValueError, match="columns has 'x' twice"):
        CsvDataset(path, columns=["x", "y", "x"])
    with pytest.raises(ValueError, match="target has 'y' twice"):
        CsvDataset(path, target=["y", "y"])


# Images


@pytest.mark.parametrize("others", [("Cat/1.png", "dog/1.png"), ("dog/1.png", "cow/1.png")])
def test_a_folder_that_is_no_class_is_not_class_0(tmp_path: Path, others: tuple[str, str]) -> None:
    train = ImageFolder(drawn(tmp_path / "train", "cat/1.png", "dog/1.png"))
    with pytest.raises(ValueError, match="is not in classes"):
        train.like(drawn(tmp_path / "test", *others))
    assert train.like(drawn(tmp_path / "part", "dog/1.png")).labels == [1]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("1.png", "2.png"), None),
        (("train/1.png", "test/deep/1.png"), None),
        (("train/cat/1.png", "test/cat/1.png"), "have no labels, .*; cat is in (test|train): give"),
    ],
)
def test_images_outside_of_classes_have_no_labels(
    tmp_path: Path, names: tuple[str, str], told: str | None
) -> None:
    train = ImageFolder(drawn(tmp_path / "train", "cat/1.png", "dog/1.png"))
    folder = drawn(tmp_path / "new", *names)
    with nullcontext() if told is None else pytest.warns(UserWarning, match=told):
        new = train.like(folder)
    assert len(new) == 2
    assert len(new[0]) == 1
    batch = next(iter(DataLoader(new, 2)))
    assert [field.shape for field in batch] == [(2, 2, 2, 3)]


# Tables


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_that_are_numbers_are_in_the_order_of_texts(kind: str, tmp_path: Path) -> None:
    def read(count: int, **options: Any) -> Any:
        if kind == "csv":
            lines = ["x,y", *(f"{n},{n}" for n in range(count))]
            path = written(tmp_path / "table.csv", "\n".join([*lines, ""]))
            return CsvDataset(path, target="y", target_dtype=str, **options)
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({"x": np.arange(float(count)), "y": np.arange(count)})
        return ParquetDataset(table, target="y", target_dtype=str, **options)

    with pytest.warns(UserWarning, match="class 2 is the text 10") as found:
        assert read(11).classes[2] == "10"
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(10)
        read(11, classes=[str(n) for n in range(11)])


def test_a_header_line_is_no_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "Color,kind\nred,a\nblue,b\n")
    options: dict[str, Any] = {"target": "kind", "target_dtype": str, "categories": ["color"]}
    with pytest.raises(ValueError, match=r"a\.csv:1: the line has the names that header= gives"):
        CsvDataset(path, header=["color", "kind"], **options)
    written(path, "red,a\nblue,b\n")
    assert len(CsvDataset(path, header=["color", "kind"], **options)) == 2
    assert len(CsvDataset(written(path, "0,1\n5,6\n"), header=["0", "1"])) == 2


ONE = "p,q,u,v\n1,10,1,0\n2,20,0,1\n3,30,1,1\n"
TWO = "p,q,u,v\n5,50,1,0\n6,60,0,1\n"


@pytest.mark.parametrize(
    ("train", "other", "told"),
    [
        (
            {"columns": ["p", "q"], "standardize": True},
            {"columns": ["p", "q"], "standardize": True},
            "have means of their own",
        ),
        ({"columns": ["p", "q"]}, {"columns": ["q", "p"]}, "differ from 0 on"),
        (
            {"columns": ["p"], "missing": -1.0},
            {"columns": ["p"], "missing": 0.0},
            "missing is -1.0 for training and 0.0 for this loader",
        ),
        (
            {"columns": ["p"], "target": ["u", "v"]},
            {"columns": ["p"], "target": ["v", "u"]},
            "the targets of training are",
        ),
    ],
)
def test_predictions_need_the_features_of_the_training(
    train: Any, other: Any, told: str, tmp_path: Path
) -> None:
    one, two = written(tmp_path / "one.csv", ONE), written(tmp_path / "two.csv", TWO)
    dataset = CsvDataset(one, **train)
    trainer = fitted(dataset, len(dataset.features))
    own = CsvDataset(two, **other)
    for loader in (DataLoader(own, 2), DataLoader(Subset(own, [0, 1]), 2)):
        with pytest.raises(ValueError, match=told):
            trainer.predict(loader)
        with pytest.raises(ValueError, match=told):
            trainer.evaluate(loader, lambda *batch: 1.0)
    assert len(trainer.predict(DataLoader(dataset.like(two), 2))) == 2
    assert len(trainer.predict(DataLoader(ArrayDataset(np.ones((2, len(own.features)))), 2))) == 2


def test_metrics_need_the_classes_of_the_training(tmp_path: Path) -> None:
    def read(name: str, text: str, **options: Any) -> CsvDataset:
        path = written(tmp_path / name, text)
        return CsvDataset(path, target="y", target_dtype=str, **options)

    train = read("train.csv", "x,y\n1,a\n2,b\n")
    trainer = fitted(train, 1)
    lacking = DataLoader(read("test.csv", "x,y\n1,b\n"), 2)
    with pytest.raises(ValueError, match="of training and this loader differ from number 0"):
        trainer.evaluate(lacking, [metrics.accuracy])
    shared = read("test.csv", "x,y\n1,b\n", classes=train.classes)
    assert trainer.evaluate(DataLoader(shared, 2), [metrics.accuracy]) == {"accuracy": 0.0}


def resumed(folder: Path, make: Callable[[str], Any], *texts: str) -> None:
    for epochs, text in enumerate(texts, start=1):
        dataset = make(text)
        fitted(dataset, 1, epochs=epochs, checkpoints=folder / "checkpoints", resume="auto")


@pytest.mark.parametrize(
    ("options", "texts", "told"),
    [
        (
            {"target": "y", "target_dtype": str},
            ("x,y\n1,a\n2,b\n", "x,y\n1,0\n2,a\n"),
            r"loader\.classes was a, b and is 0, a",
        ),
        ({"standardize": True}, ("x\n1\n2\n", "x\n10\n20\n"), r"loader\.means was"),
        ({}, ("x\n1\n2\n", "z\n1\n2\n"), r"loader\.features was x and is z"),
    ],
    ids=["classes", "means", "features"],
)
def test_a_run_that_goes_on_with_other_data_says_so(
    options: Any, texts: tuple[str, str], told: str, tmp_path: Path
) -> None:
    make = lambda text: CsvDataset(written(tmp_path / "table.csv", text), **options)
    with pytest.warns(UserWarning, match=told):
        resumed(tmp_path, make, *texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed(tmp_path / "same", make, texts[0], texts[0])


def test_another_validation_set_of_the_same_size_is_told_of(tmp_path: Path) -> None:
    """Such as that of another fold, with whose values the best of the first is not comparable."""

    def fit(folder: str, seed: int | None, epochs: int, offset: float = 0.0) -> None:
        weight = Parameter(np.zeros(1, np.float32), name="weight")
        data = ArrayDataset(np.arange(20, dtype=np.float32).reshape(20, 1) + offset)
        held_out = data if seed is None else random_split(data, [0.5, 0.5], seed=seed)[1]

        def loss(x: Any) -> Any:
            return ((weight - x) ** 2).mean()

        Trainer(SGD([weight], 0.01)).fit(
            DataLoader(ArrayDataset(np.ones((4, 1), np.float32)), 2), loss, epochs=epochs,
            validate=(DataLoader(held_out, 5), loss), checkpoints=tmp_path / folder, resume="auto",
        )  # fmt: skip

    fit("split", 1, 1)
    with pytest.warns(UserWarning, match=r"validation\.checksum was \w{8} and is \w{8}"):
        fit("split", 2, 2)
    fit("whole", None, 1)
    with pytest.warns(UserWarning, match=r"validation\.checksum was \w{8} and is \w{8}"):
        fit("whole", None, 2, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit("split", 2, 3)
        fit("whole", None, 3, 0.5)


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
def test_splits_have_their_columns_in_one_order(kind: str) -> None:
    """Dummies of two splits, or frames of two queries, may have others, or the same elsewhere."""
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")

    def loader(names: str, count: int = 4) -> DataLoader:
        frame = pandas.DataFrame({name: np.arange(float(count)) for name in names})
        x = frame if kind == "pandas" else pyarrow.table(frame)
        return DataLoader(Subset(ArrayDataset(x, np.zeros(count)), range(count)), 2)

    weight = Parameter(np.zeros(2, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 0.1))

    def loss(x: Any, y: Any) -> Any:
        return ((weight * x).sum(1) - y).mean()

    told = "columns of training and validation differ from number 0 on: .* give both the same ones"
    for other in ("ba", "bc"):
        with pytest.raises(ValueError, match=told):
            trainer.fit(loader("ab"), loss, epochs=1, validate=(loader(other), loss))
    trainer.fit(loader("ab"), loss, epochs=1, validate=(loader("ab"), loss))
    plain = DataLoader(ArrayDataset(np.zeros((4, 2)), np.zeros(4)), 2)
    trainer.fit(loader("ab"), loss, epochs=1, validate=(plain, loss))


def test_a_table_and_a_frame_have_their_columns_in_one_order(tmp_path: Path) -> None:
    frame = pytest.importorskip("pandas").DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    weight = Parameter(np.zeros(2, np.float32), name="weight")
    trainer = Trainer(SGD([weight], 0.1))

    def loss(x: Any, y: Any) -> Any:
        return ((weight * x).sum(1) - y).mean()

    train = DataLoader(ArrayDataset(frame, np.zeros(2)), 2)
    for names, told in (("a,b,y", None), ("b,a,y", "columns of training and validation differ")):
        table = CsvDataset(written(tmp_path / "v.csv", f"{names}\n1,2,3\n4,5,6\n"), target="y")
        with nullcontext() if told is None else pytest.raises(ValueError, match=told):
            trainer.fit(train, loss, epochs=1, validate=(DataLoader(table, 2), loss))


def test_images_of_both_splits_have_one_mode(tmp_path: Path) -> None:
    """Pixels of 16 bits have other values than those of 8."""
    train = ImageFolder(drawn(tmp_path / "train", "cat/1.png", "dog/1.png"))
    test = ImageFolder(drawn(tmp_path / "test", "cat/1.png", "dog/1.png"), mode="L")
    weight = Parameter(np.zeros(1, np.float32), name="weight")
    with pytest.raises(ValueError, match="images of training have mode RGB, those of validation m"):
        Trainer(SGD([weight], 0.1)).fit(
            DataLoader(train, 2), lambda x, y: weight.sum(), epochs=1,
            validate=(DataLoader(test, 2), lambda x, y: weight.sum()),
        )  # fmt: skip


# Numbers of a training and of what it is measured on


PIXELS = np.random.default_rng(0).integers(0, 256, (64, 8)).astype(np.uint8)
LABELS = np.zeros(64, np.int64)


def scaled(sample: Any, _: np.random.Generator) -> Any:
    return np.float32(sample[0]) / 255, *sample[1:]


@pytest.mark.parametrize(
    ("training", "validation", "told"),
    [
        ((PIXELS / 255, LABELS), (PIXELS, LABELS), r"floating numbers \(float64\) in training and "
         r"whole ones \(uint8\) in the data that are measured"),
        ((PIXELS / 255, LABELS), (PIXELS * 1.0, LABELS), r"numbers of about 0.5\d? in training and"
         r" of 1\.[34]e\+02 in the"),
        ((PIXELS.astype(np.uint16) * 257, LABELS), (PIXELS, LABELS), r"numbers of about 3.5e\+04"),
        ((PIXELS, LABELS), (PIXELS > 100, LABELS), r"whole .* and true or false ones \(bool\)"),
    ],
)  # fmt: skip
def test_numbers_of_another_kind_or_scale_are_told_of(
    training: Any, validation: Any, told: str
) -> None:
    model = MatrixModel(np.ones((8, 2)))
    trainer = Trainer(SGD([model.weight], 0.0), state={"model": model})
    loss = lambda x, y: model(x).mean()
    loaders = [DataLoader(ArrayDataset(*arrays), 64) for arrays in (training, validation)]
    with pytest.warns(UserWarning, match=f"field 0 of the batches holds {told}") as said:
        trainer.fit(loaders[0], loss, epochs=3, validate=(loaders[1], loss))
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(loaders[0], loss, epochs=1, validate=(loaders[0], loss))
    with pytest.warns(UserWarning, match="field 0 of the batches holds .* those that are predi"):
        trainer.predict(DataLoader(ArrayDataset(validation[0]), 64))


def test_a_transform_that_the_validation_lacks_is_told_of() -> None:
    model = MatrixModel(np.ones((8, 2)))
    trainer = Trainer(SGD([model.weight], 0.0), state={"model": model})
    loss = lambda x, y: model(x).mean()
    dataset = ArrayDataset(PIXELS, LABELS)
    loaders = DataLoader(dataset, 16, transform=scaled), DataLoader(dataset, 16)
    with pytest.warns(UserWarning, match=r"field 0 .* floating numbers \(float32\) in training"):
        trainer.fit(loaders[0], loss, epochs=1, validate=(loaders[1], loss))


def test_targets_with_another_axis_are_told_of() -> None:
    """A mean of (n, 1) - (n,) is one of n * n differences."""
    model = MatrixModel(np.ones((8, 2)))
    trainer = Trainer(SGD([model.weight], 0.0), state={"model": model})
    loss = lambda x, y: model(x).mean()
    loaders = [DataLoader(ArrayDataset(PIXELS, np.ones(shape)), 64) for shape in ((64,), (64, 1))]
    with pytest.warns(UserWarning, match="field 1 of the batches has 1 axes in training and 2 in"):
        trainer.fit(loaders[0], loss, epochs=1, validate=(loaders[1], loss))


def test_numbers_that_are_alike_are_not_told_of() -> None:
    """Other widths, targets that became probabilities, and sizes of a part."""
    model = MatrixModel(np.ones((8, 2)))
    trainer = Trainer(SGD([model.weight], 0.0), state={"model": model})
    loss = lambda x, y: model(x).mean()
    real = np.random.default_rng(0).lognormal(0, 3, (64, 8))
    pairs: list[tuple[tuple[Any, Any], tuple[Any, Any]]] = [
        ((real, LABELS), (np.float32(real), LABELS.astype(np.int32))),
        ((real, np.eye(2)[LABELS]), (real, LABELS)),
        ((real, LABELS), (real[::-1][:16], LABELS[:16])),
        ((real, LABELS), (real[:3], LABELS[:3])),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for training, validation in pairs:
            loaders = [DataLoader(ArrayDataset(*each), 64) for each in (training, validation)]
            trainer.fit(loaders[0], loss, epochs=1, validate=(loaders[1], loss))


def test_samples_of_the_training_in_its_validation_are_told_of() -> None:
    whole = ArrayDataset(np.ones((10, 3)))
    first, both = Subset(whole, range(6)), Subset(whole, range(4, 10))
    loss = lambda x: x.mean()
    training: Any
    validation: Any
    for training, validation, told in ((first, both, "2 of 6"), (whole, both, "6 of 6")):
        with pytest.warns(UserWarning, match=f"validate: {told} samples are trained on, too"):
            fitted(training, 3, validate=(DataLoader(validation, 2), loss))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for training, validation in (
            random_split(whole, [0.5, 0.5]),
            (first, Subset(whole, range(6))),
            (whole, whole),
            (first, ArrayDataset(np.ones((4, 3)))),
        ):
            fitted(training, 3, validate=(DataLoader(validation, 2), loss))
