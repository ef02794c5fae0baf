"""Each optional argument is left out in turn: the same result, or an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from left_out import FUNCTIONS, NAMED, SAME, Argument, known, optional, run

from rumus.optim import Plateau


@pytest.mark.parametrize("where", FUNCTIONS)
def test_the_tables_are_complete(where: str) -> None:
    assert optional(where) == known(where)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "left_out", [(where, name) for where, names in SAME.items() for name in names], ids=".".join
)
def test_the_same_result(left_out: Argument, whole: tuple[Any, ...], tmp_path: Path) -> None:
    assert run(tmp_path, left_out) == whole


@pytest.mark.parametrize(("left_out", "told"), NAMED.items(), ids=str)
def test_an_error_that_names_it(left_out: Argument, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        run(tmp_path, left_out)


def test_a_schedule_that_is_fed_upwards_names_its_metric() -> None:
    from rumus.train import FeedPlateau

    with pytest.raises(ValueError, match="metric is missing"):
        FeedPlateau(Plateau(1.0, mode="max"))
