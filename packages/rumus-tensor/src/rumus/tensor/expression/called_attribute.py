"""Attributes of tensors that are methods in PyTorch, and so are called out of habit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# By the type of their value, which is what an error of a call names.
_ATTRIBUTES: Final[Mapping[str, tuple[str, str]]] = {
    "size": (
        "int",
        "x.shape for x.size(), x.shape[0] for x.size(0), x.size for the number of elements",
    ),
    "shape": ("tuple", "x.shape"),
    "ndim": ("int", "x.ndim"),
    "T": ("Tensor", "x.T"),
    "dtype": ("numpy.dtype", "x.dtype"),
}
_CALLED: Final = re.compile(r"'([\w.]+)' object is not callable")


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
    called = _CALLED.fullmatch(str(error))
    if trace is None or called is None:
        return
    for name in trace.tb_frame.f_code.co_names:
        kind, instead = _ATTRIBUTES.get(name, ("", ""))
        if called[1].startswith(kind or " ") and not hasattr(error, "__notes__"):
            error.add_note(f"{name} is an attribute of a tensor: {instead}")
