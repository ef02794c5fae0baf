"""`ParameterGroup`: parameters that share hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rumus.optim.hyperparameter import Hyper, checked
from rumus.tensor import Parameter, Parameters

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M_co = TypeVar("M_co", covariant=True, default=Any)
else:  # the default is for type checkers: parameters in a plain list belong to no one module
    from typing import TypeVar

    M_co = TypeVar("M_co", covariant=True)


class ParameterGroup:
    """Parameters with hyper-parameters of their own.

    parameters: `module.parameters()`, or a sequence of parameters.
    optional: whether a step may find no gradient for one of them. It is left alone then, and counts
    its steps by itself.
    hyper: what differs from the optimizer's own, as `lr=1e-4` or `betas=(0.9, 0.99)`.

    >>> group = ParameterGroup([Parameter([1.0], name="bias")], weight_decay=0.0)
    >>> group.hyper
    {'weight_decay': 0.0}
    """

    def __init__(
        self,
        parameters: Parameters[Any] | Sequence[Parameter],
        *,
        optional: bool = False,
        **hyper: Hyper | tuple[float, ...],
    ) -> None:
        self.named = named(parameters)
        self.optional = optional
        self.hyper = checked(hyper)

    def trainable(self) -> ParameterGroup:
        """Return this group without the parameters that are frozen."""
        kept = [(name, p) for name, p in self.named if p.requires_grad]
        return ParameterGroup(Parameters(kept), optional=self.optional, **self.hyper)

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.named)
        return f"ParameterGroup({names}; {self.hyper})"


Claimable: TypeAlias = "Parameters[M_co] | Sequence[Parameter] | Sequence[ParameterGroup]"


def named(parameters: Iterable[Parameter]) -> list[tuple[str, Parameter]]:
    """Return the parameters with the names by which errors and saved states call them."""
    items = parameters.items() if isinstance(parameters, Parameters) else None
    if items is not None:
        return list(items)
    found = []
    for position, parameter in enumerate(parameters):
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"an optimizer owns parameters; number {position} is {type(parameter).__name__}: "
                "wrap it as Parameter(...), or pass model.parameters()"
            )
        found.append((parameter.name or f"parameter {position}", parameter))
    return found


def as_groups(parameters: Claimable[Any] | Iterable[Any]) -> list[ParameterGroup]:
    """Return what an optimizer was given as groups. TypeError for a mixture, ValueError if none."""
    if isinstance(parameters, (str, bytes, Parameter)):
        raise TypeError(f"a sequence of parameters is needed, not {type(parameters).__name__}")
    given = parameters if isinstance(parameters, Parameters) else list(parameters)
    if len(given) == 0:
        raise ValueError("no parameters: the module has none, or a generator was used up before")
    kinds = {isinstance(item, ParameterGroup) for item in given}
    if kinds == {True}:
        groups = [group for group in given if isinstance(group, ParameterGroup)]
        for position, group in enumerate(groups):
            if not group.named:
                raise ValueError(f"group {position} has no parameters")
        return groups
    if kinds == {True, False}:
        raise TypeError("either parameters or groups of parameters are needed, not a mixture")
    return [ParameterGroup(given)]
