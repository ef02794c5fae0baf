"""Tests that need a GPU, on a machine without a driver: they are skipped, and the summary says so.

A test need not declare that it needs a GPU: it asks for one and gets `NoAdapterError`. Tests in
which that exception cannot propagate, such as docstrings or other processes, have the mark
`needs_gpu`. With RUMUS_REQUIRE_GPU=1, which continuous integration sets, a missing driver is a
single error before the first test.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import pytest

DRIVER: Final = "a package such as mesa-vulkan-drivers (Debian, Ubuntu, Fedora) brings a driver"
REASON: Final = "needs a GPU, and no driver was found"


@lru_cache(maxsize=1)
def is_missing() -> bool:
    """Return whether rumus.gpu is installed and finds no adapter."""
    if find_spec("rumus") is None or find_spec("rumus.gpu") is None:
        return False
    return not import_module("rumus.gpu").devices()


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", "needs_gpu: skipped where there is no driver of a GPU")


def pytest_sessionstart() -> None:
    """Raise a single error instead of a thousand failures."""
    if os.environ.get("RUMUS_REQUIRE_GPU") == "1" and is_missing():
        raise pytest.UsageError(f"RUMUS_REQUIRE_GPU=1, and no driver of a GPU was found: {DRIVER}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip marked tests."""
    if item.get_closest_marker("needs_gpu") and is_missing():
        raise _no_adapter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a test as skipped if it asked for a GPU and there is none."""
    report = yield
    if call.excinfo is not None and _is_in_vain(call.excinfo.value):
        report.outcome = "skipped"
        report.longrepr = (__file__, 1, f"Skipped: {REASON}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file that asks for a GPU when it is imported."""
    report = yield
    call = getattr(report, "call", None)
    if call is not None and call.excinfo is not None and _is_in_vain(call.excinfo.value):
        report.outcome = "skipped"
        report.longrepr = (__file__, 1, f"Skipped: {REASON}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped, and how to run them."""
    skipped = terminalreporter.getreports("skipped")
    count = sum(REASON in str(report.longrepr) for report in skipped)
    if count:
        tests = "test" if count == 1 else "tests"
        terminalreporter.write_line(f"{count} {tests} skipped for want of a GPU: {DRIVER}")


def _no_adapter() -> Exception:
    error: Exception = import_module("rumus.gpu").NoAdapterError(REASON)
    return error


def _is_in_vain(error: BaseException) -> bool:
    """Whether the error is that of a missing driver, and the driver really is missing."""
    if not is_missing():
        return False
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_in_vain, error.exceptions))
    return isinstance(error, type(_no_adapter()))
