"""`ParameterGroup`: parameters that share hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from rumus.optim.options.hyperparameter import COMMON, Hyper, check, checked
from rumus.optim.options.other_names import GROUP
from rumus.optim.options.schedule import Schedule
from rumus.tensor import Parameter, Parameters
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.decided import decided, is_decided
from rumus.tensor.expression.declared_type import is_ordered

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M_co = TypeVar("M_co", covariant=True, default=Any)
else:  # the default is for type checkers: parameters in a plain list belong to no module
    from typing import TypeVar

    M_co = TypeVar("M_co", covariant=True)


class ParameterGroup:
    """Parameters with their own hyperparameters.

    parameters: `module.parameters()`, or a sequence of parameters.
    optional: whether parameters may lack a gradient in a step. They are then unchanged, and count
        their steps separately.
    lr_scale: factor of the learning rate, at least 0; applies to a number or a schedule, the
        optimizer's or the group's.
    hyper: hyperparameters that differ from the optimizer's, such as `lr=1e-4` or `betas=(0.9,
        0.99)`.

    >>> from rumus.optim import ParameterGroup
    >>> from rumus.tensor import Parameter
    >>> group = ParameterGroup([Parameter([1.0], name="bias")], weight_decay=0.0)
    >>> group.hyper
    {'weight_decay': 0.0}
    """

    @checked_arguments
    def __init__(
        self,
        parameters: Parameters[Any] | Sequence[Parameter],
        *,
        optional: bool = False,
        lr_scale: float = 1.0,
        **hyper: Hyper | tuple[float, ...],
    ) -> None:
        self.named = named(parameters)
        self.optional = optional
        self.lr_scale = check("lr_scale", lr_scale)
        self.hyper = checked(hyper, COMMON)  # the optimizer checks its other ranges

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            GROUP.refuse(name)

        def __setattr__(self, name: str, value: object) -> None:
            GROUP.check_assignment(self, name)
            if name in vars(self) and name != "hyper" and is_decided(name):
                raise decided(self, name, frozenset({"named"}))
            object.__setattr__(self, name, value)

    def trainable(self) -> ParameterGroup:
        """Return this group without frozen parameters."""
        return self.only([(name, p) for name, p in self.named if p.requires_grad])

    def only(self, named: Iterable[tuple[str, Parameter]], **hyper: Hyper) -> ParameterGroup:
        """Return a group with this one's options, defaults from `hyper`, and parameters `named`.

        named: pairs of a name and a parameter.
        hyper: defaults for what this group does not set.
        """
        given: dict[str, Any] = {**hyper, **self.hyper}
        options: dict[str, Any] = {"optional": self.optional, "lr_scale": self.lr_scale}
        return ParameterGroup(Parameters(named), **options, **given)

    def over(self, hyper: Mapping[str, Hyper]) -> dict[str, Hyper]:
        """Return the effective hyperparameters: the optimizer's, overridden by the group's.

        hyper: the optimizer's.
        """
        found = {**hyper, **self.hyper}
        if self.lr_scale != 1 and "lr" in found:
            found["lr"] = _scaled(found["lr"], self.lr_scale)
        return found

    def one_over(self, hyper: Mapping[str, Hyper], name: str) -> Hyper | None:
        """Return `over(hyper).get(name)` without looking at the others.

        hyper: the optimizer's.
        name: of the hyperparameter.
        """
        found = self.hyper.get(name, hyper.get(name))
        if name == "lr" and found is not None and self.lr_scale != 1:
            return _scaled(found, self.lr_scale)
        return found

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.named)
        return f"ParameterGroup({names}; {self.hyper})"


def _scaled(hyper: Hyper, factor: float) -> Hyper:
    if not callable(hyper):
        return hyper * factor
    schedule = hyper if isinstance(hyper, Schedule) else Schedule(hyper, text=described(hyper))
    return schedule * factor


def described(hyper: Hyper) -> str:
    """Format a hyperparameter for tables: a number, a schedule, or a function's name."""
    if callable(hyper) and hasattr(hyper, "__name__"):
        return str(hyper.__name__)
    return f"{hyper:g}" if isinstance(hyper, (int, float)) else repr(hyper)


def decaying_matrices(parameters: Claimable[Any]) -> list[ParameterGroup]:
    """Split each group in up to two: weight_decay is 0 for parameters with fewer than 2 axes.

    A group with its own weight_decay keeps it for all its parameters.
    """
    found = []
    for group in as_groups(parameters):
        matrices = [pair for pair in group.named if pair[1].ndim >= 2]
        others = [pair for pair in group.named if pair[1].ndim < 2]
        found += [group.only(matrices)] if matrices else []
        found += [group.only(others, weight_decay=0.0)] if others else []
    return found


Claimable: TypeAlias = "Parameters[M_co] | Sequence[Parameter] | Sequence[ParameterGroup]"


def named(parameters: Iterable[Parameter]) -> list[tuple[str, Parameter]]:
    """Return the parameters with their names in errors and saved states."""
    if isinstance(parameters, Parameter) or not is_ordered(parameters):
        raise TypeError(
            f"an optimizer takes a list of parameters, not {type(parameters).__name__}: pass "
            "model.parameters() or [parameter]"
        )
    items = parameters.items() if isinstance(parameters, Parameters) else None
    if items is not None:
        return list(items)
    found = []
    for position, parameter in enumerate(parameters):
        if isinstance(parameter, Mapping):
            raise TypeError(
                f"an optimizer takes parameters; item {position} is a dict: write it as "
                "ParameterGroup(parameters, lr=...)"
            )
        if isinstance(parameter, str):
            raise TypeError(
                f"an optimizer takes parameters; item {position} is the name {parameter!r}: pass "
                "Parameters({name: parameter, ...}), of rumus.tensor"
            )
        if isinstance(parameter, tuple):
            raise TypeError(
                f"an optimizer takes parameters; item {position} is a tuple: pass "
                "model.parameters(), which has their names"
            )
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"an optimizer takes parameters; item {position} is {type(parameter).__name__}: "
                "wrap it as Parameter(...), or pass model.parameters()"
            )
        found.append((parameter.name or f"parameter {position}", parameter))
    return found


def as_groups(parameters: Any) -> list[ParameterGroup]:
    """Return an optimizer's parameters as groups; TypeError for a mixture, ValueError for none."""
    if isinstance(parameters, (str, bytes, Parameter)):
        raise TypeError(f"pass a sequence of parameters, not {type(parameters).__name__}")
    if not is_ordered(parameters):
        wanted = "call it: model.parameters()" if callable(parameters) else "pass a sequence"
        if hasattr(parameters, "parameters"):
            wanted = "pass model.parameters()"
        raise TypeError(f"an optimizer takes parameters, not {type(parameters).__name__}: {wanted}")
    given = parameters if isinstance(parameters, Parameters) else list(parameters)
    if len(given) == 0:
        raise ValueError("no parameters: the module has none, or a generator is already used up")
    kinds = {isinstance(item, ParameterGroup) for item in given}
    if kinds == {True}:
        groups = [group for group in given if isinstance(group, ParameterGroup)]
        for position, group in enumerate(groups):
            if not group.named:
                raise ValueError(f"group {position} has no parameters")
        return groups
    if kinds == {True, False}:
        raise TypeError("pass either parameters or groups of parameters, not a mixture")
    return [ParameterGroup(given)]
