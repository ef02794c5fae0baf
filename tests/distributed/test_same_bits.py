"""Parameters, state, buffers, random streams and history are the same on any number of ranks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from launched import launched

OPTIONS = {
    "dropout, clip, EMA, ragged": [],
    "accumulate, loss scale": ["--accumulate", "3", "--scale", "--log"],
    "batch norm, early stopping": ["--norm", "--patience", "1", "--samples", "73", "--epochs", "8"],
    "eight shards": ["--shards", "8"],
    "more than NumPy takes in one piece": ["--width", "2048", "--samples", "40"],
    "accumulate, captured": ["--accumulate", "2", "--samples", "40"],
    "parameters that few shards use": ["--optional"],
    "NumPy alone": ["--numpy", "--batch", "12"],
}
ZERO = (0, 1, 4, 7)  # those that are also compared with divided state


@cache
def trained(ranks: int) -> list[dict[str, Any]]:
    """The results of all options, one training after the other in one job."""
    groups = [*OPTIONS.values()]
    groups += [[*groups[number], "--zero"] for number in ZERO]
    arguments = [argument for group in groups for argument in ("+", *group)][1:]
    run = launched(ranks, *arguments)
    assert run.code == 0, run.errors
    return run.found


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=list(OPTIONS))
def test_ranks_change_no_bit(number: int, ranks: int) -> None:
    assert trained(ranks)[number]["found"] == trained(1)[number]["found"]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("at", range(len(ZERO)), ids=[list(OPTIONS)[n] for n in ZERO])
def test_divided_state_changes_no_bit(at: int, ranks: int) -> None:
    run = trained(ranks)[len(OPTIONS) + at]
    whole = trained(1)[ZERO[at]]
    assert run["found"] == whole["found"]
    assert run["state_bytes"] <= whole["state_bytes"] / ranks + 64 * 3 * 4


def test_the_options_differ() -> None:
    """A comparison that trainings without any effect would also pass proves nothing."""
    assert len({each["found"]["parameters"] for each in trained(1)}) == len(OPTIONS)
    assert trained(1)[2]["found"]["reason"] == "no better accuracy in 1 validations"


def test_one_shard_is_the_plain_trainer() -> None:
    one = ("--shards", "1")
    more = ("--accumulate", "2")
    alone, plain, two, plain_two = launched(
        1, *one, "+", "--plain", "+", *one, *more, "+", "--plain", *more
    ).found
    assert alone["found"] == plain["found"]
    assert two["found"] == plain_two["found"]


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_sends_as_little_as_possible(ranks: int) -> None:
    """2 (n - 1) / n of the gradients' bytes, once per step, however many batches it has."""
    first, accumulated = trained(ranks)[:2]
    size = (8 * 32 + 64) + (32 * 4 + 64)  # both layers, their biases filled up to 64
    least = 2 * (ranks - 1) / ranks * 4 * size
    assert first["sent"] == pytest.approx(least * first["found"]["steps"], rel=0.35)
    steps = accumulated["found"]["steps"]
    assert accumulated["sent"] - first["sent"] == first["sent"] / first["found"]["steps"] * steps


def test_rarely_synchronized_workers_do_not_depend_on_ranks() -> None:
    program = str(Path(__file__).parents[2] / "docs" / "examples" / "diloco.py")
    options = ("--workers", "2", "--steps", "8", "--every", "4", "--batch", "2")
    alone, together = (launched(ranks, *options, program=program) for ranks in (1, 2))
    assert alone.code == 0, alone.errors
    assert "step    8 of 2 workers" in alone.out
    assert together.out == alone.out
