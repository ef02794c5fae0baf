"""`rumus devices` and `rumus doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import locale
import os
import platform
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Final

from rumus.train.base.printable import say
from rumus.train.command_line.checkpoints import size
from rumus.train.command_line.exit_codes import ExitCode
from rumus.train.command_line.run_folders import writable_place

# Module -> what it is for, and how it is installed.
EXTRAS: Final = {
    "numba": ("compiled loops on the CPU", "rumus-tensor[fast]"),
    "rumus.gpu": ("training on a GPU", "rumus-gpu"),
    "rumus.nn": ("layers and losses", "rumus-nn"),
    "matplotlib": ("rumus plot, and curves of find-lr", "rumus-train[plot]"),
    "rich": ("the live panel", "rumus-train[rich]"),
    "PIL": ("folders of images", "rumus-train[images]"),
    "pyarrow": ("Parquet and Arrow files", "rumus-train[parquet]"),
}
PACKAGES: Final = ("rumus-tensor", "rumus-optim", "rumus-train", "rumus-nn", "rumus-gpu", "numpy")
_ROUNDS: Final = 16  # of write and fsync
_SLOW: Final = 0.05  # seconds for one, from which a checkpoint is felt


@dataclass(frozen=True)
class DoctorLine:
    """One line of the doctor. is_good: None for what is neither good nor bad."""

    about: str
    text: str
    is_good: bool | None = None

    def __str__(self) -> str:
        mark = {True: "ok", False: "!!", None: "  "}[self.is_good]
        return f"{mark}  {self.about:<10}  {self.text}"


def list_devices(arguments: Namespace) -> int:
    """Do `rumus devices`."""
    for finding in devices():
        say(f"{finding.about:<6}  {finding.text}")
    return ExitCode.OK


def doctor(arguments: Namespace) -> int:
    """Do `rumus doctor`; USAGE if runs cannot be kept in the folder."""
    findings = [*versions(), *devices(), *extras(), disk(arguments.folder), *surroundings()]
    for finding in findings:
        say(finding)
    return ExitCode.OK


def versions() -> Iterator[DoctorLine]:
    """Yield the versions of Python and of the packages that are there."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield DoctorLine("python", f"{platform.python_version()} on {system}")
    for name in PACKAGES:
        try:
            yield DoctorLine(name, version(name))
        except PackageNotFoundError:
            continue


def devices() -> Iterator[DoctorLine]:
    """Yield what can compute: the CPU, and each GPU or why there is none."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loops = "numpy alone" if find_spec("numba") is None else "numba"
    yield DoctorLine("cpu", f"{_processor()}, {count} cores, {loops}", True)
    if find_spec("rumus.gpu") is None:
        yield DoctorLine("gpu", "not looked for: pip install rumus-gpu")
        return
    try:
        found = import_module("rumus.gpu").devices()
    except Exception as error:  # of a driver: whatever it is, it is what the doctor is asked for
        yield DoctorLine("gpu", f"{type(error).__name__}: {error}", False)
        return
    for each in found:
        yield DoctorLine("gpu", str(each), each.kind != "CPU" or None)
    if not found:
        yield DoctorLine(
            "gpu", "none; is its Vulkan driver installed? python -m rumus.gpu says more"
        )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def extras() -> Iterator[DoctorLine]:
    """Yield each optional package, and how to install it if it is missing."""
    for module, (use, package) in EXTRAS.items():
        if find_spec(module) is None:
            yield DoctorLine(module, f"missing, for {use}: pip install '{package}'")
        else:
            yield DoctorLine(module, f"there, for {use}", True)


def disk(folder: Path) -> DoctorLine:
    """Measure how long a small file takes to be safe on the disk of a folder, or of its parent.

    UsageError if nothing can be written there.
    """
    place = writable_place(folder)
    seconds = median(_synced(place) for _ in range(_ROUNDS))
    free = shutil.disk_usage(place).free
    text = f"{place}: {size(free)} free, {1e3 * seconds:.2f} ms for a write with fsync"
    if seconds > _SLOW:
        text += ": checkpoints will take long; a local disk is faster"
    return DoctorLine("disk", text, seconds <= _SLOW)


def _synced(place: Path) -> float:
    with tempfile.TemporaryFile(dir=place) as file:
        start = time.perf_counter()
        file.write(b"\0" * 4096)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - start


def surroundings() -> Iterator[DoctorLine]:
    """Yield what the live view depends on: the locale's encoding, and the terminal."""
    encoding = locale.getpreferredencoding(False)
    is_unicode = encoding.lower().replace("-", "") in ("utf8", "cp65001")
    yield DoctorLine(
        "locale", encoding if is_unicode else f"{encoding}: set LANG=C.UTF-8", is_unicode
    )
    yield DoctorLine("terminal", _terminal(sys.stderr))


def _terminal(stream: Any) -> str:
    if not stream.isatty():
        return "none: progress is written in lines"
    columns, lines = shutil.get_terminal_size()
    color = "no color (NO_COLOR)" if os.environ.get("NO_COLOR") else "color"
    return f"{os.environ.get('TERM', 'unknown')}, {columns} x {lines}, {color}"
