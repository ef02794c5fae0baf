"""Validation: measuring a model without training it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import isfunction, signature
from itertools import repeat
from types import CodeType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.optim import Optimizer
from rumus.tensor import Backend, Tensor
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph import evaluation
from rumus.tensor.graph.means import is_bent, noting_means
from rumus.tensor.memory.uninterrupted import putting_back
from rumus.train.base.averaged_names import is_count, is_no_mean, told_of_sum
from rumus.train.base.calling import as_dict, call
from rumus.train.base.epoch_sum import LAG
from rumus.train.base.late_values import late_numbers
from rumus.train.base.metric_state import (
    CONFUSION_MATRIX,
    MetricState,
    add_up,
    noting_numbers,
)
from rumus.train.capture.captured_steps import beside
from rumus.train.checkpoints.snapshot import average_in_place
from rumus.train.data.batch_numbers import BatchNumbers
from rumus.train.data.batches import (
    arguments,
    check_loader,
    samples,
    weight_from,
    whole_epoch,
    why_nothing,
)
from rumus.train.loop.weighing import ADVICE, Weighing

# A function that returns numbers by name, or batches and what is computed of each: one number (it
# is called "loss") or several by name, averaged over the samples; metric states add up, and one
# alone is called what it is.
Validate: TypeAlias = (
    Callable[[], Mapping[str, float] | float] | tuple[Iterable[Any], Callable[..., Any]]
)  # fmt: skip

# Of one batch: names, numbers or states, and how much they count; all may be on a device.
Found: TypeAlias = list[tuple[str, Any, float | Tensor]]

# Words of what is better if there is more of it, and of what is if there is less.
_SCORE: Final = re.compile(
    r"(?<![a-z])(acc(uracy)?|score|f1|f_?beta|au_?c|auroc|map|precision|recall|r2|iou|bleu)(?![a-z])",
    re.IGNORECASE,
)
_LOSS: Final = re.compile(
    r"loss|error|entropy|mse|mae|rmse|perplexity|distance|norm|nll", re.IGNORECASE
)


def check_validate(validate: object) -> None:
    """Raise TypeError for what is neither a function nor a loader with one."""
    is_pair = isinstance(validate, tuple) and len(validate) == 2 and callable(validate[1])
    is_function = callable(validate) and not isinstance(validate, type)
    if validate is not None and not is_pair and not is_function:
        raise TypeError(
            f"validate must be a function or (loader, function of a batch), not "
            f"{shown(validate)}: validate=(loader, lambda x, y: mse_loss(model(x), y))"
        )
    if isinstance(validate, tuple):
        check_loader("validate", validate[0])
        check_of_batch(validate[1], "validate=(loader, lambda x, y: {name}(model(x), y))")
    elif callable(validate):
        _check_takes_nothing(validate)


def check_of_batch(function: Callable[..., Any], instead: str) -> None:
    """Raise TypeError for a metric or loss of this library, which would compare a batch's arrays.

    function: of a batch.
    instead: what to write, with its {name}.
    """
    while isinstance(function, partial):
        function = function.func
    is_public = isfunction(function) and "." not in function.__qualname__
    if is_public and (function.__module__ or "").startswith("rumus."):
        name = function.__name__
        raise TypeError(
            f"{name} gets a batch as it is, and would compare its arrays with each other, without "
            f"a model: write {instead.format(name=name)}"
        )


def _check_takes_nothing(validate: Callable[..., Any]) -> None:
    """Raise TypeError for a function with parameters: it gets no batch."""
    try:
        signature(validate).bind()
    except ValueError:
        return  # written in C, without a signature
    except TypeError as error:
        raise TypeError(
            f"validate is called without arguments ({error}): to measure batches, give a loader, "
            "too, as validate=(loader, lambda x, y: mse_loss(model(x), y))"
        ) from None


@contextmanager
def evaluating(objects: Iterable[object], optimizer: Optimizer[Any]) -> Iterator[None]:
    """Within the block, modules of this thread are in evaluation mode and no graph is recorded.

    `objects` may hold foreign modules, which do not check this; a `rumus.nn` module that is
    switched inside the block is restored at its end. The average of an optimizer that keeps one
    (EMA, schedule-free) replaces the parameters.
    """
    modules = [m for thing in objects if hasattr(thing, "modules") for m in thing.modules()]
    before = [module.training for module in modules]

    def put_back() -> None:
        for module, training in zip(modules, before, strict=True):
            module.training = training

    with putting_back(put_back), evaluation.evaluating(), average_in_place(optimizer):
        for module in modules:
            module.training = False
        yield


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of a validation.

    numbers: by name. confusion: the counts (target, prediction) of the confusion matrices.
    """

    numbers: dict[str, float]
    confusion: dict[str, NDArray[Any]]


