"""Validation: what a model is worth, looked at without training it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

from rumus.optim import Optimizer
from rumus.tensor import Tensor
from rumus.tensor.graph import evaluation
from rumus.train.data.batches import arguments, samples
from rumus.train.loop.capture import beside

# A function that returns numbers by name, or batches and what is computed of each: one number (it
# is called "loss") or several by name, averaged over the samples.
Validate: TypeAlias = (
    Callable[[], Mapping[str, float] | float] | tuple[Iterable[Any], Callable[..., Any]]
)  # fmt: skip


@contextmanager
def evaluating(objects: Iterable[object], optimizer: Optimizer[Any]) -> Iterator[None]:
    """Within the block every module of this thread evaluates, and no graph is recorded.

    `objects` may hold modules of others, which do not ask whether somebody evaluates; one of
    `rumus.nn` that is switched within is what it was before as soon as the block ends.
    An optimizer that keeps an average (an EMA, schedule-free) has it in the parameters' place.
    """
    modules = [m for thing in objects if hasattr(thing, "modules") for m in thing.modules()]
    before = [module.training for module in modules]
    has_average = getattr(optimizer, "_point", None) is not None
    average = getattr(optimizer, "eval_params", nullcontext) if has_average else nullcontext
    try:
        with evaluation.evaluating(), average():
            for module in modules:
                module.training = False
            yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


def measure(validate: Validate, optimizer: Optimizer[Any]) -> dict[str, float]:
    """Return the numbers of a validation.

    TypeError for what returns no numbers, ValueError for a loader that yields nothing.
    """
    if not isinstance(validate, tuple):
        return _numbers(validate())
    loader, metric_fn = validate
    backend = optimizer.parameters[0].backend
    totals: dict[str, float] = {}
    weight = 0.0
    for batch in loader:
        given = arguments(batch)
        values = [beside(value, backend) for value in given]
        count = samples(given)
        for name, value in _numbers(metric_fn(*values)).items():
            totals[name] = totals.get(name, 0.0) + count * value
        weight += count
    if not weight:
        raise ValueError("the loader for validation yields nothing")
    return {name: total / weight for name, total in totals.items()}


def _numbers(found: object) -> dict[str, float]:
    if isinstance(found, (Tensor, int, float)):
        return {"loss": float(found)}
    if not isinstance(found, Mapping) or not found:
        raise TypeError(
            "a validation returns numbers by name, as {'accuracy': 0.9}, or one number; not "
            f"{found!r}"
        )
    return {str(name): float(value) for name, value in found.items()}
