"""Optimizers that own their parameters. Modules are imported on first use.

>>> from rumus.optim import AdamW
>>> from rumus.tensor import Parameter
>>> weight = Parameter([2.0], name="weight")
>>> optimizer = AdamW([weight], 0.1)
>>> with (weight * weight).sum().backward() as grads:
...     optimizer.step(grads)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rumus.optim import rules
    from rumus.optim.algorithms.adabelief import AdaBelief
    from rumus.optim.algorithms.adadelta import Adadelta
    from rumus.optim.algorithms.adafactor import Adafactor
    from rumus.optim.algorithms.adagrad import Adagrad
    from rumus.optim.algorithms.adam import Adam, AdamW
    from rumus.optim.algorithms.adamax import Adamax
    from rumus.optim.algorithms.adan import Adan
    from rumus.optim.algorithms.ademamix import AdEMAMix
    from rumus.optim.algorithms.adopt import ADOPT
    from rumus.optim.algorithms.asgd import ASGD
    from rumus.optim.algorithms.distance import DAdaptAdam, Prodigy
    from rumus.optim.algorithms.lamb import LAMB
    from rumus.optim.algorithms.laprop import LaProp
    from rumus.optim.algorithms.lars import LARS
    from rumus.optim.algorithms.lbfgs import LBFGS
    from rumus.optim.algorithms.lion import Lion
    from rumus.optim.algorithms.mars import MARS
    from rumus.optim.algorithms.muon import Muon
    from rumus.optim.algorithms.nadam import NAdam
    from rumus.optim.algorithms.radam import RAdam
    from rumus.optim.algorithms.rmsprop import RMSprop
    from rumus.optim.algorithms.rprop import Rprop
    from rumus.optim.algorithms.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
    from rumus.optim.algorithms.sgd import SGD
    from rumus.optim.algorithms.soap import SOAP
    from rumus.optim.algorithms.stable_adamw import StableAdamW
    from rumus.optim.algorithms.yogi import Yogi
    from rumus.optim.engine.clip_gradients import clip_grad_norm, clip_grad_value
    from rumus.optim.engine.closure import ClosureOptimizer
    from rumus.optim.engine.footprint import Memory
    from rumus.optim.engine.loss_scale import LossScale, Scaling
    from rumus.optim.engine.optimizer import Optimizer
    from rumus.optim.engine.porting import Library, PresetOptions
    from rumus.optim.files.state_file import HasState, StateFileError, load_state, save_state
    from rumus.optim.files.torch_state import load_torch_state, torch_state
    from rumus.optim.fused.averaging_optimizer import AveragingOptimizer
    from rumus.optim.fused.fused import FusedOptimizer
    from rumus.optim.options.average import EMA, SWA, Average
    from rumus.optim.options.clip import AGC, AdaGC, Clip, ClipNorm, ClipValue, ZClip
    from rumus.optim.options.group import Claimable, ParameterGroup
    from rumus.optim.options.hyperparameter import Hyper
    from rumus.optim.options.options import Options
    from rumus.optim.options.plateau import Plateau
    from rumus.optim.options.running import Running
    from rumus.optim.options.schedule import (
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
    from rumus.optim.rules import Rule, Update
    from rumus.optim.wrappers.accumulation import Accumulation
    from rumus.optim.wrappers.lookahead import Lookahead
    from rumus.optim.wrappers.multi_optimizer import MultiOptimizer
    from rumus.optim.wrappers.sam import SAM
    from rumus.tensor.memory.updater import NonFinite

__version__ = "0.1.0"

__all__ = [
    "ADOPT",
    "AGC",
    "ASGD",
    "Accumulation",
    "AdEMAMix",
    "AdaBelief",
    "AdaGC",
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
    "DAdaptAdam",
    "EMA",
    "FusedOptimizer",
    "HasState",
    "Hyper",
    "LAMB",
    "LARS",
    "LBFGS",
    "LaProp",
    "Library",
    "Lion",
    "Lookahead",
    "LossScale",
    "MARS",
    "Memory",
    "MultiOptimizer",
    "Muon",
    "NAdam",
    "NonFinite",
    "Optimizer",
    "Options",
    "ParameterGroup",
    "Plateau",
    "PresetOptions",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Rule",
    "Running",
    "SAM",
    "SGD",
    "SOAP",
    "SWA",
    "Scaling",
    "Schedule",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "StableAdamW",
    "StateFileError",
    "Update",
    "Yogi",
    "ZClip",
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

# The public names of the other modules.
_NAMES: Final = {
    "algorithms.adabelief": "AdaBelief",
    "algorithms.adadelta": "Adadelta",
    "algorithms.adafactor": "Adafactor",
    "algorithms.adagrad": "Adagrad",
    "algorithms.adam": "Adam AdamW",
    "algorithms.adamax": "Adamax",
    "algorithms.adan": "Adan",
    "algorithms.ademamix": "AdEMAMix",
    "algorithms.adopt": "ADOPT",
    "algorithms.asgd": "ASGD",
    "algorithms.distance": "DAdaptAdam Prodigy",
    "algorithms.lamb": "LAMB",
    "algorithms.laprop": "LaProp",
    "algorithms.lars": "LARS",
    "algorithms.lbfgs": "LBFGS",
    "algorithms.lion": "Lion",
    "algorithms.mars": "MARS",
    "algorithms.muon": "Muon",
    "algorithms.nadam": "NAdam",
    "algorithms.radam": "RAdam",
    "algorithms.rmsprop": "RMSprop",
    "algorithms.rprop": "Rprop",
    "algorithms.schedule_free": "ScheduleFreeAdamW ScheduleFreeSGD",
    "algorithms.sgd": "SGD",
    "algorithms.soap": "SOAP",
    "algorithms.stable_adamw": "StableAdamW",
    "algorithms.yogi": "Yogi",
    "engine.clip_gradients": "clip_grad_norm clip_grad_value",
    "engine.closure": "ClosureOptimizer",
    "engine.footprint": "Memory",
    "engine.loss_scale": "LossScale Scaling",
    "engine.optimizer": "Optimizer",
    "engine.porting": "Library PresetOptions",
    "files.state_file": "HasState StateFileError load_state save_state",
    "files.torch_state": "load_torch_state torch_state",
    "fused.averaging_optimizer": "AveragingOptimizer",
    "fused.fused": "FusedOptimizer",
    "options.average": "EMA SWA Average",
    "options.clip": "AGC AdaGC Clip ClipNorm ClipValue ZClip",
    "options.group": "Claimable ParameterGroup",
    "options.hyperparameter": "Hyper",
    "options.options": "Options",
    "options.plateau": "Plateau",
    "options.running": "Running",
    "options.schedule": "Schedule constant cosine cyclic exponential inverse_sqrt "
    "linear multi_step one_cycle polynomial step_decay warm_restarts warmup",
    "rules": "Rule Update",
    "wrappers.accumulation": "Accumulation",
    "wrappers.lookahead": "Lookahead",
    "wrappers.multi_optimizer": "MultiOptimizer",
    "wrappers.sam": "SAM",
}
_HOMES: Final = {
    name: f"{__name__}.{home}" for home, names in _NAMES.items() for name in names.split()
}
_HOMES["NonFinite"] = "rumus.tensor.memory.updater"

if not TYPE_CHECKING:  # for type checkers, a module with this function has every attribute

    def __getattr__(name: str) -> Any:
        """Import a name on first use."""
        if name == "rules":
            return import_module("rumus.optim.rules")
        if name not in _HOMES:
            from rumus.optim.options.other_names import MODULE

            MODULE.refuse(name)
        found = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
