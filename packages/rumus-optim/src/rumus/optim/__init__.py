"""Optimizers that own their parameters.

>>> from rumus.optim import AdamW
>>> from rumus.tensor import Parameter
>>> weight = Parameter([2.0], name="weight")
>>> optimizer = AdamW([weight], 0.1)
>>> with (weight * weight).sum().backward() as grads:
...     optimizer.step(grads)
"""

from rumus.optim import rules
from rumus.optim.accumulation import Accumulation
from rumus.optim.adabelief import AdaBelief
from rumus.optim.adadelta import Adadelta
from rumus.optim.adafactor import Adafactor
from rumus.optim.adagrad import Adagrad
from rumus.optim.adam import Adam, AdamW
from rumus.optim.adamax import Adamax
from rumus.optim.adan import Adan
from rumus.optim.adopt import ADOPT
from rumus.optim.asgd import ASGD
from rumus.optim.average import EMA, SWA, Average
from rumus.optim.averaging import AveragingOptimizer
from rumus.optim.clip import AGC, Clip, ClipNorm, ClipValue
from rumus.optim.clipping import clip_grad_norm, clip_grad_value
from rumus.optim.closure import ClosureOptimizer
from rumus.optim.footprint import Memory
from rumus.optim.fused import FusedOptimizer
from rumus.optim.group import Claimable, ParameterGroup
from rumus.optim.hyperparameter import Hyper
from rumus.optim.lamb import LAMB
from rumus.optim.lars import LARS
from rumus.optim.lbfgs import LBFGS
from rumus.optim.lion import Lion
from rumus.optim.lookahead import Lookahead
from rumus.optim.loss_scale import LossScale, Scaling
from rumus.optim.muon import Muon
from rumus.optim.nadam import NAdam
from rumus.optim.optimizer import Optimizer
from rumus.optim.options import Options
from rumus.optim.plateau import Plateau
from rumus.optim.porting import Library, PresetOptions
from rumus.optim.radam import RAdam
from rumus.optim.rmsprop import RMSprop
from rumus.optim.rprop import Rprop
from rumus.optim.rules import Rule, Update
from rumus.optim.running import Running
from rumus.optim.sam import SAM
from rumus.optim.schedule import (
    Schedule,
    constant,
    cosine,
    cyclic,
    exponential,
    inverse_sqrt,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    step_decay,
    warm_restarts,
    warmup,
)
from rumus.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from rumus.optim.sgd import SGD
from rumus.optim.state_file import HasState, StateFileError, load_state, save_state
from rumus.optim.torch_state import load_torch_state, torch_state
from rumus.optim.yogi import Yogi
from rumus.tensor.updater import NonFinite

__version__ = "0.1.0"

__all__ = [
    "ADOPT",
    "AGC",
    "ASGD",
    "Accumulation",
    "AdaBelief",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Average",
    "AveragingOptimizer",
    "Claimable",
    "Clip",
    "ClipNorm",
    "ClipValue",
    "ClosureOptimizer",
    "EMA",
    "FusedOptimizer",
    "HasState",
    "Hyper",
    "LAMB",
    "LARS",
    "LBFGS",
    "Library",
    "Lion",
    "Lookahead",
    "LossScale",
    "Memory",
    "Muon",
    "NAdam",
    "NonFinite",
    "Optimizer",
    "Options",
    "ParameterGroup",
    "Plateau",
    "PresetOptions",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Rule",
    "Running",
    "SAM",
    "SGD",
    "SWA",
    "Scaling",
    "Schedule",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "StateFileError",
    "Update",
    "Yogi",
    "clip_grad_norm",
    "clip_grad_value",
    "constant",
    "cosine",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "linear",
    "load_state",
    "load_torch_state",
    "multi_step",
    "one_cycle",
    "polynomial",
    "rules",
    "save_state",
    "step_decay",
    "torch_state",
    "warm_restarts",
    "warmup",
]
