"""A run goes on with any number of ranks, as if it had never been stopped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from launched import launched


@cache
def never_stopped() -> dict[str, Any]:
    (found,) = launched(1).found
    return dict(found["found"])


@pytest.mark.parametrize(
    ("before", "fault", "after"),
    [(1, "term", 4), (4, "kill", 1), (2, "raise", 4), (4, "term", 2)],
)
def test_resume_in_the_middle_of_an_epoch(
    before: int, fault: str, after: int, tmp_path: Path
) -> None:
    # The seventh call of the loss: of the second step on one rank, of the seventh on four.
    stopped = launched(before, "--fault", fault, "--folder", str(tmp_path))
    assert stopped.code, stopped.errors
    resumed = launched(after, "--folder", str(tmp_path))
    assert resumed.code == 0, resumed.errors
    assert resumed.found[0]["found"] == never_stopped()
