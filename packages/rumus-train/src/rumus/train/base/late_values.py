"""Reading numbers that may still be on a device, in as few transfers as possible."""

from __future__ import annotations

from collections.abc import Sequence

from rumus.tensor import Tensor, stack


def late_values(tensors: Sequence[Tensor]) -> list[float]:
    """Return the numbers in scalar tensors, with one transfer per device.

    Waits for the device. NonFiniteGradientError if it has refused a step meanwhile.

    >>> from rumus.tensor import tensor
    >>> late_values([tensor(1.5), tensor(2.0)])
    [1.5, 2.0]
    """
    values = [0.0] * len(tensors)
    remote: dict[tuple[int, str], list[int]] = {}
    for at, each in enumerate(tensors):
        if each.backend.runs_ahead:
            remote.setdefault((id(each.backend), str(each.dtype)), []).append(at)
        else:
            values[at] = float(each)
    for places in remote.values():
        read = stack([tensors[at] for at in places]).tolist()
        for at, value in zip(places, read, strict=True):
            values[at] = float(value)
    return values


def late_numbers(values: Sequence[Tensor | float]) -> list[float]:
    """Return numbers, some of which are scalar tensors; see `late_values`.

    >>> from rumus.tensor import tensor
    >>> late_numbers([1.0, tensor(1.5)])
    [1.0, 1.5]
    """
    read = iter(late_values([value for value in values if isinstance(value, Tensor)]))
    return [next(read) if isinstance(value, Tensor) else value for value in values]
