"""A fault on one rank ends all of them, named, before any rank waits in vain."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic, sleep

import pytest
from launched import launched

from rumus.distributed.launcher import SETTLED, unused

DEADLINE = 3.0
ALIKE = "the ranks do not train the same way"
# A fault of the last of two ranks, and what the first one reports.
NAMED = {
    "raise": "another rank has failed: rank 1 of 2 on .*: ValueError: sample 17 is bad",
    "early": "another rank has failed: rank 1 of 2 on .*: ValueError: there are no data here",
    "leave": "rank 0 is at the start of a training, rank 1 at the end of the program",
    "exit": "another rank has failed: rank 1 of 2 on .*: SystemExit: 0",
    "unused": "rank 1 of 2 on .*: MissingGradientError: parameter '0.bias' has no gradient",
    "gather": "rank 0 is at step 4, rank 1 at gather: all ranks must do the same steps",
    "frozen": f"{ALIKE}:.* the parameter 0.weight is missing on rank 1, ",
    "seed": f"{ALIKE}:.* the generator model.2.generator is Generator\\(seed=9, .* on rank 1",
    "data": f"{ALIKE}:.* the loader's samples is 50 on rank 1, 66 on rank 0",
    "order": f"{ALIKE}:.* the loader's seed is 6 on rank 1, 5 on rank 0",
    "epochs": f"{ALIKE}:.* the limit of epochs is 1 on rank 1, 2 on rank 0",
    "steps": f"{ALIKE}:.* the limit of steps is 5 on rank 1, None on rank 0",
    "lr": f"{ALIKE}:.* the optimizer's hyper is {{'lr': 0.006, .* on rank 1, {{'lr': 0.003, ",
    "zero": f"{ALIKE}:.* zero is True on rank 1, False on rank 0",
    "hang": "no answer from rank 1 of 2 on .*; the last operation that all completed is step 3",
}


def segments() -> set[Path]:
    """Segments in shared memory that an MPI may have put there."""
    patterns = ("mpich_*", "sm_segment.*", "vader_segment.*")
    return {path for pattern in patterns for path in Path("/dev/shm").glob(pattern)}


def left(before: set[Path]) -> set[Path]:
    """New segments that no process maps, once jobs of other tests have cleared theirs away."""
    until = monotonic() + 10
    while (found := unused(segments() - before)) and monotonic() < until:
        sleep(0.1)
    return found


def test_a_segment_that_was_just_made_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    """Another job may be about to map it."""
    fresh, old = tmp_path / "fresh", tmp_path / "old"
    old.write_bytes(b"1")
    sleep(SETTLED + 0.1)
    fresh.write_bytes(b"1")
    assert unused([fresh, old, tmp_path / "gone"]) == {old}


@pytest.mark.parametrize("fault", NAMED)
def test_a_fault_of_one_rank_is_named_by_all(fault: str) -> None:
    before = segments()
    run = launched(2, "--fault", fault, "--deadline", str(DEADLINE))
    assert run.code == 1, run.errors
    words = " ".join(run.errors.split())
    last = words[words.rindex("train.py on 2 ranks:") :]
    assert re.search(NAMED[fault], last), run.errors
    assert not left(before), "segments of this job, or of one that runs beside it and has ended"


def test_a_rank_that_is_killed_ends_the_job() -> None:
    run = launched(2, "--fault", "kill")
    assert run.code in (9, 137)
    assert "rank 1 (pid " in run.errors
    assert "was killed, or exited without a report" in run.errors


def test_a_non_finite_gradient_on_one_rank_is_skipped_by_all() -> None:
    run = launched(2, "--fault", "nan")
    assert run.code == 0, run.errors
    assert run.found[0]["found"]["skipped"] == 1


def test_a_signal_to_one_rank_stops_all_with_one_checkpoint(tmp_path: Path) -> None:
    run = launched(2, "--fault", "term", "--folder", str(tmp_path))
    assert run.code == 143, run.errors
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-00000003", "step-00000004"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the launcher in /proc")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_to_the_launcher_stops_all_with_a_checkpoint(
    name: str, code: int, tmp_path: Path
) -> None:
    """It goes to the ranks; the launcher waits for them, and reports how they ended."""
    run = launched(2, "--fault", f"launcher {name}", "--folder", str(tmp_path))
    assert run.code == code, run.errors
    assert run.errors.count(f"exit code {code}: {name} ended the training after step 4") == 2
    assert (tmp_path / "step-00000004").exists()