def measure(
    validate: Validate,
    backend: Backend,
    weight_of: Callable[..., float] | None = None,
    trained: BatchNumbers | None = None,
) -> Measurement:
    """Run a validation and return its result.

    backend: receives the arrays of a batch.
    weight_of: returns the weight of a batch; by default its number of samples, or for a loss of
    `rumus.nn` the number of terms it averages.
    trained: the numbers of the training's batches. Raises TypeError if it does not return numbers;
    ValueError for a loader that yields nothing, and for batches of unknown weight.
    """
    if not isinstance(validate, tuple):
        found = validate()
        _warn_of_score(validate, found)
        named = {name: _number(name, value) for name, value in _named(found).items()}
        numbers = {name: float(value) for name, value in named.items()}
        return Measurement(numbers, _confusion(named))
    loader, metric_fn = validate
    measuring, total = Measuring(metric_fn, backend, weight_of, trained), Measured()
    with whole_epoch(loader):
        for batch in loader:
            total.add(measuring.of(batch))
    return total.result(loader)


class Measuring:
    """Measures the batches of a validation one by one, without reading from the device.

    weight_of: returns the weight of a batch; see `measure`.
    trained: the numbers of the training's batches, None if they are unknown.
    is_part: whether others measure other batches of the same validation.
    """

    def __init__(
        self,
        metric_fn: Callable[..., Any],
        backend: Backend,
        weight_of: Callable[..., float] | None,
        trained: BatchNumbers | None,
        *,
        is_part: bool = False,
    ) -> None:
        self._trained = trained
        self._metric_fn, self._backend, self._weight_of = metric_fn, backend, weight_of
        self._is_part = is_part
        self._weighing = Weighing(self._check_unknown, is_of_one=True)
        self._averaged = _Averaged()
        self._size, self._names = 0.0, list[str]()  # of the batch that is measured
        self._unknown: dict[str, Tensor] = {}  # of the first batch, what has no known weight

    @property
    def weighing(self) -> Weighing:
        """What weighs the batches."""
        return self._weighing

    def of(self, batch: Any) -> Found:
        """Return the metrics of a batch."""
        given = arguments(batch)
        if self._trained is not None:
            self._trained.warn_of_others(given, "the data that are measured")
        with noting_means() as means, noting_numbers() as numbers:
            found = call(self._metric_fn, on_backend(given, self._backend))
            named = _named(found)
            self._averaged.see(named, samples(given), numbers)
        _warn_of_score(self._metric_fn, found)
        self._size, self._names = samples(given), [*named]
        if self._weight_of is None:
            weights = self._weighing.weigh_late([*named.values()], means, samples(given))
        else:
            weights = [*repeat(weight_from(self._weight_of, given), len(named))]
        self._averaged.compare(named, weights, samples(given))
        pairs = zip(named.items(), weights, strict=True)
        return [(name, _number(name, value), weight) for (name, value), weight in pairs]

    def _check_unknown(self, position: int, value: Tensor) -> None:
        """Raise ValueError for a number of the batch, such as a sum, that is no mean over it.

        `_Averaged` warns of some. One of the model's is equal for all batches.
        """
        name = self._names[position]
        if self._size == 1 or value.size != 1 or is_bent(value) or is_count(value):
            return
        first = self._unknown.setdefault(name, value)
        if self._is_part or (first is not value and float(first) != float(value)):
            raise ValueError(
                f"{name!r} is no mean over a batch, such as x.mean(), nor several added up: "
                "nothing tells how much a batch counts: return a mean, or one of "
                f"rumus.train.metrics, or {ADVICE}"
            )


