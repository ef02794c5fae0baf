"""The states of PyTorch's optimizers, read and written. PyTorch itself is not needed.

PyTorch numbers parameters in the order passed to its optimizer, and counts the steps of each; rumus
identifies them by name. Both keep the same averages under different names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import ParameterGroup
from rumus.optim.options.hyperparameter import TOGETHER, at_step
from rumus.optim.options.running import Running
from rumus.tensor import StateMismatchError
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.choice import check_choice

# kind -> PyTorch's names of the parts of the state
_PARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "SGD": {"b": "momentum_buffer"},
    "Adam": {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"},
    "AdamW": {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"},
    "Adagrad": {"s": "sum"},
    "RMSprop": {"v": "square_avg", "b": "momentum_buffer", "m": "grad_avg"},
    "Adadelta": {"v": "square_avg", "u": "acc_delta"},
    "Adamax": {"m": "exp_avg", "u": "exp_inf"},
    "NAdam": {"m": "exp_avg", "v": "exp_avg_sq"},
    "RAdam": {"m": "exp_avg", "v": "exp_avg_sq"},
    "Rprop": {"g_before": "prev", "step": "step_size"},
    "ASGD": {"ax": "ax"},
    "Adafactor": {"R": "row_var", "C": "col_var", "v": "variance"},
    "Muon": {"b": "momentum_buffer"},
}
_ONE: Final = {"row_var": -1, "col_var": -2}  # the axis of length 1 that PyTorch adds
_UNCOUNTED: Final = ("SGD", "Muon")  # whose state does not hold the number of steps
# kind -> the hyperparameters of PyTorch's groups
_HYPER: Final[Mapping[str, tuple[str, ...]]] = {
    "SGD": ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
    "Adam": ("lr", "betas", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay"),
    "AdamW": ("lr", "betas", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay"),
    "Adagrad": ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"),
    "RMSprop": ("lr", "alpha", "eps", "weight_decay", "momentum", "centered"),
    "Adadelta": ("lr", "rho", "eps", "weight_decay"),
    "Adamax": ("lr", "betas", "eps", "weight_decay"),
    "NAdam": ("lr", "betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay"),
    "RAdam": ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay"),
    "Rprop": ("lr", "etas", "step_sizes"),
    "ASGD": ("lr", "lambd", "alpha", "t0", "weight_decay"),
    "Adafactor": ("lr", "beta2_decay", "eps", "d", "weight_decay"),
    "Muon": (
        "lr", "weight_decay", "momentum", "nesterov", "ns_coefficients", "eps", "ns_steps",
        "adjust_lr_fn",
    ),
}  # fmt: skip
_LATER: Final = {"decoupled_weight_decay", "maximize"}  # not written by older releases
_SWITCHES: Final = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}


@checked_first
def load_torch_state(
    optimizer: FusedOptimizer[Any],
    state: Mapping[str, Any],
    names: Iterable[str] | None = None,
    *,
    steps: int | None = None,
    hyper: Literal["same", "ours"] = "same",
) -> None:
    """Load the state of PyTorch's optimizer of the same name into an optimizer.

    optimizer: of the same name and formula as PyTorch's.
    state: the result of `state_dict()` of the PyTorch optimizer; its arrays may be of any kind that
        NumPy can convert.
    names: the parameters' names here, in the order passed to PyTorch's optimizer, such as `[name
        for name, _ in model.named_parameters()]`; None uses those in the state, if PyTorch got
        named parameters.
    steps: the number of steps done, only for SGD and Muon, whose state does not hold it.
    hyper: "same" raises for a hyperparameter that differs (a schedule is evaluated at the next
        step); "ours" keeps the optimizer's, whatever the state holds.

    Everything is copied, or StateMismatchError lists every difference and nothing has changed.
    Raises TypeError for an optimizer that PyTorch lacks, and for a Muon that steps more than
    matrices. The parameters are not part of the state: copy them separately. Up to release 2.14,
    PyTorch's Muon spoils the momentum of bfloat16 parameters with nesterov=False; bfloat16 is
    rejected here.

    >>> import numpy as np
    >>> from rumus.optim import SGD, load_torch_state
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0, 2.0], name="w")
    >>> optimizer = SGD([w], 0.5, momentum=0.5)
    >>> group = {"lr": 0.5, "momentum": 0.5, "dampening": 0, "weight_decay": 0, "nesterov": False}
    >>> buffers = {0: {"momentum_buffer": np.ones(2, np.float32)}}
    >>> saved = {"state": buffers, "param_groups": [{**group, "params": [0]}]}
    >>> load_torch_state(optimizer, saved, ["w"], steps=1)
    >>> optimizer.step(w.sum().backward())  # the momentum is now 0.5 * 1 + 1
    >>> w.tolist()
    [0.25, 1.25]
    """
    _check_kind(optimizer)
    check_choice("hyper", hyper, ("same", "ours"))
    if (steps is None) == (optimizer.kind in _UNCOUNTED):
        named = " and ".join(_UNCOUNTED)
        raise TypeError(f"steps: give it only for {named}, whose state does not count them")
    reading = _Reading(optimizer, state, names, steps)
    found = reading.found
    if not found:
        found += reading.hyper_differences() if hyper == "same" else []
        found += optimizer.state_differences(reading.state)
    if found:
        raise StateMismatchError(
            f"this PyTorch state does not fit the {optimizer.kind}:\n  " + "\n  ".join(found)
        )
    optimizer.load_state_dict(reading.state)


@checked_first
def torch_state(
    optimizer: FusedOptimizer[Any],
    names: Iterable[str],
    *,
    tensor: Callable[[NDArray[Any]], Any] = lambda array: array,
) -> dict[str, Any]:
    """Return the state in the format of PyTorch's optimizer, for its `load_state_dict`.

    optimizer: an optimizer that PyTorch has, too.
    names: the parameters, in the order passed to PyTorch's optimizer, group by group; PyTorch's
        optimizer must have the same groups.
    tensor: makes a tensor from an array: `torch.from_numpy`.

    The hyperparameters in it are those of the next step.

    Raises ValueError for names that are not the optimizer's, TypeError for an optimizer that
    PyTorch lacks.
    """
    _check_kind(optimizer)
    order = list(names)
    if wrong := _misnamed(order, optimizer):
        raise ValueError("; ".join(wrong))
    saved = optimizer.state_dict()["parameters"]
    group_of = _groups(optimizer)
    state = {
        at: {key: tensor(array) for key, array in parts.items()}
        for at, name in enumerate(order)
        if (parts := _written(optimizer, group_of[name][1], saved[name]))
    }
    groups = []
    for positions in _positions([group_of[name][0] for name in order]):
        names_here = [order[at] for at in positions]
        count = max(saved[name]["steps"] for name in names_here)
        hyper = _hyper(optimizer, group_of[names_here[0]][1], count + 1)
        groups.append({**hyper, **_SWITCHES, "params": positions})
    return {"state": state, "param_groups": groups}


class _Reading:
    """A PyTorch state as the state of a rumus optimizer. `found`: its errors."""

    def __init__(
        self,
        optimizer: FusedOptimizer[Any],
        saved: Mapping[str, Any],
        names: Iterable[str] | None,
        steps: int | None,
    ) -> None:
        self.optimizer, self.steps = optimizer, steps
        self.state = optimizer.state_dict()
        self.state["skipped"] = 0
        self.groups: dict[str, Mapping[str, Any]] = {}  # PyTorch's, by the name of the parameter
        self.entries: dict[str, Mapping[str, Any]] = {}
        self.found = self._by_name(saved, names)
        if not self.found:
            for name, entry in self.entries.items():
                self._read(name, entry)
            self.state["steps"] = max(e["steps"] for e in self.state["parameters"].values())

    def _by_name(self, saved: Mapping[str, Any], names: Iterable[str] | None) -> list[str]:
        try:
            groups = list(saved["param_groups"])
            entries: dict[Any, Any] = dict(saved["state"])
            numbered = [(group, n) for group in groups for n in group["params"]]
            frozenset(number for _, number in numbered)  # TypeError for what is no number
            order = list(names) if names is not None else _names_in(groups)
        except (KeyError, TypeError, ValueError):
            return ["it has no 'state' and 'param_groups': is it an optimizer's state_dict()?"]
        if names is None and len(order) != len(numbered):
            return ["it does not name its parameters: give the names in PyTorch's order"]
        if len(order) != len(numbered):
            return [f"parameters: saved {len(numbered)}, but {len(order)} names"]
        if wrong := _misnamed(order, self.optimizer):
            return wrong
        for name, (group, number) in zip(order, numbered, strict=True):
            self.groups[name] = group
            self.entries[name] = entries.pop(number, None) or entries.pop(str(number), None) or {}
        read: dict[str, object] = dict(self.entries)
        odd = [name for name, entry in read.items() if not isinstance(entry, Mapping)]
        found = [f"{name!r}: its state is not a mapping" for name in odd]
        return found + [f"parameter {number}: saved, but in no group" for number in entries]

    def _read(self, name: str, entry: Mapping[str, Any]) -> None:
        target = self.state["parameters"][name]
        count = _count(self.steps if self.steps is not None else entry.get("step", 0))
        if count is None:
            self.found.append(f"{name!r}: step {entry.get('step')!r} is not a count")
            return
        buffers = {key: value for key, value in entry.items() if value is not None}
        if self.optimizer.kind == "SGD" and self.optimizer.state_names and not buffers:
            count = 0  # a parameter without any gradient so far
        target["steps"] = count
        parts = _PARTS[self.optimizer.kind]
        wanted = {parts[part]: part for part in target["state"] if part in parts}
        known = {*wanted, "step", "mu_product", "eta", "mu"}
        self.found += [f"{name!r}: saved {key!r}, not here" for key in buffers if key not in known]
        for key, part in wanted.items():
            if count == 0:  # the rule itself adds PyTorch's initial value, if not 0
                target["state"][part] = np.zeros_like(target["state"][part])
            elif key not in buffers:
                self.found.append(f"{name!r}: {key!r} here, not saved")
            else:
                self._put(name, part, key, buffers[key])

    def _put(self, name: str, part: str, key: str, value: Any) -> None:
        try:
            array = np.array(np.asarray(value), order="C")
            array = np.squeeze(array, _ONE[key]) if key in _ONE else array
        except (TypeError, ValueError, RuntimeError) as error:
            self.found.append(f"{name!r}: {key!r} cannot be read as a NumPy array: {error}")
            return
        target = self.state["parameters"][name]
        own = target["state"][part].dtype
        is_other = own != target["dtype"]  # by an option that PyTorch lacks
        target["state"][part] = array.astype(own) if is_other and array.dtype.kind == "f" else array

    def hyper_differences(self) -> list[str]:
        """Every hyperparameter that differs, and every stored PyTorch number that reveals one."""
        found = []
        for name, (_, group) in _groups(self.optimizer).items():
            count = self.state["parameters"][name]["steps"]
            ours = _hyper(self.optimizer, group, count + 1)
            kept = _kept(self.optimizer, group, count) if count else {}
            saved = {**self.groups[name], **{key: self.entries[name].get(key) for key in kept}}
            for key, value in {**ours, **kept}.items():
                if key not in saved and key not in _LATER:
                    found.append(f"{name!r}: the state has no {key!r}: is it of another kind?")
                elif key in saved and not _close(saved[key], value, 1e-6 if key in ours else 1e-2):
                    found.append(f"{name!r}: {key} saved {saved[key]}, here {value}")
        return found


def _positions(groups: Sequence[int]) -> list[list[int]]:
    """The positions of each group's parameters, given the group number of every parameter."""
    runs = [(number, [at for at, _ in run]) for number, run in groupby(enumerate(groups), _second)]
    if len(runs) > len(set(groups)):
        raise ValueError("names: list the parameters of each group next to each other")
    return [positions for _, positions in runs]


