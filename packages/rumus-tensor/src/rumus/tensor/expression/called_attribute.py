"""Attributes of tensors that are methods in PyTorch, and so are called out of habit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_ATTRIBUTES: Final[Mapping[str, str]] = {
    "size": "x.shape for x.size(), x.shape[0] for x.size(0), x.size for the number of elements",
    "shape": "x.shape",
    "ndim": "x.ndim",
    "T": "x.T",
    "dtype": "x.dtype",
}


def note_called_attribute(error: BaseException) -> None:
    """Add a note to the error of a call of an attribute, such as `x.size(0)`.

    >>> from types import SimpleNamespace
    >>> x = SimpleNamespace(size=3)
    >>> try:
    ...     x.size(0)
    ... except TypeError as error:
    ...     note_called_attribute(error)
    ...     error.__notes__[0][:42]
    'size is an attribute of a tensor: x.shape '
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not str(error).endswith("object is not callable"):
        return
    for name in trace.tb_frame.f_code.co_names:
        if name in _ATTRIBUTES and not hasattr(error, "__notes__"):
            error.add_note(f"{name} is an attribute of a tensor: {_ATTRIBUTES[name]}")
