"""`predict` and `evaluate`: a model's predictions for a loader, and their metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import Backend, Tensor, cpu
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.graph.evaluation import evaluating
from rumus.train.base.calling import call
from rumus.train.data.batch_numbers import BatchNumbers
from rumus.train.data.batches import arguments, check_loader, samples, whole_epoch
from rumus.train.data.sample_order import (
    require_own_samples,
    require_rows_of_samples,
    warn_of_other_samples,
)
from rumus.train.loop.validation import check_of_batch, measure, on_backend

Prediction: TypeAlias = Any  # an array, or a tuple or dict of predictions
Metric: TypeAlias = Callable[..., Any]  # of (predictions, targets)
# What to measure: a function of the batch, a sequence of metrics, or metrics by name.
Metrics: TypeAlias = Callable[..., Any] | Mapping[str, Metric] | Sequence[Metric]

_TARGETS: Final = "target", "targets", "label", "labels", "y"  # how a dict may call them


@checked_first
def predict(
    model: Callable[..., Any],
    loader: Iterable[Any],
    predict_fn: Callable[..., Any] | None = None,
) -> Prediction:
    """Return a model's predictions for all samples of a loader, in order, as NumPy arrays.

    model: called with the first array of each batch (of a dict, with the entries that its `forward`
        names), in evaluation mode and without a graph. A tensor becomes an array with one row per
        sample; tuples and dicts of tensors become tuples and dicts of arrays.
    loader: yields batches as for `Trainer.fit`; its position is unchanged afterwards.
    predict_fn: called with the whole batch instead, if the model needs more than the first array or
        you want another output: `lambda x, mask: model(x, mask).argmax(-1)`.

    Raises ValueError for a loader that shuffles, has a sampler, mixes or leaves out samples, is in
    the middle of an epoch, or yields nothing, and for a batch whose predictions and samples differ
    in number. Raises TypeError for a result without arrays. `Trainer.predict` also uses the
    optimizer's average.

    >>> import numpy as np
    >>> from rumus.train import predict
    >>> predict(lambda x: x * 2.0, [(np.array([1.0, 2.0]),), (np.array([3.0]),)]).tolist()
    [2.0, 4.0, 6.0]
    """
    _check_model("predict", model)
    check_loader("predict", loader)
    with evaluating():
        return predictions(loader, backend_of_model(model), predict_fn or of_first(model))


@checked_first
def evaluate(
    model: Callable[..., Any],
    loader: Iterable[Any],
    metrics: Metrics,
    *,
    weight_of: Callable[..., float] | None = None,
) -> dict[str, float]:
    """Return metrics of a model over all samples of a loader, in evaluation mode.

    model: called with each batch's inputs.
    loader: of batches.
    metrics: a sequence of functions of (scores, targets), such as those of `rumus.train.metrics`
        and the losses of `rumus.nn`, or a mapping of names to them. They get the model's output for
        the first array of a batch, and its last array (of a dict, its "target", "targets", "label",
        "labels" or "y"). A single function gets the whole batch and returns a number, or several by
        name, as for `validate=` of `Trainer.fit`. Numbers are averaged over the samples; metrics
        are exact over the whole set.
    weight_of: returns the weight of a batch in the means, as in `Trainer.fit`.

    Raises ValueError for a loader that yields nothing, mixes samples, or is in the middle of an
    epoch, and for a dict with several fields that may be the target.

    >>> import numpy as np
    >>> from rumus.train import evaluate, metrics
    >>> data = [(np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([1, 1]))]
    >>> evaluate(lambda x: x, data, [metrics.accuracy])
    {'accuracy': 0.5}
    """
    _check_model("evaluate", model)
    check_loader("evaluate", loader)
    with evaluating():
        function = metric_function(model, metrics)
        return measurements(loader, backend_of_model(model), function, weight_of)


def predictions(
    loader: Iterable[Any],
    backend: Backend,
    predict_fn: Callable[..., Any],
    trained: BatchNumbers | None = None,
) -> Prediction:
    """Return the results of `predict_fn` for all batches, concatenated on the host."""
    require_rows_of_samples(loader)
    found: list[Prediction] = []
    with whole_epoch(loader):
        waiting: list[tuple[Any, float]] = []  # one is read while the device computes the next
        for batch in loader:
            given = arguments(batch)
            if trained is not None:
                trained.warn_of_others(given, "those that are predicted")
            made = call(predict_fn, on_backend(given, backend))
            waiting.append((made, samples(given)))
            if len(waiting) > 1:
                found.append(_on_host(*waiting.pop(0)))
        found += [_on_host(*each) for each in waiting]
    if not found:
        raise ValueError("the loader yields nothing, so there is nothing to predict")
    return _joined(found)


def measurements(
    loader: Iterable[Any],
    backend: Backend,
    metric_fn: Callable[..., Any],
    weight_of: Callable[..., float] | None = None,
    trained: BatchNumbers | None = None,
) -> dict[str, float]:
    """Return the metrics of `metric_fn` over all batches."""
    require_own_samples(loader)
    warn_of_other_samples(loader)
    return measure((loader, metric_fn), backend, weight_of, trained).numbers


def metric_function(model: Callable[..., Any], metrics: Metrics) -> Callable[..., Any]:
    """Return the function of a batch that computes these metrics.

    Raises TypeError for anything but metrics, and for a metric that is not in a list; ValueError
    for none and for two of one name.
    """
    if isinstance(metrics, type):
        raise TypeError(f"metrics must be functions, not {shown(metrics)}")
    if callable(metrics):
        check_of_batch(metrics, "[{name}], a list, which gets a model's output and the targets")
        return metrics
    named = metrics if isinstance(metrics, Mapping) else _by_name(metrics)
    if not named:
        raise ValueError("metrics is empty: give a function such as rumus.train.metrics.accuracy")
    for name, metric in named.items():
        if not callable(metric):
            raise TypeError(f"the metric {name!r} must be a function, not {type(metric).__name__}")
    scores_of = of_first(model)

    def measured(*batch: Any, **fields: Any) -> dict[str, Any]:
        there = [name for name in _TARGETS if name in fields]
        if len(there) > 1:
            raise ValueError(
                f"a batch has {' and '.join(map(repr, there))}, and nothing says which of them "
                "metrics compare with: give a function of the batch"
            )
        targets = [fields[name] for name in there] or batch[1:]
        if not targets:
            raise ValueError(
                "metrics compare the predictions for a batch's first array with its last, or for "
                f"a dict with its {', '.join(_TARGETS)}, but the batch has none: give targets, or "
                "a function of the batch"
            )
        scores = scores_of(*batch, **fields)
        return {name: metric(scores, targets[-1]) for name, metric in named.items()}

    return measured


def of_first(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a batch that calls a model with its first array."""

    def of_batch(*batch: Any, **named: Any) -> Any:
        if named:
            return call(model, [named])
        if not batch:
            raise ValueError("a batch is empty, but the model is called with its first array")
        return model(batch[0])

    return of_batch