def _second(pair: tuple[int, int]) -> int:
    return pair[1]


def _check_kind(optimizer: FusedOptimizer[Any]) -> None:
    if optimizer.kind not in _PARTS:
        raise TypeError(f"PyTorch has no {optimizer.kind}; it has {', '.join(_PARTS)}")
    if any(segment.rule is not None and not segment.shapes for segment in optimizer.segments):
        raise TypeError(
            f"PyTorch's {optimizer.kind} takes only matrices, but {optimizer} also steps others "
            "with AdamW: give it only the matrices, and the others to a separate AdamW"
        )
    if optimizer.packs:
        raise TypeError(
            f"PyTorch's {optimizer.kind} has no 8-bit state: make one without state_dtype"
        )


def _names_in(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for group in groups for name in group.get("param_names", ())]


def _misnamed(names: Sequence[str], optimizer: FusedOptimizer[Any]) -> list[str]:
    owned, counts = dict.fromkeys(name for name, _ in optimizer.named_parameters()), Counter(names)
    found = [f"{name!r}: named, not here" for name in names if name not in owned]
    found += [f"{name!r}: here, not named" for name in owned if name not in counts]
    repeated = {name for name, count in counts.items() if count > 1}
    return found + [f"{name!r}: named twice" for name in sorted(repeated)]


