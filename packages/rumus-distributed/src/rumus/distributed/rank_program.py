"""The program of a rank: a user's script, and a report for the launcher of how it ended."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from rumus.distributed.mpi_library import RANK_VARIABLES

FOLDER: Final = "RUMUS_RANKS_FOLDER"  # from the launcher to its ranks: where their reports go
UNFINISHED: Final = -1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rank ended. code: its exit code; UNFINISHED if it vanished."""

    rank: int
    pid: int
    code: int
    words: str

    def __str__(self) -> str:
        if self.code == UNFINISHED:
            end = "was killed, or exited without a report"
        elif self.code:
            end = f"exit code {self.code}" + (f": {self.words}" if self.words else "")
        else:
            end = "done"
        return f"rank {self.rank} (pid {self.pid or 'unknown'}): {end}"

    @classmethod
    def read(cls, folder: Path, ranks: int) -> list[Self]:
        """Return how all ranks of a job ended."""
        return [cls._of(folder / str(rank), rank) for rank in range(ranks)]

    @classmethod
    def _of(cls, path: Path, rank: int) -> Self:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        pid = int(lines[0]) if lines else 0
        code = int(lines[1]) if len(lines) > 1 else UNFINISHED
        return cls(rank, pid, code, " ".join(lines[2:]))


def running(folder: Path, ranks: int) -> list[int]:
    """Return the process of each rank of this machine that has started and not ended."""
    ends = Ended.read(folder, ranks)
    return [end.pid for end in ends if end.pid and end.code == UNFINISHED]


class _Notes:
    """Where a rank writes its report for the launcher."""

    def __init__(self) -> None:
        folder = os.environ.get(FOLDER)
        rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")
        self._path = None if folder is None or not Path(folder).is_dir() else Path(folder, rank)
        self._write([])

    def end(self, code: int, words: str = "") -> None:
        """Record an exit code and the last words."""
        self._write([str(code), words])

    def _write(self, lines: Sequence[str]) -> None:
        if self._path is not None:
            text = "\n".join([str(os.getpid()), *lines])
            self._path.write_text(text, encoding="utf-8")


def run(script: str, arguments: Sequence[str]) -> None:
    """Run a script as Python itself would; its errors pass through."""
    notes = _Notes()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        notes.end(code, str(error) if code else "")
        raise
    except BaseException as error:
        (last, *_) = traceback.format_exception_only(error)
        notes.end(1, last.strip())
        raise
    notes.end(0)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
