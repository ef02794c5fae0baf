"""Hugging Face datasets work unchanged, by index and as a stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Generator, Tensor
from rumus.train import ArrayDataset, DataLoader, Pad, SampleError, StreamLoader, Trainer

datasets: Any = pytest.importorskip("datasets")

X = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
Y = np.arange(10) % 2


def whole() -> Any:
    return datasets.Dataset.from_dict(
        {"x": X.tolist(), "label": Y.tolist(), "text": ["a"] * 10, "tokens": [[1] * n for n in Y]}
    )


def trained(loader: Any, epochs: int | None, steps: int | None = None) -> bytes:
    model = nn.Linear(3, 2, generator=Generator(0))
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})

    def loss(x: Tensor, label: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x.astype(np.float32)), label)

    trainer.fit(loader, loss, epochs=epochs, steps=steps)
    return model.weight.numpy().tobytes()


@pytest.mark.parametrize("format", [None, "numpy"])
def test_by_number(format: str | None) -> None:
    given = whole().select_columns(["x", "label"]).with_format(format)
    loader = DataLoader(given, 4, shuffle=True, seed=3)
    batch = next(iter(loader))
    assert {name: value.shape for name, value in batch.items()} == {"x": (4, 3), "label": (4,)}
    arrays = DataLoader(ArrayDataset(X, Y), 4, shuffle=True, seed=3)
    loader.seek(0)
    assert trained(loader, 3) == trained(arrays, 3)


def test_columns_that_are_not_numbers_or_differ_in_length() -> None:
    with pytest.raises(SampleError, match=r"text: <U1\[\]"):
        next(iter(DataLoader(whole(), 4)))
    tokens = DataLoader(whole().select_columns(["tokens"]), 4, collate=Pad(mask=True))
    assert next(iter(tokens))["mask"].tolist() == [[False], [True], [False], [True]]


def test_as_a_stream() -> None:
    given = whole().select_columns(["x", "label"])
    make: Callable[[], StreamLoader] = lambda: StreamLoader(
        given.to_iterable_dataset(num_shards=2), 3
    )
    loader = make()
    every = [batch["x"] for batch in loader]  # type: ignore[call-overload]
    assert np.allclose(np.concatenate(every), X)
    for position in range(len(every)):
        first = make()
        list(islice(iter(first), position))
        again = make()
        again.load_state_dict(first.state_dict())
        rest = [batch["x"] for batch in again]  # type: ignore[call-overload]
        assert [part.tolist() for part in rest] == [part.tolist() for part in every[position:]]


def test_splits_number_their_labels_alike() -> None:
    def split(*names: str) -> DataLoader:
        given = whole().select_columns(["x", "label"])
        return DataLoader(given.cast_column("label", datasets.ClassLabel(names=list(names))), 5)

    def fit(validation: DataLoader) -> Trainer[Any]:
        model = nn.Linear(3, 2, generator=Generator(0))
        trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
        loss = lambda x, label: nn.cross_entropy_loss(model(x), label)
        trainer.fit(split("cat", "dog"), loss, epochs=1, validate=(validation, loss))
        return trainer

    with pytest.raises(ValueError, match=r"classes of training and validation .* number 0 on"):
        fit(split("dog", "cat"))
    trainer = fit(split("cat", "dog"))
    with pytest.raises(ValueError, match="classes of training and"):
        trainer.evaluate(split("dog", "cat"), lambda x, label: x.mean())