def _groups(optimizer: FusedOptimizer[Any]) -> dict[str, tuple[int, ParameterGroup]]:
    return {
        name: (number, group)
        for number, group in enumerate(optimizer.groups)
        for name, _ in group.named
    }


def _count(value: Any) -> int | None:
    try:
        count = float(np.asarray(value))
    except (TypeError, ValueError):
        return None
    return int(count) if count >= 0 and count.is_integer() else None


def _close(saved: Any, ours: Any, tolerance: float) -> bool:
    if isinstance(ours, str):
        return ours == (saved or "original")  # the meaning of None in PyTorch's Muon
    if isinstance(ours, tuple) and isinstance(saved, (tuple, list)):
        pairs = zip(saved, ours, strict=False)
        return len(saved) == len(ours) and all(_close(a, b, tolerance) for a, b in pairs)
    if ours is None or saved is None:
        return ours is saved
    try:
        pairs = zip(np.atleast_1d(saved).tolist(), np.atleast_1d(ours).tolist(), strict=True)
        return all(math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12) for a, b in pairs)
    except (TypeError, ValueError):
        return False


def _hyper(optimizer: FusedOptimizer[Any], group: ParameterGroup, step: int) -> dict[str, Any]:
    """A group's hyperparameters at a step, as in PyTorch's groups."""
    kind, own = optimizer.kind, group.over(optimizer.hyper)
    values = {name: at_step(name, value, step) for name, value in own.items()}
    flags: dict[str, Any] = {
        "nesterov": optimizer.rule is rules.sgd_nesterov,
        "amsgrad": "v_max" in optimizer.state_names,
        "centered": "m" in optimizer.state_names,
        "decoupled_weight_decay": "weight_decay" in optimizer.scalar_names,
        **optimizer.torch_options(values),
    }
    found: dict[str, Any] = {"maximize": optimizer.maximize}
    for key in _HYPER[kind]:
        if key in flags:
            found[key] = flags[key]
        elif key in TOGETHER:
            found[key] = tuple(values[name] for name in TOGETHER[key] if name in values)
        else:
            found[key] = values.get(key, 0.0)  # SGD's rule lacks momentum if it is 0
    return found


