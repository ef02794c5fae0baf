"""Presets: optimizers with another library's defaults and mathematics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from rumus.optim import rules
from rumus.optim.engine.muon_variant import Adjust
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options
from rumus.optim.rules import Rule
from rumus.optim.rules import ported as other
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.graph.selection import Criterion

Library: TypeAlias = Literal["torch", "keras", "optax", "mlx", "burn", "tinygrad"]


# Newton-Schulz coefficients: one (a, b, c) for all iterations, one for each, or a name.
Triple: TypeAlias = tuple[float, float, float]
Coefficients: TypeAlias = "Triple | Sequence[Triple] | Literal['polar_express']"


class PresetOptions(Options, total=False):
    """The options of a preset: those of the optimizer's constructor."""

    betas: tuple[float, float]
    eps: Hyper
    weight_decay: Hyper
    momentum: Hyper
    dampening: Hyper
    alpha: Hyper
    rho: Hyper
    lr_decay: Hyper
    momentum_decay: Hyper
    initial_accumulator_value: float
    decay: Literal["all", "matrices"]
    amsgrad: bool
    centered: bool
    nesterov: bool
    decoupled_weight_decay: bool
    adjust: Adjust
    iterations: int
    coefficients: Coefficients
    matrices: Criterion | None
    adamw_lr: Hyper | None
    adamw_betas: tuple[float, float]
    adamw_eps: float
    adamw_weight_decay: Hyper | None


@dataclass(frozen=True, slots=True)
class Preset:
    """A library's optimizer: its learning rate, its other defaults, its rule.

    lr: None if the library has no default. rule: pops the switches from the options and returns the
    rule that they select, or None for the class's own.
    """

    lr: float | None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rule: Callable[[dict[str, Any]], Rule | None] = lambda options: None


def preset(kind: str, library: str) -> Preset:
    """Return a preset. ValueError for a library without one; it lists those that have one."""
    known = PRESETS.get(kind, {})
    if library not in known:
        listed = ", ".join(map(repr, known)) or "no library"
        raise ValueError(f"{kind}.like({library!r}): {kind} has presets for {listed}")
    return known[library]


def chosen(
    kind: str, library: str, lr: Hyper | None, options: Mapping[str, Any]
) -> tuple[Rule | None, Hyper, dict[str, Any]]:
    """Return a preset's rule, learning rate and other options.

    The rule is None if it is the class's own. lr, options: override the preset's. ValueError if
    there is no learning rate, TypeError for an option that only Muon has.
    """
    found = preset(kind, library)
    rate = found.lr if lr is None else lr
    if rate is None:
        raise ValueError(f"{library} has no default learning rate: give lr")
    given: dict[str, Any] = {**found.defaults, **options}
    if kind != "Muon":
        _refuse_options_of_muon(kind, given)
    return found.rule(given), rate, given


_MUON_S_OWN: Final = ("adjust", "iterations", "coefficients", "matrices")


def _refuse_options_of_muon(kind: str, options: Mapping[str, object]) -> None:
    """Raise TypeError if another optimizer is given one of Muon's options in `PresetOptions`."""
    for name in options:
        if name in _MUON_S_OWN or name.startswith("adamw_"):
            raise TypeError(f"{kind} has no option {name!r}: only Muon has it")


def taken_decay(options: dict[str, Any]) -> str:
    """Pop the options that no rule takes: `decay`, and unset switches; TypeError for a set one."""
    for name in ("amsgrad", "centered", "nesterov", "decoupled_weight_decay"):
        if options.pop(name, False):
            raise TypeError(f"{name} is not available for this optimizer in this library")
    decay = str(options.pop("decay", "all"))
    check_choice("decay", decay, ("all", "matrices"))
    return decay


def _always(rule: Rule) -> Callable[[dict[str, Any]], Rule]:
    return lambda options: rule


def _keras_sgd(options: dict[str, Any]) -> Rule:
    nesterov = options.pop("nesterov", False)
    if options["momentum"] == 0:
        del options["momentum"]
        return other.decoupled(rules.sgd)
    return other.decoupled(other.sgd_velocity_nesterov if nesterov else other.sgd_velocity)


def _burn_sgd(options: dict[str, Any]) -> Rule | None:
    both = options.get("nesterov", False) and options["dampening"] != 0
    return other.sgd_nesterov_dampened if both and options.pop("nesterov") else None


def _keras_adam(options: dict[str, Any]) -> Rule:
    largest = options.pop("amsgrad", False)
    return other.decoupled(other.amsgrad_outer_eps if largest else other.adam_outer_eps)


