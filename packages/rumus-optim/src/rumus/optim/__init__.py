"""Optimizers that own their parameters.

>>> from rumus.optim import AdamW
>>> from rumus.tensor import Parameter
>>> weight = Parameter([2.0], name="weight")
>>> optimizer = AdamW([weight], 0.1)
>>> with (weight * weight).sum().backward() as grads:
...     optimizer.step(grads)
"""

from rumus.optim import rules
from rumus.optim.adam import Adam, AdamW
from rumus.optim.clipping import clip_grad_norm, clip_grad_value
from rumus.optim.fused import FusedOptimizer
from rumus.optim.group import Claimable, ParameterGroup
from rumus.optim.hyperparameter import Hyper
from rumus.optim.optimizer import Optimizer
from rumus.optim.rules import Rule, Update
from rumus.optim.sgd import SGD
from rumus.tensor.updater import NonFinite

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "AdamW",
    "Claimable",
    "FusedOptimizer",
    "Hyper",
    "NonFinite",
    "Optimizer",
    "ParameterGroup",
    "Rule",
    "SGD",
    "Update",
    "clip_grad_norm",
    "clip_grad_value",
    "rules",
]
