"""What the tests of several packages share: the backends that a test runs on.

Every package is tested with only what it declares installed, so nothing is imported here before a
fixture is asked for. Another backend is one more row of `BACKENDS`.
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

# A busy machine is slow; that is no property of a test.
hypothesis.settings.register_profile(
    "rumus", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("rumus")

if TYPE_CHECKING:
    from rumus.tensor import Backend, DType


def _of_tensor(name: str) -> Backend:
    backend: Backend = getattr(import_module("rumus.tensor"), name)()
    return backend


# Name -> what makes the backend, and the widest floating dtype that it has.
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
    """`--every-step`: stop each run at each of its steps; `nox -s resume` does."""
    parser.addoption("--every-step", action="store_true", help="stop runs at each of their steps")


def pytest_configure(config: pytest.Config) -> None:
    """Skip what needs a GPU where there is none."""
    config.pluginmanager.register(missing_gpu)


def pytest_sessionstart() -> None:
    """Let Ctrl-C be what it is in a program: pytest-xdist has its workers ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare the collector what lives to the end: a worker collects a million objects of cases."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test does not seed itself is the same at each run, in any order of the tests."""
    if find_spec("rumus") is not None and find_spec("rumus.tensor") is not None:
        import_module("rumus.tensor").seed(0)


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend, made once. A test is skipped that asks for a GPU where there is none."""
    name = request.param
    if name not in _made:
        _made[name] = BACKENDS[name][0]()
    return _made[name]


@pytest.fixture
def widest(request: pytest.FixtureRequest, backend: Backend) -> DType:
    """The widest floating dtype of `backend`: float64 but on a GPU."""
    name = next(name for name, made in _made.items() if made is backend)
    return np.dtype(BACKENDS[name][1])


@pytest.fixture
def record_deviation(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Write down how far an optimizer is from a referee: a line of a table in docs/optimizers.md.

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
