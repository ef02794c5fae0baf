"""Classes that users derive from those of rumus: any attributes, set as fast as any others."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from rumus.train import ArrayDataset, Callback, EarlyStopping


def test_nothing_is_called_for_a_users_attribute() -> None:
    class Own(Callback):
        def __init__(self) -> None:
            self.seen = 0

    kind: Any = Own
    made = Own()
    made.seen, made.other = 1, 2  # type: ignore[attr-defined]
    assert vars(made) == {"seen": 1, "other": 2}
    assert kind.__setattr__ is object.__setattr__
    stopping: Any = EarlyStopping()
    with pytest.raises(AttributeError, match="pateince"):
        stopping.pateince = 3


def test_a_users_own_way_to_set_attributes_stays() -> None:
    class Doubling(Callback):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, 2 * value)

    kind: Any = Doubling
    before = kind.__setattr__
    made: Any = Doubling()
    made.seen = 1
    made.seen = 2
    assert (made.seen, kind.__setattr__) == (4, before)


def test_a_class_that_cannot_be_changed_works() -> None:
    class Kept(type(Callback)):  # type: ignore[misc]
        def __setattr__(cls, name: str, value: object) -> None:
            if name == "__setattr__":
                raise AttributeError("this class is not to be changed")
            super().__setattr__(name, value)

    class Own(Callback, metaclass=Kept):
        pass

    made: Any = Own()
    made.seen = 1
    made.seen = 2
    assert made.seen == 2


def test_a_frozen_dataclass_stays_frozen() -> None:
    @dataclass(frozen=True)
    class Numbers(ArrayDataset):
        size: int

        def __len__(self) -> int:
            return self.size

        def __getitem__(self, index: int, /) -> Any:
            return (index,)

    made: Any = Numbers(3)
    assert (len(made), made[1]) == (3, (1,))
    with pytest.raises(FrozenInstanceError):
        made.size = 4
