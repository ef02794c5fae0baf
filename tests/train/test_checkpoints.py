"""`Checkpoints`: saved states load back bit for bit, and the right ones are kept."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.train import (
    CheckpointError,
    Checkpoints,
    InvalidCheckpointError,
    LocalFileSystem,
    NoCheckpointError,
)
from rumus.train.base.append_file import AppendFile
from rumus.train.checkpoints.folder_lock import FolderLock

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


def state_of(step: int) -> dict[str, Any]:
    """Return a small state that depends on the step everywhere."""
    return {
        "model": {"weight": np.arange(step, step + 6, dtype=np.float32).reshape(2, 3)},
        "trainer": {"step": step, "losses": [0.5, float(step)]},
    }


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def same(found: Any, expected: Any) -> bool:
    """Whether two states are equal, with types, bits and order."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, np.ndarray):
        alike = (found.dtype, found.shape) == (expected.dtype, expected.shape)
        return alike and found.tobytes() == expected.tobytes()
    if isinstance(expected, dict):
        return [*found] == [*expected] and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return repr(found) == repr(expected)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, asynchronous: bool) -> None:
    generator = np.random.default_rng(0)
    arrays = {d: generator.integers(0, 255, 24, np.uint8).view(d) for d in DTYPES if d != "?"}
    state = {
        "model": {**arrays, "?": np.array([True, False]), "odd/~name": {"é": [np.ones(1), 7]}},
        "optimizer": {"empty": np.zeros((3, 0)), "scalar": np.array(2.5), "more": [[], {}]},
        "alone": np.array([math.nan, -0.0]),
        "trainer": {
            "rng": 2**128 - 1, "text": "a\n\0\ud800", "yes": True, "none": None,
            "floats": [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1],
        },
    }  # fmt: skip
    checkpoints = Checkpoints(tmp_path / "deep" / "folder", asynchronous=asynchronous)
    path = checkpoints.save(1234, state, metric=math.nan)
    loaded = checkpoints.load()
    assert same(loaded.state, state)
    assert (loaded.step, loaded.path, loaded.skipped) == (1234, path, ())
    assert loaded.metric is not None
    assert math.isnan(loaded.metric)


def test_other_layouts_of_memory_are_saved_by_value(tmp_path: Path) -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    views = {"T": matrix.T, "step": matrix[:, ::2], "big": matrix.astype(">f4")}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": views})
    model = checkpoints.load().state["model"]
    for name, view in views.items():
        np.testing.assert_array_equal(model[name], view)
        assert model[name].flags.writeable
        assert model[name].flags.aligned


def test_an_asynchronous_save_has_the_values_of_its_step(tmp_path: Path) -> None:
    weight = np.zeros(300_000)
    with Checkpoints(tmp_path, asynchronous=True, keep_last=9) as checkpoints:
        for step in range(5):
            weight[:] = step
            checkpoints.save(step, {"model": {"weight": weight}})
            weight[:] = -1
        for step in range(5):
            assert set(checkpoints.load(step).state["model"]["weight"]) == {step}


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"trainer": {"betas": (0.9, 0.99)}}, TypeError, r"state\['trainer'\]\['betas'\].*tuple"),
        ({"trainer": [{1: 2}]}, TypeError, r"state\['trainer'\]\['0'\] has the key 1"),
        ({"trainer": np.float32(1)}, TypeError, "float32"),
        ({"model": {"w": np.array([None])}}, TypeError, "object"),
        ({"model": {"w": np.array([1j])}}, TypeError, "complex128"),
        ({"model": {"__metadata__": np.ones(1)}}, ValueError, "__metadata__"),
        ({"../model": {}}, ValueError, "names a file"),
        ({"a": 1, "A": 2}, ValueError, "same file"),
        ([1], TypeError, "state must be a dict, not list"),
    ],
)
def test_state_that_would_not_load_back_is_refused(
    tmp_path: Path, state: Any, error: type[Exception], message: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1))
    before = names(tmp_path)
    with pytest.raises(error, match=message):
        checkpoints.save(2, state)
    assert names(tmp_path) == before
    knot: list[Any] = []
    knot.append(knot)
    with pytest.raises(ValueError, match="contains itself"):
        checkpoints.save(2, {"trainer": knot})


