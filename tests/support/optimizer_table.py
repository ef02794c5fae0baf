"""All fused optimizers and the forms that their rules take: one row each.

The tests derive their lists of optimizers from this table, or compare them with it if they hold
something specific to each; a test in tests/optim compares the table with the public names of
rumus.optim. A new optimizer is one row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rumus import optim
from rumus.optim import FusedOptimizer


@dataclass(frozen=True)
class Row:
    """An optimizer as a test makes it.

    Args:
        kind: its class.
        form: the options that choose another form of its rule. The file of shaders/generated named
            as the row shows it, if the optimizer is elementwise.
        values: more options, with which a few steps change values of size 1 visibly, and every part
            of the rule counts.
        is_elementwise: whether a step treats each element by itself. Such an optimizer is one
            kernel and takes every option of precision.
        is_joint: whether parameters share numbers: one learning rate, and none is optional.
        in_torch: whether PyTorch has it too: tests/oracle compares the two.
    """

    kind: type[FusedOptimizer[Any]]
    form: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    is_elementwise: bool = True
    in_torch: bool = False
    is_joint: bool = False

    def __call__(self, parameters: Any, **options: Any) -> FusedOptimizer[Any]:
        """Make the optimizer. options: they come before those of the row."""
        return self.kind(parameters, **{**self.form, **self.values, **options})


_CENTERED: Final = {"centered": True}
_MOMENTUM: Final = {"momentum": 0.9}
ROWS: Final[Mapping[str, Row]] = {
    # PyTorch also has these.
    "SGD": Row(optim.SGD, {}, {"lr": 0.1}, in_torch=True),
    "SGD momentum": Row(optim.SGD, _MOMENTUM, {"lr": 0.1, "dampening": 0.5}, in_torch=True),
    "SGD nesterov": Row(
        optim.SGD, {**_MOMENTUM, "nesterov": True}, {"lr": 0.1, "weight_decay": 0.1}, in_torch=True
    ),
    "Adam": Row(optim.Adam, {}, {"lr": 0.1, "weight_decay": 0.1}, in_torch=True),
    "AMSGrad": Row(optim.Adam, {"amsgrad": True}, {"lr": 0.1}, in_torch=True),
    "AdamW": Row(optim.AdamW, {}, {"lr": 0.1, "weight_decay": 0.1}, in_torch=True),
    "Adagrad": Row(optim.Adagrad, {}, {"lr": 0.1, "initial_accumulator_value": 0.5}, in_torch=True),
    "RMSprop": Row(optim.RMSprop, {}, {"eps": 0.1}, in_torch=True),
    "RMSprop momentum": Row(optim.RMSprop, _MOMENTUM, {"eps": 0.1}, in_torch=True),
    "RMSprop centered": Row(optim.RMSprop, _CENTERED, {"eps": 0.1}, in_torch=True),
    "RMSprop centered momentum": Row(
        optim.RMSprop, {**_CENTERED, **_MOMENTUM}, {"lr": 0.1, "eps": 0.1}, in_torch=True
    ),
    "Adadelta": Row(optim.Adadelta, in_torch=True),
    "Adafactor": Row(
        optim.Adafactor,
        values={"lr": 0.1, "weight_decay": 0.1},
        is_elementwise=False,
        in_torch=True,
    ),
    "Adamax": Row(optim.Adamax, {}, {"weight_decay": 0.1}, in_torch=True),
    "NAdam": Row(
        optim.NAdam, {}, {"decoupled_weight_decay": True, "weight_decay": 0.1}, in_torch=True
    ),
    "RAdam": Row(optim.RAdam, {}, {"lr": 0.1}, in_torch=True),
    "Rprop": Row(optim.Rprop, in_torch=True),
    "ASGD": Row(optim.ASGD, {}, {"lr": 0.1, "t0": 1.0}, in_torch=True),
    "Muon": Row(optim.Muon, values={"adamw_lr": 0.1}, is_elementwise=False, in_torch=True),
    # The others.
    "Lion": Row(optim.Lion, {}, {"weight_decay": 0.1}),
    "LAMB": Row(optim.LAMB, {}, {"lr": 0.1}, is_elementwise=False),
    "LARS": Row(optim.LARS, {}, {"trust_coefficient": 0.1}, is_elementwise=False),
    "AdaBelief": Row(optim.AdaBelief, {}, {"eps": 1e-3}),
    "Yogi": Row(optim.Yogi),
    "Adan": Row(optim.Adan, {}, {"weight_decay": 0.1}),
    "ADOPT": Row(optim.ADOPT),
    "LaProp": Row(optim.LaProp, {}, {"lr": 0.1, "weight_decay": 0.1}),
    "AdEMAMix": Row(optim.AdEMAMix, {}, {"lr": 0.02, "betas": (0.9, 0.999, 0.99), "t_alpha": 3}),
    "StableAdamW": Row(optim.StableAdamW, {}, {"lr": 0.1}, is_elementwise=False),
    "MARS": Row(optim.MARS, {}, {"lr": 0.1, "weight_decay": 0.1}, is_elementwise=False),
    "SOAP": Row(optim.SOAP, {}, {"lr": 0.1, "precondition_frequency": 2}, is_elementwise=False),
    "Prodigy": Row(optim.Prodigy, {}, {"d0": 0.1, "weight_decay": 0.1}, False, is_joint=True),
    "DAdaptAdam": Row(optim.DAdaptAdam, {}, {"d0": 0.1}, False, is_joint=True),
    "schedule-free SGD": Row(optim.ScheduleFreeSGD, {}, {"lr": 0.1, "warmup_steps": 2}),
    "schedule-free AdamW": Row(optim.ScheduleFreeAdamW, {}, {"lr": 0.1, "r": 1.0}),
}
KINDS: Final = tuple(dict.fromkeys(row.kind for row in ROWS.values()))
ELEMENTWISE: Final = tuple(dict.fromkeys(row.kind for row in ROWS.values() if row.is_elementwise))
IN_TORCH: Final = tuple(dict.fromkeys(row.kind for row in ROWS.values() if row.in_torch))
