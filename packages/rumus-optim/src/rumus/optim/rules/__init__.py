"""Update rules: each optimizer's mathematics, as one function of expressions.

A rule gets a parameter `p`, its gradient `g`, its state by name and, keyword-only, scalars; `t` is
the step number, 1 at the first. It returns the new values by the same names. The state is 0 before
the first step; a rule that needs another start adds it then, as in `s + where(t <= 1, start, 0)`.
Terms of scalars only, such as `1 - beta2**t`, are computed on the host in float64 and cost nothing
per parameter. The letters are those of the papers.
"""

from rumus.optim.rules.adam import (
    adam,
    adamax,
    adamw,
    adamw_amsgrad,
    amsgrad,
    mu_product,
    nadam,
    nadam_decoupled,
    radam,
    radam_decoupled,
)
from rumus.optim.rules.adaptive import (
    adadelta,
    adagrad,
    rmsprop,
    rmsprop_centered,
    rmsprop_centered_momentum,
    rmsprop_momentum,
)
from rumus.optim.rules.after_adam import (
    adabelief,
    adan,
    ademamix,
    adopt,
    adopt_decoupled,
    laprop,
    yogi,
)
from rumus.optim.rules.descent import asgd, average, lion, rprop, sgd, sgd_momentum, sgd_nesterov
from rumus.optim.rules.distance import dadapt_adam, dadapt_adam_decoupled, prodigy
from rumus.optim.rules.factored import adafactor, adafactor_factored
from rumus.optim.rules.layerwise import lamb, lars
from rumus.optim.rules.measured import mars, stable_adamw
from rumus.optim.rules.muon import muon
from rumus.optim.rules.rule import Rule, Update
from rumus.optim.rules.schedule_free import (
    largest_lr,
    schedule_free_adamw,
    schedule_free_point,
    schedule_free_sgd,
    step_weight,
    step_weight_sum,
)
from rumus.optim.rules.soap import soap

__all__ = [
    "Rule",
    "Update",
    "adabelief",
    "adadelta",
    "adafactor",
    "adafactor_factored",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adamw_amsgrad",
    "adan",
    "ademamix",
    "adopt",
    "adopt_decoupled",
    "amsgrad",
    "asgd",
    "average",
    "dadapt_adam",
    "dadapt_adam_decoupled",
    "lamb",
    "largest_lr",
    "laprop",
    "lars",
    "lion",
    "mu_product",
    "mars",
    "muon",
    "nadam",
    "nadam_decoupled",
    "prodigy",
    "radam",
    "radam_decoupled",
    "rmsprop",
    "rmsprop_centered",
    "rmsprop_centered_momentum",
    "rmsprop_momentum",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_point",
    "schedule_free_sgd",
    "sgd",
    "sgd_momentum",
    "sgd_nesterov",
    "soap",
    "stable_adamw",
    "step_weight",
    "step_weight_sum",
    "yogi",
]
