"""`launch`: runs a script on several ranks with the installed MPI.

The mpiexec of a wheel may not be on the path. Open MPI binds each rank to one processor, and
refuses to run as root or with more ranks than processors; none of that suits training. Leftovers of
a killed job are removed, and every rank reports how it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from types import FrameType
from typing import Final

from rumus.distributed.mpi_library import MpiLibrary, find_library
from rumus.distributed.processors import processors
from rumus.distributed.rank_program import FOLDER, UNFINISHED, Ended, running

THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
STOPPING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
SHARED: Final = Path("/dev/shm")
PATIENCE: Final = 2.0  # seconds for processes that end
SETTLED: Final = 1.0  # seconds after which a segment that another job has made is mapped
SEGMENTS: Final = ("rumus-*", "mpich_*", "sm_segment.*", "vader_segment.*", "prte.*", "pmix_*")


@dataclass(frozen=True, slots=True)
class Job:
    """What to start. hosts: machines, with consecutive ranks; this machine if empty."""

    ranks: int
    script: str
    arguments: Sequence[str] = ()
    hosts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ValueError(f"-n must be at least 1, not {self.ranks}")
        if len(self.hosts) > self.ranks:
            raise ValueError(
                f"{len(self.hosts)} hosts for {self.ranks} ranks: -n is the total over all hosts"
            )
        if self.ranks % max(len(self.hosts), 1):
            raise ValueError(
                f"{self.ranks} ranks cannot be divided evenly among {len(self.hosts)} hosts"
            )

    @property
    def ranks_a_host(self) -> int:
        """The number of ranks per machine."""
        return self.ranks // max(len(self.hosts), 1)


def command(job: Job, library: MpiLibrary) -> list[str]:
    """Return the command line of a library's mpiexec.

    >>> library = MpiLibrary("MPICH", Path("mpiexec"))
    >>> command(Job(2, "train.py", hosts=["a", "b"]), library)[:5]
    ['mpiexec', '-hosts', 'a:1,b:1', '-n', '2']
    """
    flags: list[str] = []
    hosts = ",".join(f"{host}:{job.ranks_a_host}" for host in job.hosts)
    if library.name == "Open MPI":
        flags += ["--bind-to", "none", *(["--host", hosts] if hosts else ["--oversubscribe"])]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--allow-run-as-root")
    elif hosts:
        flags += ["-hosts", hosts]
    program = [sys.executable, "-m", "rumus.distributed.rank_program", job.script, *job.arguments]
    return [str(library.mpiexec), *flags, "-n", str(job.ranks), *program]


def environment(job: Job, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of the ranks, which share the processors.

    Variables already set are kept.
    """
    threads = str(max(1, processors() // job.ranks_a_host))
    return {**dict.fromkeys(THREADS, threads), **given}


def launch(job: Job) -> int:
    """Run a job to its end, and return the worst exit code of its ranks.

    A single rank needs no MPI. Raises RankError, which says what to install, if there is no MPI;
    ValueError if there is no such script.
    """
    if not Path(job.script).is_file():
        raise ValueError(f"there is no script {job.script}")
    if job.ranks == 1 and not job.hosts:
        program = [sys.executable, job.script, *job.arguments]
        return _ended(program, environment(job, os.environ), lambda: [])
    library = find_library()
    before = set(_segments())
    with tempfile.TemporaryDirectory(prefix="rumus-ranks-") as folder:
        variables = library.variables() | environment(job, os.environ) | {FOLDER: folder}
        code = _ended(command(job, library), variables, lambda: running(Path(folder), job.ranks))
        ends = Ended.read(Path(folder), job.ranks)
    _remove_segments(before)
    if job.hosts:
        return code  # the other machines' ranks have written their last words there
    return _last_words(job, ends, code)


def _ended(
    program: Sequence[str], variables: Mapping[str, str], ranks: Callable[[], Sequence[int]]
) -> int:
    """Run a program, and return its exit code.

    A signal goes to the ranks, which save a checkpoint and end, or as long as there are none to the
    program. Were this process to end, they would go on without it, or end without a checkpoint.
    """
    with subprocess.Popen(program, env=variables) as process:

        def forward(number: int, _: FrameType | None) -> None:
            for pid in ranks() or [process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

        with _handled(forward):
            return _code(process.wait())


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle what asks a process to end, unless that is ignored, as under nohup."""
    found = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: known for number, known in found.items() if known is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


def _last_words(job: Job, ends: Sequence[Ended], code: int) -> int:
    """Report how the ranks ended, unless all is well; return the worst exit code."""
    worst = max([code, *(_code(end.code) for end in ends if end.code != UNFINISHED)])
    unfinished = [end for end in ends if end.code == UNFINISHED]
    if not worst and not unfinished:
        return 0
    print(f"{job.script} on {job.ranks} ranks:", *ends, sep="\n  ", file=sys.stderr)
    return worst or 1  # a rank that vanished is not a success


def _code(code: int) -> int:
    """An exit code like a shell's: 128 plus the signal for a process killed by one."""
    return 128 - code if code < 0 else code


def _remove_segments(before: Set[Path]) -> None:
    """Remove the segments that the job has left, soon after its last process has ended.

    A rank that was killed may have them mapped for another moment, and one of another job, which
    starts now, may have made some that it has not mapped yet.
    """
    until = monotonic() + PATIENCE
    while left := set(_segments()) - before:
        for path in unused(left):
            path.unlink(missing_ok=True)
            left.discard(path)
        if not left or monotonic() > until:  # they may be another job's
            break
        sleep(0.05)


def unused(segments: Collection[Path]) -> set[Path]:
    """Return those, not just made, that no process maps: another job may have started meanwhile."""
    old = [path for path in segments if _age(path) > SETTLED]
    maps = "".join(_text(path) for path in Path("/proc").glob("[0-9]*/maps")) if old else ""
    return {path for path in old if str(path) not in maps}


def _age(path: Path) -> float:
    """The seconds since a file was made or changed; 0 if it is gone."""
    with suppress(FileNotFoundError):
        return time() - path.stat().st_ctime
    return 0.0


def _text(path: Path) -> str:
    """The system's data on a process; empty if it is gone or not ours."""
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _segments() -> Iterator[Path]:
    """This user's leftovers of MPI in shared memory."""
    if not SHARED.is_dir():
        return
    for pattern in SEGMENTS:
        for path in SHARED.glob(pattern):
            with suppress(FileNotFoundError):
                if path.stat().st_uid == os.getuid():
                    yield path