def on_backend(batch: Sequence[Any], backend: Backend) -> Sequence[Any]:
    """Return a batch with its arrays as tensors of a backend."""
    named = as_dict(batch)
    if named is not None:
        return ({name: beside(value, backend) for name, value in named.items()},)
    return [beside(value, backend) for value in batch]


class _Averaged:
    """Warns once about averaged metrics that are not means over batches."""

    def __init__(self) -> None:
        self._batches, self._largest = 0, 0.0
        self._told = set[str]()
        self._shares: dict[str, float] = {}  # weights in the first batch, by its samples
        self._bent: dict[str, Tensor] = {}  # what is no mean of the first batch

    def see(
        self, named: Mapping[str, Any], size: float, numbers: Sequence[tuple[float, str]]
    ) -> None:
        """Check the metrics of the next batch, which has `size` samples.

        numbers: that metrics became, such as float(f1(scores, y)), with the metrics' names.
        """
        kinds = {id(number): kind for number, kind in numbers}
        self._batches += 1
        self._largest = max(self._largest, size)
        are_several = self._largest > 1  # samples in a batch
        if self._batches == 1:
            self._bent = {name: value for name, value in named.items() if is_bent(value)}
        for name, value in named.items() if self._batches > 1 else ():
            if isinstance(value, MetricState) or name in self._told:
                continue
            if are_several and is_count(value):
                self._told.add(name)
                warn_user(told_of_sum(name))
            elif self._batches == 2 and (
                is_no_mean(name)
                or is_no_mean(kinds.get(id(value), ""))
                or (are_several and self._is_no_mean(name, value))
            ):
                warn_user(
                    f"{name!r} is averaged over batches, which may differ from its value over all "
                    "samples: the metrics of rumus.train.metrics are computed over the whole set",
                )

    def _is_no_mean(self, name: str, value: Any) -> bool:
        """Whether a number of the second batch is bent, and another than that of the first one.

        One of the model's, such as the norm of its weights, is equal for all batches.
        """
        first = self._bent.get(name)
        return first is not None and is_bent(value) and float(value) != float(first)

    def compare(self, named: Mapping[str, Any], weights: Sequence[object], size: float) -> None:
        """Warn of numbers of the program beside means of unequally many terms per sample.

        They may be of the same terms, as an accuracy of those that a mask leaves; nothing tells.
        """
        pairs = dict(zip(named, weights, strict=True)).items()
        shares = {
            name: weight / size for name, weight in pairs if size and isinstance(weight, float)
        }
        uneven = [n for n in shares if not math.isclose(shares[n], self._shares.get(n, shares[n]))]
        self._shares = {**shares, **self._shares}
        for name, value in named.items() if uneven else ():
            if isinstance(value, (float, np.floating)) and name not in self._told:
                self._told.add(name)
                warn_user(
                    f"{name!r} is a number that counts by the samples of its batch, but "
                    f"{uneven[0]!r} by its terms, as with a mask or ignored targets: return the "
                    "mean as a tensor, which counts by what it averages, or a metric of "
                    "rumus.train.metrics"
                )