def test_the_newest_the_best_and_every_nth_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best="min", keep_every=40)
    metrics = [5.0, 1.0, 7.0, math.nan, 2.0, 1.0, -math.inf, 3.0, 4.0, None]
    for number, metric in enumerate(metrics):
        checkpoints.save(10 * number, state_of(number), metric)
    assert [each.step for each in checkpoints.list()] == [0, 40, 60, 80, 90]
    again = Checkpoints(tmp_path, keep_last=1, keep_best="max")
    checkpoints.close()
    again.save(100, state_of(100))
    assert [each.step for each in again.list()] == [0, 100]


def test_the_loaded_checkpoint_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    checkpoints.save(1, state_of(1))
    checkpoints.load()
    for step in range(2, 5):
        checkpoints.save(step, state_of(step))
    assert [each.step for each in checkpoints.list()] == [1, 4]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1))
    checkpoints.save(1, state_of(2), metric=0.5)
    assert same(checkpoints.load().state, state_of(2))
    assert names(tmp_path) == ["lock", "step-00000001"]


def test_an_abandoned_training_is_set_aside(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=9)
    for step in range(10, 50, 10):
        checkpoints.save(step, state_of(step))
    for _ in range(2):
        checkpoints.load(20)
        checkpoints.save(30, state_of(31))
    assert [each.step for each in checkpoints.list()] == [10, 20, 30]
    assert same(checkpoints.load().state, state_of(31))
    aside = ["step-00000030.aside", "step-00000030.aside-2", "step-00000040.aside"]
    assert [name for name in names(tmp_path) if "aside" in name] == aside


def test_an_earlier_step_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(10, state_of(10))
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match="step 9 comes after step 10"):
        checkpoints.save(9, state_of(9))
    checkpoints.load()
    checkpoints.save(10, state_of(10))
    with pytest.raises(ValueError, match="int, 0 or more"):
        checkpoints.save(-1, state_of(1))


def test_bad_options_are_refused(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {"keep_last": 0}, {"keep_best": "best"}, {"keep_every": 0}, {"on_error": "ignore"}
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(ValueError, match=next(iter(options))):
            Checkpoints(tmp_path, **options)


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "nothing").load()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest is None
    checkpoints.save(1, state_of(1))
    with pytest.raises(NoCheckpointError, match="of step 2"):
        checkpoints.load(2)


def test_checkpoints_are_listed_verified_and_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1), 0.25)
    path = checkpoints.save(2, state_of(2))
    assert path is not None
    assert checkpoints.latest == 2
    first, second = checkpoints.list()
    assert (first.metric, second.metric, second.path) == (0.25, None, path)
    assert checkpoints.verify(path) == second
    (path / "manifest.json").write_text("{}")
    with pytest.raises(InvalidCheckpointError, match="not the manifest of a rumus checkpoint"):
        checkpoints.verify(path)
    assert [each.problem is None for each in checkpoints.list()] == [True, False]
    checkpoints.remove(2)
    with pytest.raises(CheckpointError, match="only checkpoint"):
        checkpoints.remove(1)
    with pytest.raises(NoCheckpointError, match="no checkpoint of step 2"):
        checkpoints.remove(2)


def test_what_is_no_file_system_is_refused_before_training(tmp_path: Path) -> None:
    other: Any = "s3"
    with pytest.raises(TypeError, match="file_system must be a FileSystem, not 's3'"):
        Checkpoints(tmp_path, file_system=other)


@pytest.mark.parametrize("is_end", [True, False], ids=["the interpreter ends", "it was closed"])
def test_what_is_deleted_late_says_nothing(
    is_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end, modules have lost their names; and programs close files that they do not know."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    lock, lines = FolderLock(LocalFileSystem(), tmp_path), AppendFile(tmp_path / "lines")
    lock.acquire()
    opened = lock._descriptor, lines._descriptor
    for held in (lock, lines) if is_end else ():
        monkeypatch.setattr(sys.modules[type(held).__module__], "os", None)
        del held
    for descriptor in opened:
        assert descriptor is not None
        os.close(descriptor)
    del lock, lines
    assert not told
