"""Training on several GPUs and several machines, on MPI.

The same script runs as one process or, started by `python -m rumus.distributed -n 4 script.py` or
by `mpiexec`, as several, with the same numbers:

>>> import numpy as np
>>> from rumus.distributed import ranks
>>> from rumus.optim import SGD
>>> from rumus.tensor import Parameter
>>> from rumus.train import ArrayDataset, DataLoader, Trainer
>>> team = ranks(deadline=600)
>>> data = ArrayDataset(np.linspace(0, 1, 32, dtype=np.float32))
>>> loader = DataLoader(data, 16, shuffle=True, ranks=team, shards=4)
>>> weight = Parameter([4.0], name="weight")
>>> trainer = Trainer(SGD([weight], 0.25), ranks=team)
>>> trainer.fit(loader, lambda x: ((weight - x) ** 2).mean(), epochs=2).steps
4
"""

from rumus.distributed.errors import RankError
from rumus.distributed.processes import Ranks, ranks

__version__ = "0.1.0"

__all__ = ["RankError", "Ranks", "ranks"]