def _inner_rmsprop(options: dict[str, Any]) -> Rule:
    centered = options.pop("centered", False)
    if options["momentum"] == 0:
        del options["momentum"]
        return other.rmsprop_inner_eps_centered if centered else other.rmsprop_inner_eps
    if centered:
        return other.rmsprop_inner_eps_centered_momentum
    return other.rmsprop_inner_eps_momentum


_ADAM: Final = {"betas": (0.9, 0.999), "eps": 1e-8}
_KERAS: Final = {"betas": (0.9, 0.999), "eps": 1e-7, "weight_decay": 0.0}
_NADAM: Final = {"eps": 1e-7, "momentum_decay": 1.0, "decoupled_weight_decay": True}

PRESETS: Final[Mapping[str, Mapping[str, Preset]]] = {
    "SGD": {
        "torch": Preset(1e-3),
        "keras": Preset(1e-2, {"momentum": 0.0, "weight_decay": 0.0}, _keras_sgd),
        "optax": Preset(None),
        "mlx": Preset(None),
        "burn": Preset(None, {"dampening": 0.1}, _burn_sgd),
        "tinygrad": Preset(1e-3),
    },
    "Adam": {
        "torch": Preset(1e-3),
        "keras": Preset(1e-3, _KERAS, _keras_adam),
        "optax": Preset(None),
        "mlx": Preset(None, _ADAM, _always(other.adam_uncorrected)),
        "burn": Preset(None, {"eps": 1e-5}),
        "tinygrad": Preset(1e-3),
    },
    "AdamW": {
        "torch": Preset(1e-3),
        "keras": Preset(1e-3, _KERAS | {"weight_decay": 0.004}, _keras_adam),
        "optax": Preset(None, {"weight_decay": 1e-4}),
        "mlx": Preset(
            None,
            _ADAM | {"weight_decay": 0.01},
            _always(other.decoupled(other.adam_uncorrected)),
        ),
        "burn": Preset(None, {"eps": 1e-5, "weight_decay": 1e-4}),
        "tinygrad": Preset(1e-3),
    },
    "Adamax": {
        "torch": Preset(2e-3),
        "keras": Preset(1e-3, _KERAS, _always(other.decoupled(other.adamax_outer_eps))),
        "optax": Preset(None),
        "mlx": Preset(None, _ADAM, _always(other.adamax_uncorrected)),
    },
    "RMSprop": {
        "torch": Preset(1e-2),
        "keras": Preset(
            1e-3,
            {"alpha": 0.9, "eps": 1e-7, "momentum": 0.0, "weight_decay": 0.0},
            lambda options: other.decoupled(_inner_rmsprop(options)),
        ),
        "optax": Preset(None, {"alpha": 0.9, "eps": 1e-8, "momentum": 0.0}, _inner_rmsprop),
        "mlx": Preset(None),
        "burn": Preset(None, {"momentum": 0.9, "eps": 1e-5}),
    },
    "Adagrad": {
        "torch": Preset(1e-2),
        "keras": Preset(
            1e-3,
            {"initial_accumulator_value": 0.1, "eps": 1e-7, "weight_decay": 0.0},
            _always(other.decoupled(other.adagrad_inner_eps)),
        ),
        "optax": Preset(
            None,
            {"initial_accumulator_value": 0.1, "eps": 1e-7},
            _always(other.adagrad_inner_eps),
        ),
        "mlx": Preset(None, {"eps": 1e-8}),
        "burn": Preset(None, {"eps": 1e-5}),
    },
    "Adadelta": {
        "torch": Preset(1.0),
        "keras": Preset(
            1e-3,
            {"rho": 0.95, "eps": 1e-7, "weight_decay": 0.0},
            _always(other.decoupled(rules.adadelta)),
        ),
        "optax": Preset(None),
        "mlx": Preset(None),
    },
    "NAdam": {
        "torch": Preset(2e-3),
        "keras": Preset(1e-3, _NADAM),
        "optax": Preset(None, _ADAM, _always(other.nadam_constant)),
    },
    "RAdam": {
        "torch": Preset(1e-3),
        "optax": Preset(None, _ADAM, _always(other.radam_corrected_eps)),
    },
    "Muon": {  # rumus.optim.engine.muon_variant holds the mathematics
        "torch": Preset(1e-3),
        "keras": Preset(
            1e-3,
            {
                "weight_decay": 0.004,
                "adjust": "match_rms_adamw",
                "adamw_eps": 1e-7,
                "adamw_weight_decay": 0.004,
            },
        ),
        "optax": Preset(None, {"weight_decay": 0.0, "eps": 1e-8, "adamw_weight_decay": 0.0}),
        "mlx": Preset(None, {"weight_decay": 0.01}),
        "burn": Preset(None, {"weight_decay": 0.0, "adamw_eps": 1e-5, "adamw_weight_decay": 1e-4}),
    },
}