class Measured:
    """The metrics of the batches so far. Those on a device are read some batches later."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}  # weighted sums, and the weights
        self._states: dict[str, MetricState] = {}
        self._waiting: list[Found] = []
        self._batches, self._counts = 0, Counter[str]()

    def add(self, found: Found) -> None:
        """Add the metrics of the next batch."""
        self._batches += 1
        self._counts.update(name for name, value, _ in found if not isinstance(value, MetricState))
        self._waiting.append(found)
        if len(self._waiting) >= LAG:
            self._read()

    def result(self, loader: Iterable[Any] = ()) -> Measurement:
        """Return the metrics over all batches.

        loader: that has yielded them, for the message.

        Raises ValueError if there was no batch, and for a name of a number and of a metric.
        """
        self._read()
        if both := self._totals.keys() & self._states.keys():
            raise ValueError(
                f"{min(both)!r} is a number in some batches and a metric state in others, which "
                "do not add up: return the state for each batch"
            )
        if not self._totals and not self._states:
            raise ValueError(f"the loader for validation yields nothing{why_nothing(loader)}")
        for name, count in self._counts.items():
            if count < self._batches:
                warn_user(
                    f"{name!r} was returned for {count} of {self._batches} batches, and is "
                    "averaged over these, each counting by all its samples: return it for each, "
                    "or a metric of rumus.train.metrics, which counts the samples it is given"
                )
        averaged = {
            name: total / weight if weight else math.nan
            for name, (total, weight) in self._totals.items()
        }
        numbers = averaged | {name: float(state) for name, state in self._states.items()}
        return Measurement(numbers, _confusion(self._states))

    def _read(self) -> None:
        rows = [row for found in self._waiting for row in found]
        self._waiting.clear()
        states: dict[str, list[MetricState]] = {}
        for name, value, _ in rows:
            if isinstance(value, MetricState):
                before = [self._states[name]] if name in self._states else []
                states.setdefault(name, before).append(value)
        self._states |= {name: add_up(each) for name, each in states.items()}
        plain = [row for row in rows if not isinstance(row[1], MetricState)]
        values = late_numbers([value for _, value, _ in plain])
        weights = late_numbers([weight for _, _, weight in plain])
        for (name, _, _), number, weight in zip(plain, values, weights, strict=True):
            total, weighed = self._totals.get(name, (0.0, 0.0))
            added = weight * number if weight else 0.0  # a mean of no terms may be NaN
            self._totals[name] = total + added, weighed + weight


def _warn_of_score(function: Callable[..., Any], found: object) -> None:
    """Warn that one number is named "loss" if the function's names suggest more is better."""
    if isinstance(found, (Mapping, MetricState)):
        return
    own = getattr(function, "__name__", type(function).__name__)
    words = [own, *_words_of(getattr(function, "__code__", None))]
    scores = [word for word in words if _SCORE.search(word) or word == "argmax"]
    if scores and not any(_LOSS.search(word) for word in words):
        name = next((word for word in scores if word != "argmax"), "accuracy")
        warn_user(
            f"{own} returns one number, which is called 'loss' and is better if lower: return "
            f"{{{name!r}: ...}}, with monitor={name!r} and mode='max' in fit",
        )


def _words_of(code: CodeType | None) -> Iterator[str]:
    """The names that a function uses, those of functions within it as well."""
    if code is not None:
        yield from (*code.co_names, *code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _words_of(constant)


def _confusion(found: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The counts of the confusion matrices among what was found, on the host."""
    return {
        name: np.asarray(add_up([state]).parts[0])
        for name, state in found.items()
        if isinstance(state, MetricState) and state.name == CONFUSION_MATRIX
    }


def _named(found: object) -> dict[str, Any]:
    """The metrics by name, unread. Raises TypeError for anything but a number."""
    if isinstance(found, MetricState):
        found = {found.name.partition("(")[0]: found}
    elif isinstance(found, (Tensor, int, float, np.number)):
        found = {"loss": found}
    if not isinstance(found, Mapping) or not found:
        raise TypeError(
            "a validation must return numbers by name, such as {'accuracy': 0.9}, or one "
            f"number, not {found!r}" + ("; does it return at all?" if found is None else "")
        )
    return {str(name): value for name, value in found.items()}


def _number(name: str, value: Any) -> Any:
    """A number, possibly still on a device. name: of the metric, for messages."""
    is_late = isinstance(value, Tensor) and value.backend.runs_ahead and not value.shape
    if is_late or isinstance(value, MetricState):
        return value
    if isinstance(value, (str, bytes)):
        raise TypeError(f"a validation returns numbers, and {name!r} is {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(
            f"a validation must return numbers, but {name!r} is not one: {error}"
        ) from None