def only_model(state: Mapping[str, Any]) -> Any:
    """Return the only module among a trainer's `state`. Raises ValueError otherwise."""
    models = {name: each for name, each in state.items() if _is_model(each)}
    if len(models) == 1:
        return next(iter(models.values()))
    told = "no module" if not models else f"several: {', '.join(models)}"
    raise ValueError(
        f"the trainer's state names {told}; name one, as in Trainer(optimizer, state={{'model': "
        "model}), or give a function of the batch: lambda x, y: model(x)"
    )


def backend_of_model(model: object) -> Backend:
    """Return the backend of a model's parameters; the CPU if it has none."""
    named = getattr(model, "named_parameters", None)
    first = None if named is None else next(iter(named()), None)
    return cpu() if first is None else first[1].backend


def _check_model(of: str, model: object) -> None:
    """Raise TypeError for what is no model, such as a class of models, or their trainer."""
    if not callable(model) or isinstance(model, type):
        raise TypeError(
            f"{of}: model must be a module or a function of a batch's first array, not "
            f"{shown(model)}"
        )


def _is_model(thing: object) -> bool:
    return callable(thing) and hasattr(thing, "named_parameters")


def _by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    if isinstance(metrics, str):
        raise TypeError(
            f"metrics must be functions such as rumus.train.metrics.accuracy, not {metrics!r}"
        )
    if not isinstance(metrics, Sequence):
        raise TypeError(f"metrics must be a list of functions, not {shown(metrics)}")
    named: dict[str, Metric] = {}
    for metric in metrics:
        if isinstance(metric, str):
            raise TypeError(
                f"the metric {metric!r} must be a function, as rumus.train.metrics.accuracy, and "
                "not its name"
            )
        name = getattr(getattr(metric, "func", metric), "__name__", type(metric).__name__)
        if name in named:
            raise ValueError(f"two metrics are called {name!r}: give a dict with a name for each")
        named[name] = metric
    return named


def _on_host(made: Any, rows: float) -> Prediction:
    """The arrays of one batch. Raises ValueError unless they have one row per sample."""
    if isinstance(made, tuple):
        return tuple([_on_host(each, rows) for each in made])
    if isinstance(made, Mapping):
        return {name: _on_host(each, rows) for name, each in made.items()}
    if not isinstance(made, (Tensor, np.ndarray)):
        told = "; does the function return at all?" if made is None else ""
        raise TypeError(
            f"predictions must be tensors, or tuples or dicts of them, not {shown(made)}{told}"
        )
    array: NDArray[Any] = made.numpy() if isinstance(made, Tensor) else made
    if array.ndim == 0 or len(array) != rows:
        raise ValueError(
            f"a batch of {rows:g} samples has predictions of shape {list(array.shape)}: the first "
            "axis must be the samples"
        )
    return array


def _joined(parts: Sequence[Prediction]) -> Prediction:
    """All batches concatenated. Raises ValueError for batches of different structure."""
    first = parts[0]
    if isinstance(first, tuple):
        return tuple([_joined(each) for each in zip(*parts, strict=True)])
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in parts]) for name in first}
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        told = " and ".join(map(str, sorted(map(list, shapes))))
        raise ValueError(
            f"predictions of different batches have rows of shapes {told}, which do not fit in "
            "one array: pad them to one length, or loop over the loader"
        )
    return np.concatenate(parts)