def _kept(optimizer: FusedOptimizer[Any], group: ParameterGroup, count: int) -> dict[str, float]:
    """Numbers that PyTorch stores after so many steps, and rumus computes from the count."""
    hyper = group.over(optimizer.hyper)
    if optimizer.kind == "NAdam":
        return Running(mu_product=(1.0, rules.mu_product)).at(0, count, hyper)
    if optimizer.kind == "ASGD":
        at = {name: at_step(name, hyper[name], count) for name in ("lr", "lambd", "alpha", "t0")}
        eta = at["lr"] / (1 + at["lambd"] * at["lr"] * count) ** at["alpha"]
        return {"eta": eta, "mu": 1 / max(1.0, count - at["t0"])}
    return {}


def _written(
    optimizer: FusedOptimizer[Any], group: ParameterGroup, entry: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """PyTorch's state of a parameter: empty before its first step, except for Adagrad."""
    count, parts = entry["steps"], _PARTS[optimizer.kind]
    if count == 0 and optimizer.kind != "Adagrad":
        return {}
    found = {
        key: np.expand_dims(array, _ONE[key]) if key in _ONE else array
        for part, array in entry["state"].items()
        if (key := parts.get(part)) is not None
    }
    if count == 0:
        start = _hyper(optimizer, group, 1)["initial_accumulator_value"]
        found["sum"] = found["sum"] + found["sum"].dtype.type(start)
    numbers = {} if optimizer.kind in _UNCOUNTED else {"step": float(count)}
    numbers |= _kept(optimizer, group, count) if count else {}
    return found | {key: np.array(value, np.float32) for key, value in numbers.items()}
