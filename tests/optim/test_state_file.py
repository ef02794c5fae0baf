"""States as files: a saved run continues as if it had never stopped, and bad files are reported."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimizer_table import KINDS, ROWS
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rumus.optim import (
    LBFGS,
    SGD,
    Adam,
    AdamW,
    FusedOptimizer,
    Optimizer,
    ParameterGroup,
    Plateau,
    StateFileError,
    load_state,
    save_state,
)
from rumus.tensor import Backend, Expr, Parameter, StateMismatchError, tensor

SHAPES: Final = {"layer/0.weight": (3, 5), "layer~1.bias": (5,), "scale": (), "nothing": (0, 2)}
STATE: Final[dict[str, Any]] = {
    "format": 1,
    "kind": "SGD",
    "steps": 1,
    "skipped": 0,
    "parameters": {"w": {"shape": [2], "dtype": "float32", "steps": 1, "state": {}}},
}


def made(kind: Callable[..., FusedOptimizer[Any]], backend: Backend) -> FusedOptimizer[Any]:
    draw = np.random.default_rng(5)
    return kind(
        [
            Parameter(draw.normal(size=shape).astype(np.float32), name=name, backend=backend)
            for name, shape in SHAPES.items()
        ]
    )


def stepped(optimizer: FusedOptimizer[Any], steps: range) -> None:
    for t in steps:
        draw = np.random.default_rng(t)
        parts = [
            (p * tensor(draw.normal(size=p.shape).astype(np.float32), backend=p.backend)).sum()
            for p in optimizer.parameters
        ]
        optimizer.step(sum(parts[1:], parts[0]).backward())


def values(optimizer: Optimizer[Any]) -> list[bytes]:
    return [p.numpy().tobytes() for p in optimizer.parameters]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_run_resumes_bit_for_bit(
    kind: Callable[..., FusedOptimizer[Any]], backend: Backend, tmp_path: Path
) -> None:
    whole, first, second = (made(kind, backend) for _ in range(3))
    stepped(whole, range(6))
    stepped(first, range(3))
    save_state(first, tmp_path / "state.safetensors")
    for p, q in zip(second.parameters, first.parameters, strict=True):
        p.assign(q.numpy())
    load_state(second, str(tmp_path / "state.safetensors"))
    assert second.steps == 3
    stepped(second, range(3, 6))
    assert values(second) == values(whole)


def test_optional_parameters_keep_their_counts(tmp_path: Path) -> None:
    def pair() -> tuple[Parameter, Parameter]:
        return Parameter([1.0], name="a"), Parameter([1.0], name="b")

    a, b = pair()
    optimizer = Adam([ParameterGroup([a, b], optional=True)])
    optimizer.step(a.sum().backward())
    save_state(optimizer, tmp_path / "s")
    again = Adam([ParameterGroup([*pair()], optional=True)])
    load_state(again, tmp_path / "s")
    saved = again.state_dict()["parameters"]
    assert (saved["a"]["steps"], saved["b"]["steps"]) == (1, 0)


def test_a_plateau_is_saved_too(tmp_path: Path) -> None:
    plateau, again = (Plateau(0.5, patience=0) for _ in range(2))
    for loss in (2.0, float("inf"), 3.0):
        plateau.report(loss)
    save_state(plateau, tmp_path / "plateau")
    load_state(again, tmp_path / "plateau")
    assert again.state_dict() == plateau.state_dict()


def adam(*names: str, shape: tuple[int, ...] = (3,), dtype: str = "float32") -> Adam:
    array = np.ones(shape, dtype)
    return Adam([Parameter(array, name=name, dtype=array.dtype) for name in names or ("w",)])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: AdamW([Parameter(np.ones(3), name="w")]), "kind: saved Adam, here AdamW"),
        (lambda: adam("v"), "'w': saved, not here\n.*'v': here, not saved"),
        (lambda: adam("w", "v"), "'v': here, not saved"),
        (lambda: adam(shape=(3, 1)), r"'w': saved shape \(3,\), here \(3, 1\)"),
        (lambda: adam(dtype="float64"), "'w': saved dtype float32, here float64"),
        (
            lambda: Adam([Parameter(np.ones(3), name="w")], amsgrad=True),
            r"'w': saved state \['m', 'v'\], here \['m', 'v', 'v_max'\]",
        ),
    ],
)
def test_the_state_of_another_optimizer(
    other: Callable[[], FusedOptimizer[Any]], message: str, tmp_path: Path
) -> None:
    optimizer, target = adam(), other()
    stepped(optimizer, range(2))
    save_state(optimizer, tmp_path / "s")
    before = json.dumps(target.state_dict(), default=lambda array: array.tolist())
    with pytest.raises(StateMismatchError, match=message):
        load_state(target, tmp_path / "s")
    assert json.dumps(target.state_dict(), default=lambda array: array.tolist()) == before


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_state(adam(), tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        save_state(adam(), tmp_path / "nowhere" / "s")
    with pytest.raises(OSError, match=r"[Dd]irectory|[Pp]ermission"):
        load_state(adam(), tmp_path)


def test_the_old_file_stays_when_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = adam()
    path = tmp_path / "s"
    save_state(optimizer, path)
    before = path.read_bytes()
    stepped(optimizer, range(1))

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save_state(optimizer, path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["s"]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    save_state(adam(), tmp_path / "s")
    mode = stat.S_IMODE((tmp_path / "s").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_safetensors_alone_reads_the_arrays(tmp_path: Path) -> None:
    optimizer = made(Adam, Parameter(0.0).backend)
    stepped(optimizer, range(1))
    save_state(optimizer, tmp_path / "s")
    arrays = load_file(tmp_path / "s")
    assert len(arrays) == 2 * len(SHAPES)
    saved = optimizer.state_dict()["parameters"]["layer/0.weight"]["state"]["m"]
    np.testing.assert_array_equal(arrays["parameters/layer~10.weight/state/m"], saved)
    assert arrays["parameters/scale/state/v"].shape == ()


def test_files_with_leading_slashes_are_still_read(tmp_path: Path) -> None:
    """The format of the first releases."""
    import rumus.optim.files.state_file as state_file

    optimizer = adam()
    stepped(optimizer, range(2))
    saved = optimizer.state_dict()
    arrays, rest = state_file._taken_apart(saved)
    before, text = {f"/{name}": array for name, array in arrays.items()}, json.dumps(rest)
    metadata = {"rumus": "state 1", "state": text, "sha256": state_file._digest(before, text)}
    save_file(before, tmp_path / "s", metadata)
    again = adam()
    load_state(again, tmp_path / "s")
    assert again.steps == 2
    found = again.state_dict()["parameters"]["w"]["state"]
    for name, array in saved["parameters"]["w"]["state"].items():
        np.testing.assert_array_equal(found[name], array)


def test_a_flat_state_has_its_plain_names(tmp_path: Path) -> None:
    class Weights:
        """A model: its state is arrays by name."""

        def __init__(self) -> None:
            self.state: dict[str, Any] = {"0.weight": np.ones(3), "a/b~": np.zeros(2)}

        def state_dict(self) -> dict[str, Any]:
            return self.state

        def load_state_dict(self, state: Any) -> None:
            self.state = dict(state)

    model, again = Weights(), Weights()
    save_state(model, tmp_path / "s")
    assert set(load_file(tmp_path / "s")) == {"0.weight", "a~1b~0"}
    again.state = {}
    load_state(again, tmp_path / "s")
    assert again.state.keys() == model.state.keys()


def refused(data: bytes, tmp_path: Path) -> str:
    """Load a bad file; return the error, after checking that nothing changed."""
    path = tmp_path / "bad"
    path.write_bytes(data)
    optimizer = adam()
    with pytest.raises(StateFileError, match="bad is damaged, or not a saved state") as caught:
        load_state(optimizer, path)
    assert optimizer.steps == 0
    assert not optimizer.state_dict()["parameters"]["w"]["state"]["m"].any()
    return str(caught.value)


def saved_file(tmp_path: Path) -> bytes:
    optimizer = adam()
    stepped(optimizer, range(2))
    save_state(optimizer, tmp_path / "good")
    return (tmp_path / "good").read_bytes()


def test_files_cut_off_anywhere(tmp_path: Path) -> None:
    data = saved_file(tmp_path)
    for length in [*range(0, 40), *range(40, len(data), 17), len(data) - 1]:
        refused(data[:length], tmp_path)
    refused(data + b"\0", tmp_path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_files_with_a_flipped_bit(tmp_path: Path, at: float, bit: int) -> None:
    good_file = tmp_path / "good"
    data = bytearray(good_file.read_bytes() if good_file.exists() else saved_file(tmp_path))
    position = int(at * len(data))
    data[position] ^= 1 << bit
    path = tmp_path / "bad"
    path.write_bytes(data)
    optimizer, good = adam(), adam()
    try:
        load_state(optimizer, path)
    except StateFileError:
        assert optimizer.steps == 0
    else:  # a redundant bit: only formatting of the JSON header is not covered
        load_state(good, good_file)
        mine, wanted = (o.state_dict()["parameters"]["w"]["state"] for o in (optimizer, good))
        assert position < len(data) - sum(a.nbytes for a in wanted.values())
        assert all((mine[key] == wanted[key]).all() for key in wanted)


def test_foreign_files(tmp_path: Path) -> None:
    refused(b"", tmp_path)
    refused(b"PK\x03\x04" + bytes(100), tmp_path)
    refused((2**63).to_bytes(8, "little") + b"{}", tmp_path)
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "weights")
    assert "save_state did not write it" in refused((tmp_path / "weights").read_bytes(), tmp_path)


def forged(state: Any, arrays: dict[str, Any], tmp_path: Path) -> Path:
    """A file with a valid checksum and arbitrary contents."""
    import rumus.optim.files.state_file as state_file

    text = state if isinstance(state, str) else json.dumps(state)
    metadata = {"rumus": "state 2", "state": text, "sha256": state_file._digest(arrays, text)}
    save_file(arrays, tmp_path / "forged", metadata)
    return tmp_path / "forged"


@pytest.mark.parametrize(
    ("text", "array"),
    [
        ("[]", None),
        ("3", None),
        ("{", None),
        ("[" * 100_000, None),
        ("{}", "no/such/place"),
        ('{"kind": 1}', "kind"),
        ('{"kind": 1}', "kind/m"),
        ('{"kind": {"m": 1}}', "kind/m"),
    ],
)
def test_forged_headers(text: str, array: str | None, tmp_path: Path) -> None:
    arrays = {} if array is None else {array: np.ones(2, np.float32)}
    refused(forged(text, arrays, tmp_path).read_bytes(), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": None},
        {"kind": ["SGD"]},
        {"format": "1"},
        {"steps": -1},
        {"steps": True},
        {"steps": 10**400},
        {"skipped": None},
        {"parameters": []},
        {"parameters": {"w": None}},
        {"parameters": {"w": {"shape": 2, "dtype": "float32", "steps": 1, "state": {}}}},
        {"parameters": {"w": {"shape": [[2]], "dtype": "float32", "steps": 1, "state": {}}}},
        {"parameters": {"w": {"shape": [2], "dtype": None, "steps": 1, "state": {}}}},
        {"parameters": {"w": {"shape": [2], "dtype": "float32", "steps": 1.5, "state": {}}}},
        {"parameters": {"w": {"shape": [2], "dtype": "float32", "steps": 1, "state": None}}},
        {"parameters": {"w": STATE["parameters"]["w"] | {"state": {"b": [[1], 2]}}}},
    ],
)  # fmt: skip
def test_forged_states(change: dict[str, Any], tmp_path: Path) -> None:
    w = Parameter(np.ones(2, np.float32), name="w")
    optimizer = SGD([w])
    load_state(optimizer, forged(STATE, {}, tmp_path))
    assert optimizer.steps == 1
    with pytest.raises(StateMismatchError):
        load_state(optimizer, forged(STATE | change, {}, tmp_path))
    assert optimizer.steps == 1


def test_the_contents_of_the_header(tmp_path: Path) -> None:
    saved_file(tmp_path)
    with safe_open(tmp_path / "good", framework="numpy") as file:
        rest = json.loads(file.metadata()["state"])
    assert rest["kind"] == "Adam"
    assert rest["parameters"]["w"] == {
        "shape": [3],
        "dtype": "float32",
        "steps": 2,
        "state": {},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"step": 5}, "step is unknown"),
        (lambda s: {n: v for n, v in s.items() if n != "steps"}, "steps is missing"),
        (
            lambda s: s | {"parameters": {"w": s["parameters"]["w"] | {"lr": 1.0}}},
            "'w': lr is unknown",
        ),
        (lambda s: {"parameters": {}} | {str(n): n for n in range(99)}, "91 others are unknown"),
    ],
)
@pytest.mark.parametrize("kind", [Adam, LBFGS])
def test_names_of_a_state(kind: Any, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    """One that is misspelled would otherwise do nothing."""
    optimizer = kind([Parameter(np.ones(2, np.float32), name="w")])
    before = optimizer.state_dict()
    with pytest.raises(StateMismatchError, match=message):
        optimizer.load_state_dict(change(before))
    assert repr(optimizer.state_dict()) == repr(before)


def test_a_subclass_may_save_more() -> None:
    class Counting(Adam[Any]):
        kind = "Counting"

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "seen": 3}

    optimizer = Counting([Parameter(np.ones(2, np.float32), name="w")])
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", ROWS)
def test_a_sum_of_squares_is_not_negative(name: str, backend: Backend) -> None:
    optimizer = made(ROWS[name], backend)
    stepped(optimizer, range(4))
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)  # its own is never refused
    for segment in optimizer.segments:
        for part in segment.never_negative & set(segment.state):
            values = state["parameters"][segment.arena.parameters[0].name]["state"][part]
            kept = values.flat[0].copy()
            values.flat[0] = -1e-3
            with pytest.raises(StateMismatchError, match=f"state '{part}' has negative elements"):
                optimizer.load_state_dict(state)
            values.flat[0] = kept


@pytest.mark.parametrize(
    "name",
    ["Adam", "AMSGrad", "AdamW", "Adagrad", "RMSprop", "Adadelta", "Adafactor", "NAdam", "RAdam",
     "LAMB", "AdaBelief", "Adan", "ADOPT", "LaProp", "AdEMAMix", "StableAdamW", "MARS", "Prodigy",
     "schedule-free AdamW", "Yogi", "SOAP"],
)  # fmt: skip
def test_parts_known_to_be_sums_of_squares(name: str) -> None:
    optimizer = ROWS[name]([Parameter(np.ones((2, 3), np.float32), name="w")])
    assert optimizer.segments[0].never_negative


def test_a_rule_that_adds_products_may_be_negative() -> None:
    def hyper(p: Expr, g: Expr, m: Expr, h: Expr, *, lr: Expr) -> dict[str, Expr]:
        m = 0.5 * m + g
        return {"p": p - lr * g, "m": m, "h": h + m * g}

    optimizer = FusedOptimizer([Parameter(np.ones(2, np.float32), name="w")], hyper, 0.1)
    stepped(optimizer, range(3))
    state = optimizer.state_dict()
    state["parameters"]["w"]["state"]["h"][:] = -1.0
    optimizer.load_state_dict(state)


def test_nan_in_a_state_is_told_of() -> None:
    """`nonfinite="propagate"` may have left it there, so it is loaded."""
    optimizer = adam("w", "b")
    state = optimizer.state_dict()
    state["parameters"]["b"]["state"]["m"][1] = np.nan
    with pytest.warns(UserWarning, match="the loaded state 'm' of 'b' has NaN"):
        optimizer.load_state_dict(state)
    assert np.isnan(optimizer.state_dict()["parameters"]["b"]["state"]["m"][1])
