"""`ranks()`: the processes started by an MPI launcher, or this one alone."""

from __future__ import annotations

import math
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rumus.distributed.errors import RankError
from rumus.distributed.link import Link, NoLink
from rumus.distributed.mpi_library import RANK_VARIABLES, check_installation
from rumus.distributed.own_gpu import own_gpu
from rumus.distributed.team import ShardedTeam
from rumus.tensor import Backend, is_seeded, run_seed, seed
from rumus.tensor.expression.real_number import real_number
from rumus.train import Trainer

if TYPE_CHECKING:
    from rumus.distributed.mpi_link import MpiLink

T = TypeVar("T")

# Launchers' variables for the number of processes. Slurm's is set even without MPI.
SIZES: Final = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


class Ranks:
    """The processes that train together. `ranks()` makes it.

    link: their connection.

    >>> from rumus.distributed import ranks
    >>> team = ranks()
    >>> team.rank, team.size, team.speaks, team.gather("only one")
    (0, 1, True, ['only one'])
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"Ranks(rank={self.rank}, size={self.size})"

    @property
    def rank(self) -> int:
        """The index of this process, from 0."""
        return self._link.rank

    @property
    def size(self) -> int:
        """The number of processes."""
        return self._link.size

    @property
    def speaks(self) -> bool:
        """Whether this is the one that prints and writes files: the first."""
        return self.rank == 0

    @property
    def sent(self) -> int:
        """The bytes of gradients and parameters that this process has sent."""
        return self._link.sent

    def gather(self, thing: T) -> list[T]:
        """Return the objects of all processes, by rank. Every process must call it.

        thing: this process's object; it must be picklable.
        """
        self._link.meet("gather")
        return self._link.gather(thing)

    def gpu(self) -> Backend:
        """Return the backend of this process's GPU: `model.to(ranks.gpu())`.

        The processes of a machine get its cards in order; a software driver is shared. Raises
        RankError for more processes on a machine than GPUs, ImportError without rumus-gpu.
        """
        return own_gpu(self._link)

    def team(self, trainer: Trainer[Any], *, zero: bool) -> ShardedTeam:
        """Return the team for a trainer's runs; called by `Trainer(optimizer, ranks=...)`.

        trainer: the trainer whose steps are shared.
        zero: whether each process keeps only its part of the optimizer's state.
        """
        return ShardedTeam(trainer, self._link, zero=zero)


def ranks(deadline: float = 600.0) -> Ranks:
    """Return the processes that a launcher started for this program.

    Without a launcher, or with one process, MPI is not imported.

    deadline: seconds that a process waits for the others before all end with a RankError that names
        the silent ones. It must exceed the slowest save, validation or compilation.

    Raises ValueError for a deadline that is not positive; RankError for an environment with two
    MPIs, or with another one than the processes' launcher; ImportError without mpi4py.
    """
    if not 0 < real_number("deadline", deadline) < math.inf:
        raise ValueError(f"deadline must be a positive number of seconds, not {deadline!r}")
    if not is_launched():
        return Ranks(NoLink())
    check_installation()
    link = mpi_link()
    if link.size == 1:
        raise RankError(
            f"a launcher has started several processes, but {link.library} sees only this one: "
            "the launcher belongs to another MPI. Under Slurm, use srun --mpi=pmix for Open MPI "
            "and --mpi=pmi2 for MPICH"
        )
    link.deadline = deadline
    return Ranks(link)


@cache
def mpi_link() -> MpiLink:
    """Return the link of this process, always the same one: MPI starts and ends once."""
    from rumus.distributed.mpi_link import MpiLink

    link = MpiLink()
    found = link.first(run_seed())
    if not is_seeded():
        seed(found)  # the ranks make the same model, in the same order
    return link


def is_launched() -> bool:
    """Whether this is one of several processes of a launcher."""
    sizes = [os.environ[name] for name in SIZES if name in os.environ]
    if sizes:
        return int(sizes[0]) > 1
    return any(name in os.environ for name in RANK_VARIABLES)
