"""Fixtures that several packages' tests share: the backends to run on.

Every package is tested with only its declared dependencies installed, so nothing is imported here
before a fixture needs it. Another backend is one more row of `BACKENDS`.
"""

from __future__ import annotations

import gc
import json
import signal
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import hypothesis
import missing_gpu
import numpy as np
import pytest

# A test must not fail because the machine is busy.
hypothesis.settings.register_profile(
    "rumus", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("rumus")

if TYPE_CHECKING:
    from rumus.tensor import Backend, DType


def _of_tensor(name: str) -> Backend:
    backend: Backend = getattr(import_module("rumus.tensor"), name)()
    return backend


# Name -> a function that makes the backend, and its widest floating dtype.
BACKENDS: Final[Mapping[str, tuple[Callable[[], Backend], type[np.floating]]]] = {
    "numpy": (lambda: _of_tensor("NumpyBackend"), np.float64),
    **(
        {"numba": (lambda: _of_tensor("NumbaBackend"), np.float64)}
        if find_spec("numba") is not None
        else {}
    ),
    **(
        {"gpu": (lambda: import_module("rumus.gpu").default_backend(), np.float32)}
        if find_spec("rumus") is not None and find_spec("rumus.gpu") is not None
        else {}
    ),
}
_made: dict[str, Backend] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--every-step`: stop each run at each of its steps; `nox -s resume` uses it."""
    parser.addoption("--every-step", action="store_true", help="stop runs at each of their steps")


def pytest_configure(config: pytest.Config) -> None:
    """Skip tests that need a GPU if there is none."""
    config.pluginmanager.register(missing_gpu)


def pytest_sessionstart() -> None:
    """Let Ctrl-C raise KeyboardInterrupt as usual: pytest-xdist makes its workers ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exempt long-lived objects from the collector: a worker collects a million of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed whatever a test does not seed itself, so that it is the same in any order of tests."""
    if find_spec("rumus") is not None and find_spec("rumus.tensor") is not None:
        import_module("rumus.tensor").seed(0)


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend, made once. A test that asks for a GPU is skipped if there is none."""
    name = request.param
    if name not in _made:
        _made[name] = BACKENDS[name][0]()
    return _made[name]


@pytest.fixture
def widest(request: pytest.FixtureRequest, backend: Backend) -> DType:
    """The widest floating dtype of `backend`: float64, or float32 on a GPU."""
    name = next(name for name, made in _made.items() if made is backend)
    return np.dtype(BACKENDS[name][1])


@pytest.fixture
def record_deviation(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Record how far an optimizer is from a referee, for a table in docs/optimizers.md.

    Called with the optimizer's class, its options, the referee, the backend and the deviation.
    """

    def record(
        kind: type[Any], options: Mapping[str, Any], referee: str, on: Backend, deviation: float
    ) -> None:
        name = next(name for name, made in _made.items() if made is on)
        shown = (f"{k}={getattr(v, '__name__', v)}" for k, v in options.items())
        line = [kind.__name__, ", ".join(shown), referee, name, deviation]
        record_property("deviation", json.dumps(line))

    return record
