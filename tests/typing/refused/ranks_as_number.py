"""The launcher decides how many ranks there are, not a number in the program."""

import numpy as np

from rumus.optim import SGD
from rumus.tensor import Parameter
from rumus.train import ArrayDataset, DataLoader, Trainer

data = ArrayDataset(np.ones(8, np.float32))
# error: Argument "ranks" to "DataLoader" has incompatible type "int"; expected "Ranks | None"  [arg-type]
DataLoader(data, 8, ranks=4)
# error: Argument "ranks" to "Trainer" has incompatible type "int"; expected "TrainingRanks | None"  [arg-type]
Trainer(SGD([Parameter([1.0])], 0.1), ranks=4)
