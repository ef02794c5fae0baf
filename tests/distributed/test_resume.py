"""A run continues with any number of ranks, as if it had never been stopped."""

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
    ("before", "fault", "after", "state"),
    [
        (1, "term", 4, "whole"),
        (4, "kill", 1, "whole"),
        (2, "raise", 4, "divided"),
        (4, "term", 2, "divided"),
    ],
)
def test_resume_in_the_middle_of_an_epoch(
    before: int, fault: str, after: int, state: str, tmp_path: Path
) -> None:
    options = ["--folder", str(tmp_path), *(["--zero"] if state == "divided" else [])]
    # At the seventh call of the loss: in the second step on one rank, in the seventh on four.
    stopped = launched(before, "--fault", fault, *options)
    assert stopped.code, stopped.errors
    resumed = launched(after, *options)
    assert resumed.code == 0, resumed.errors
    assert resumed.found[0]["found"] == never_stopped()
