"""A signal handler that raises leaves nothing of a trainer displaced."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from interrupted import attempts
from interrupted_training import (
    DISPLACED,
    loading,
    looping,
    saving,
    saving_in_a_thread,
)

from rumus.tensor.memory import late_array
from rumus.train.data.process_pool import _with_signals_blocked


@pytest.mark.parametrize("name", DISPLACED)
def test_displaced_state_is_restored(name: str) -> None:
    """At some lines of the block, and at each of its last ones, which restore everything."""
    found = list(attempts(DISPLACED[name], 12, name, last=25))
    assert found
    assert not [each for each in found if each.is_torn or each.is_lost]


@pytest.mark.parametrize("prepare", [saving, saving_in_a_thread, loading])
def test_a_time_limit_is_not_a_disk_fault(prepare: Any, tmp_path: Path) -> None:
    """TimeoutError is an OSError: a save and a load propagate it, and stay consistent."""
    found = list(attempts(lambda: prepare(tmp_path), 150, prepare.__name__))
    assert not [each for each in found if each.is_torn or each.is_lost]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_threads_of_a_loader_end() -> None:
    """What is raised as Python drops the loop's iterator is lost: Python itself swallows it."""
    assert not [each for each in attempts(looping, 20, "looping", last=40) if each.is_torn]


def test_signals_are_heard_again_wherever_a_handler_raises_as_a_worker_starts() -> None:
    """They stayed blocked, and nothing but SIGKILL ended the program."""
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("there is no mask of signals")

    def mask() -> tuple[Any, ...]:
        return (signal.pthread_sigmask(signal.SIG_BLOCK, ()),)

    start = lambda: _with_signals_blocked(lambda: None)
    assert not any(each.is_torn for each in attempts(lambda: (start, mask), 300, "mask"))


def test_arrays_are_copied_at_once_again_wherever_a_handler_raises() -> None:
    def save() -> None:
        with late_array.copying_late():
            pass

    def seen() -> tuple[Any, ...]:
        return (late_array._mode.is_late,)

    assert not any(each.is_torn for each in attempts(lambda: (save, seen), 300, "late"))
