"""`launch`: a script on several ranks, started by the MPI that is installed.

The mpiexec of a wheel may be on nobody's path. Open MPI ties a rank to one processor, also a single
one, and refuses root and more ranks than processors; none of that suits a training. What remains of
a job that was killed is removed, and every rank has a last word.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rumus.distributed.mpi_library import MpiLibrary, find_library
from rumus.distributed.processors import processors
from rumus.distributed.rank_program import FOLDER, UNFINISHED, Ended

THREADS: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
SHARED: Final = Path("/dev/shm")
SEGMENTS: Final = ("rumus-*", "mpich_*", "sm_segment.*", "vader_segment.*", "prte.*", "pmix_*")


@dataclass(frozen=True, slots=True)
class Job:
    """What to start. hosts: machines, the ranks of which follow each other; this one if none."""

    ranks: int
    script: str
    arguments: Sequence[str] = ()
    hosts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ValueError(f"-n must be at least 1, not {self.ranks}")
        if len(self.hosts) > self.ranks:
            raise ValueError(f"{len(self.hosts)} hosts for {self.ranks} ranks: -n is of all hosts")
        if self.ranks % max(len(self.hosts), 1):
            raise ValueError(
                f"{self.ranks} ranks cannot be dealt evenly to {len(self.hosts)} hosts"
            )

    @property
    def ranks_a_host(self) -> int:
        """How many ranks each machine gets."""
        return self.ranks // max(len(self.hosts), 1)


def command(job: Job, library: MpiLibrary) -> list[str]:
    """Return how a library's mpiexec starts a job.

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
    """Return the variables of the ranks: each has its share of the processors.

    What is set already stays.
    """
    threads = str(max(1, processors() // job.ranks_a_host))
    return {**dict.fromkeys(THREADS, threads), **given}


def launch(job: Job) -> int:
    """Run a job to its end, and return the worst exit code of its ranks.

    Without more than one rank no MPI is needed. RankError says what to install where there is none,
    ValueError if there is no such script.
    """
    if not Path(job.script).is_file():
        raise ValueError(f"there is no script {job.script}")
    if job.ranks == 1 and not job.hosts:
        program = [sys.executable, job.script, *job.arguments]
        return _code(subprocess.run(program, env=environment(job, os.environ)).returncode)
    library = find_library()
    before = set(_segments())
    with tempfile.TemporaryDirectory(prefix="rumus-ranks-") as folder:
        variables = environment(job, os.environ) | {FOLDER: folder}
        code = _code(subprocess.run(command(job, library), env=variables).returncode)
        ends = Ended.read(Path(folder), job.ranks)
    for left in unused(set(_segments()) - before):
        left.unlink(missing_ok=True)
    if job.hosts:
        return code  # the other machines' ranks have written their last words there
    return _last_words(job, ends, code)


def _last_words(job: Job, ends: Sequence[Ended], code: int) -> int:
    """Say how the ranks ended, unless all is well; return the worst exit code."""
    worst = max([code, *(_code(end.code) for end in ends if end.code != UNFINISHED)])
    unfinished = [end for end in ends if end.code == UNFINISHED]
    if not worst and not unfinished:
        return 0
    print(f"{job.script} on {job.ranks} ranks:", *ends, sep="\n  ", file=sys.stderr)
    return worst or 1  # a rank that is gone without a word is no success


def _code(code: int) -> int:
    """An exit code as a shell has it: 128 and the signal, for a process that died of one."""
    return 128 - code if code < 0 else code


def unused(segments: Collection[Path]) -> set[Path]:
    """Return those that no process has mapped: another job may have started meanwhile."""
    maps = "".join(_text(path) for path in Path("/proc").glob("[0-9]*/maps")) if segments else ""
    return {path for path in segments if str(path) not in maps}


def _text(path: Path) -> str:
    """What the system says of a process, nothing if it is gone or not ours."""
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _segments() -> Iterator[Path]:
    """What MPIs have left in shared memory, of this user."""
    if not SHARED.is_dir():
        return
    for pattern in SEGMENTS:
        for path in SHARED.glob(pattern):
            with suppress(FileNotFoundError):
                if path.stat().st_uid == os.getuid():
                    yield path
