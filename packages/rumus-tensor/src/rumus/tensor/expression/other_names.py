"""What names of other libraries are called here: one line for whoever writes one by habit.

Each package has a table of its own; `OtherNames` makes errors of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn


class OtherNames:
    """The names that users of PyTorch and Keras try on something, each with what to write instead.

    of: how messages call the thing. rows: name to advice.

    >>> OtherNames("Tensor", {"view": "x.reshape(...)"}).refuse("view")
    Traceback (most recent call last):
    AttributeError: Tensor has no attribute 'view'; here it is x.reshape(...)
    """

    def __init__(self, of: str, rows: Mapping[str, str]) -> None:
        self.of, self.rows = of, dict(rows)

    def refuse(self, name: str) -> NoReturn:
        """Raise AttributeError for an attribute that is not there, with the advice if there is."""
        advice = self.rows.get(name)
        told = "" if advice is None else f"; here it is {advice}"
        raise AttributeError(f"{self.of} has no attribute {name!r}{told}", name=name)

    def refuse_assignment(self, name: str) -> None:
        """Raise AttributeError if `name` is one of the table: assigning to it would do nothing."""
        if name in self.rows:
            self.refuse(name)
