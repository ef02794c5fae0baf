"""`predict` and `evaluate`: their results for a loader, and what they leave unchanged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from matrix_model import MatrixModel

from rumus.optim import EMA, SAM, SGD
from rumus.tensor import Parameter, Tensor
from rumus.train import ArrayDataset, DataLoader, Trainer, evaluate, metrics, predict

X = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
Y = np.arange(10) % 3


def scoring_model() -> MatrixModel:
    """A model that scores three classes."""
    return MatrixModel([[1.0, 0.0, -1.0], [0.5, -0.5, 0.0]])


def test_predictions_are_in_the_order_of_the_samples() -> None:
    model = scoring_model()
    trainer = Trainer(SGD([model.weight], 0.1), state={"model": model})
    expected = X @ model.weight.numpy()
    for size in (1, 3, 10):
        loader = DataLoader(ArrayDataset(X, Y), size)
        for found in (predict(model, loader), trainer.predict(loader)):
            assert found.dtype == np.float32
            assert np.allclose(found, expected, atol=1e-6)
    both = trainer.predict(loader, lambda x, y: {"class": model(x).argmax(1), "pair": (x, y)})
    assert (both["class"] == expected.argmax(1)).all()
    assert (both["pair"][0] == X).all()
    assert (both["pair"][1] == Y).all()


def test_a_loader_is_where_it_was_before() -> None:
    loader = DataLoader(ArrayDataset(X, Y), 4)
    loader.seek(7)
    predict(scoring_model(), loader)
    evaluate(scoring_model(), loader, [metrics.accuracy])
    assert (loader.epoch, loader.batch) == (7, 0)


def test_evaluation_is_that_of_the_whole_set() -> None:
    model = scoring_model()
    trainer = Trainer(SGD([model.weight], 0.1), state={"model": model})
    scores = X @ model.weight.numpy()
    expected = {
        "f1": float(metrics.f1(scores, Y)),
        "accuracy": float((scores.argmax(1) == Y).mean()),
    }
    named: dict[str, Callable[..., Any]] = {"f1": metrics.f1, "accuracy": metrics.accuracy}
    of_batch = lambda x, y: {name: metric(model(x), y) for name, metric in named.items()}
    for size in (3, 10):
        loader = DataLoader(ArrayDataset(X, Y), size)
        assert trainer.evaluate(loader, [metrics.f1, metrics.accuracy]) == pytest.approx(expected)
        assert evaluate(model, loader, named) == pytest.approx(expected)
        assert trainer.evaluate(loader, of_batch) == pytest.approx(expected)


@pytest.mark.parametrize("wrap", [lambda o: o, SAM], ids=["plain", "SAM"])
def test_the_trainer_shows_the_average(wrap: Callable[[Any], Any]) -> None:
    weight = Parameter([1.0], name="weight")
    optimizer = SGD([weight], 0.25, average=EMA(0.5))
    trainer = Trainer(wrap(optimizer))
    for _ in range(2):
        trainer.train_step(lambda: (weight * weight).sum())
    trained = weight.tolist()
    with optimizer.eval_params():
        average = weight.tolist()
    assert average != trained
    assert trainer.predict([(np.ones(1),)], lambda x: x * weight).tolist() == average
    assert weight.tolist() == trained


def test_no_graph_is_made() -> None:
    weight = Parameter([1.0], name="weight")

    def look(x: Tensor) -> Tensor:
        assert not (x * weight).requires_grad
        return x

    predict(look, [(np.ones(1),)])


def refused(error: type[Exception], match: str, act: Callable[[], object]) -> None:
    with pytest.raises(error, match=match):
        act()


def test_bad_input() -> None:
    model, whole = scoring_model(), ArrayDataset(X, Y)
    shuffled, left = DataLoader(whole, 4, shuffle=True), DataLoader(whole, 4)
    next(iter(left))
    plain = Trainer(SGD([model.weight], 0.1))
    refused(ValueError, "shuffles", lambda: predict(model, shuffled))
    refused(ValueError, "middle of an epoch", lambda: predict(model, left))
    refused(ValueError, "middle of an epoch", lambda: evaluate(model, left, [metrics.f1]))
    refused(ValueError, "yields nothing", lambda: predict(model, []))
    refused(ValueError, "yields nothing", lambda: evaluate(model, [], [metrics.f1]))
    refused(ValueError, "names no module", lambda: plain.predict([(X,)]))
    refused(ValueError, "first axis must be the samples",
            lambda: predict(lambda x: x.mean(), [(X,)]))  # fmt: skip
    refused(TypeError, "not list", lambda: predict(lambda x: [x], [(X,)]))
    widths = iter((2, 1))
    refused(ValueError, "pad them", lambda: predict(lambda x: x[:, : next(widths)], [(X,), (X,)]))
    refused(ValueError, "is empty", lambda: evaluate(model, [(X, Y)], []))
    refused(ValueError, "two metrics", lambda: evaluate(model, [(X, Y)], [metrics.f1] * 2))
    refused(ValueError, "the batch has none", lambda: evaluate(model, [(X,)], [metrics.f1]))
    refused(ValueError, r"\(samples, classes\)", lambda: evaluate(model, [(X, X)], [metrics.f1]))
    refused(ValueError, r"in \[0, 3\)", lambda: evaluate(model, [(X, Y + 1)], [metrics.f1]))


@pytest.mark.parametrize("metric", [metrics.accuracy, partial(metrics.accuracy, top=2)])
def test_a_metric_alone_gets_no_batch(metric: Any) -> None:
    """It would compare the inputs with the targets."""
    model, data = MatrixModel(np.eye(4)), [(np.eye(4, dtype=np.float32), np.arange(4))]
    trainer = Trainer(SGD([Parameter([1.0])], 0.1), state={"model": model})
    told = r"accuracy gets a batch as it is, .* without a model: write "
    for act in (trainer.evaluate, lambda *given: evaluate(lambda x: x, *given)):
        with pytest.raises(TypeError, match=rf"{told}\[accuracy\], a list"):
            act(data, metric)
    with pytest.raises(TypeError, match=rf"{told}validate=\(loader, lambda x, y: accuracy"):
        trainer.fit(data, lambda x, y: x.sum(), epochs=1, validate=(data, metric))


def test_a_function_of_ones_own_gets_the_batch() -> None:
    data = [(np.eye(4, dtype=np.float32), np.arange(4))]
    assert evaluate(lambda x: x, data, [metrics.accuracy]) == {"accuracy": 1.0}
    assert evaluate(lambda x: x, data, lambda x, y: metrics.accuracy(x, y)) == {"accuracy": 1.0}
    assert evaluate(lambda x: x, data, partial(_scores, 1)) == {"loss": 1.0}


def _scores(number: float, x: Tensor, y: Tensor) -> float:
    return number
