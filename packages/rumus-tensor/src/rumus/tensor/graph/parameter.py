"""`Parameter`: a trained tensor, owned by at most one optimizer."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NewType, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from rumus.tensor.expression.arguments import checked_arguments, place_arguments
from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.dtype import as_dtype, is_floating
from rumus.tensor.expression.errors import OwnershipError
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.assignment import running_pass
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.graph.evaluation import current_evaluation
from rumus.tensor.graph.other_names import PARAMETERS
from rumus.tensor.graph.selection import Criterion, Role, check_role, selected
from rumus.tensor.graph.slot import Slot
from rumus.tensor.graph.tensor import Tensor, TensorLike, tensor
from rumus.tensor.memory.backend import Backend
from rumus.tensor.memory.recording import depends_on
from rumus.tensor.memory.uninterrupted import Uninterrupted

ParamId = NewType("ParamId", int)
M_co = TypeVar("M_co", covariant=True)
_numbers = itertools.count()


class Owner(Protocol):
    """An owner of parameters: an optimizer."""

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Take `parameters`, their gradients and their state to another backend.

        parameters: that it owns.
        backend: the destination.
        """
        ...

    def release(self) -> None:
        """Give up all parameters."""
        ...


@place_arguments
class Parameter(Tensor):
    """A floating tensor for which `backward` computes a gradient.

    data: numbers, an array or a tensor; copied.
    name: for error messages; a module sets it to the path of the attribute.
    dtype: of the elements.
    backend: that holds the elements, by default the CPU.
    requires_grad: False freezes it: no gradient, and no optimizer takes it.
    role: its role in its layer, one of `ROLES`; optimizers use it to make groups.

    TypeError for data that is not floating: integers have no gradient. ValueError for another role.

    >>> from rumus.tensor import Parameter
    >>> weight = Parameter([1.0, 2.0], name="weight")
    >>> grads = (weight * weight).sum().backward()
    >>> grads[weight].tolist()
    [2.0, 4.0]
    """

    __slots__ = ("_id", "_name", "_owner", "_role", "_slot", "_trainable")

    _is_parameter = True

    def __init__(
        self,
        data: TensorLike,
        *,
        name: str = "",
        dtype: DTypeLike | None = None,
        backend: Backend | None = None,
        requires_grad: bool = True,
        role: Role = "weight",
    ) -> None:
        self.role = role
        self.name = name
        value = tensor(data, dtype=dtype, backend=backend)
        if not is_floating(value.dtype):
            raise TypeError(
                f"parameter {name or '(unnamed)'!r}: {value.dtype} has no gradient; "
                "use a floating dtype, or keep it as a tensor"
            )
        super().__init__(value._array, value._backend)
        self._id = ParamId(next(_numbers))
        self.requires_grad = requires_grad
        self._slot: Slot | None = None
        self._owner: weakref.ref[Owner] | None = None

    if not TYPE_CHECKING:  # type checkers refuse what makes a parameter's name one of a tensor

        def __iadd__(self, other: object) -> Any:
            return self._told("+", other)

        def __isub__(self, other: object) -> Any:
            return self._told("-", other)

        def __imul__(self, other: object) -> Any:
            return self._told("*", other)

        def __itruediv__(self, other: object) -> Any:
            return self._told("/", other)

    def _told(self, sign: str, other: object) -> Any:
        """Warn of `p -= x` for an update by hand; the result is that of `p - x`."""
        is_plain = is_recording() or running_pass() is not None or current_evaluation() is not None
        if not is_plain and self._trainable and getattr(other, "shape", ()) in (self.shape, ()):
            warn_user(
                f"p {sign}= x makes a new tensor, and leaves {self.label} as it is; "
                f"p.assign(p {sign} x) changes the parameter"
            )
        return NotImplemented

    @property
    def id(self) -> ParamId:
        """Its number, which no other parameter of this process has."""
        return self._id

    @property
    def name(self) -> str:
        """Its name in messages; can be set."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"Parameter: name must be text, not {value!r}")
        self._name = value

    @property
    def label(self) -> str:
        """The parameter's name in messages."""
        return f"parameter {self.name!r}" if self.name else f"an unnamed parameter {self.shape}"

    @property
    def requires_grad(self) -> bool:
        """Whether `backward` computes its gradient; can be set."""
        depends_on(self, "_trainable")
        return self._trainable

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"requires_grad must be True or False, not {value!r}")
        self._trainable = bool(value)

    @property
    def role(self) -> Role:
        """Its role in its layer, one of `ROLES`; can be set, before an optimizer makes groups."""
        return self._role

    @role.setter
    def role(self, value: Role) -> None:
        check_role(value)
        self._role: Role = value

    @property
    def owner(self) -> Owner | None:
        """The optimizer that claimed it, if there is one."""
        return None if self._owner is None else self._owner()

    def _edge(self) -> Any | None:
        depends_on(self, "_trainable")
        return self if self._trainable else None

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        return Parameter(self, name=self.name, requires_grad=self._trainable, role=self.role)

    def move(self, backend: Backend) -> None:
        """Move to another backend in place; an owner moves its state along.

        backend: the destination.
        """
        move_parameters([self], backend)

    def convert(self, dtype: DTypeLike) -> None:
        """Round to another floating dtype, or widen, in place.

        dtype: floating.

        OwnershipError if it has an owner, whose state fits the current dtype; TypeError for a dtype
        that is not floating; OverflowError for finite numbers that would become infinite.
        """
        wanted = as_dtype(dtype)
        if not is_floating(wanted):
            raise TypeError(f"{self.label}: {wanted} has no gradient; use a floating dtype")
        if wanted == self.dtype:
            return
        if self.owner is not None:
            raise OwnershipError(
                f"{self.label} is {self.dtype} and owned by {self.owner}: convert it to {wanted} "
                "before making the optimizer, or release() the optimizer first"
            )
        converted = tensor(self.numpy(), dtype=wanted, backend=self._backend)._array
        with Uninterrupted():
            self._array = converted
            self._version.count += 1


def _checked_pairs(items: Any) -> Iterator[tuple[str, Parameter]]:
    """Yield pairs of a name and a parameter. TypeError for anything else."""
    if isinstance(items, (Tensor, type)) or not is_ordered(items):
        raise TypeError(f"Parameters: named must be a dict of parameters, not {shown(items)}")
    for pair in items:
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not (is_pair and isinstance(pair[0], str) and isinstance(pair[1], Parameter)):
            raise TypeError(
                "Parameters: named must have a name and a parameter in each pair, not "
                f"{shown(pair)}"
            )
        yield pair


@checked_arguments
def move_parameters(parameters: Sequence[Parameter], backend: Backend) -> None:
    """Move parameters to a backend in place, together with their owners' state.

    Parameters of one owner move together, so that its arenas are rebuilt only once.

    parameters: of any owner.
    backend: the destination.

    TypeError for anything else, such as one parameter or a model.
    """
    if not isinstance(parameters, (Parameters, list, tuple)):
        raise TypeError(
            f"move_parameters takes a list of parameters, not {shown(parameters)}: pass "
            "model.parameters() or [parameter]"
        )
    for position, parameter in enumerate(parameters):
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"move_parameters takes parameters; item {position} is {shown(parameter)}: move a "
                "tensor with to(backend)"
            )
    if not hasattr(backend, "upload") or isinstance(backend, type):
        raise TypeError(
            f"move_parameters: backend must be a Backend, not {shown(backend)}: "
            "rumus.tensor.cpu() or rumus.gpu.default_backend()"
        )
    with Uninterrupted():
        _move(parameters, backend)


def _move(parameters: Sequence[Parameter], backend: Backend) -> None:
    by_owner: dict[int, tuple[Owner | None, list[Parameter]]] = {}
    for parameter in parameters:
        if parameter._backend is not backend:
            owner = parameter.owner
            by_owner.setdefault(id(owner), (owner, []))[1].append(parameter)
    _, free = by_owner.pop(id(None), (None, []))
    uploaded = [backend.upload(parameter.numpy()) for parameter in free]
    for owner, owned in by_owner.values():
        assert owner is not None
        owner.move(owned, backend)
    for parameter, array in zip(free, uploaded, strict=True):
        parameter._array = array
        parameter._backend = backend
        parameter._version.count += 1


@PARAMETERS.of_instances
class Parameters(Generic[M_co]):
    """The named parameters of an `M`, in order: what `model.parameters()` returns.

    The type remembers the model: `AdamW(generator.parameters())` is an `AdamW[Generator]`.
    Iterating yields the parameters; `names` has their names.

    named: a mapping from names to parameters.
    """

    def __init__(self, named: Mapping[str, Parameter] | Iterable[tuple[str, Parameter]]) -> None:
        items = named.items() if isinstance(named, Mapping) else named
        self._items = tuple(_checked_pairs(items))

    def __iter__(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: str | int) -> Parameter:
        """Return a parameter by name or position; KeyError or IndexError if there is none."""
        return dict(self._items)[key] if isinstance(key, str) else self._items[key][1]

    def __repr__(self) -> str:
        return f"Parameters({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each parameter, in order."""
        return tuple(name for name, _ in self._items)

    def release(self) -> None:
        """Make the optimizers that own any of them release everything they own.

        Use it for an optimizer that no variable refers to: after an error in a notebook or a shell,
        the saved traceback keeps the failed call's optimizer alive. Parameters without an owner
        stay unchanged.

        >>> from rumus.tensor import Parameter, Parameters
        >>> weights = Parameters({"w": Parameter([1.0])})
        >>> weights.release()
        >>> [weight.owner for weight in weights]
        [None]
        """
        for parameter in self:
            if (owner := parameter.owner) is not None:
                owner.release()

    def items(self) -> Iterator[tuple[str, Parameter]]:
        """Iterate over (name, parameter)."""
        return iter(self._items)

    def where(
        self, what: Criterion | None = None, /, *, role: Role | None = None
    ) -> Parameters[M_co]:
        """Return the parameters that match all arguments, in the same order.

        what: a pattern for the name, with `*`, `?` and `[...]`, or a function of name and parameter
            that returns whether to include it.
        role: one of `ROLES`.

        ValueError if nothing matches: otherwise a typo would silently give an empty group.
        TypeError without arguments.

        >>> from rumus.tensor import Parameter, Parameters
        >>> named = Parameters({"0.weight": Parameter([[1.0]]), "0.bias": Parameter([1.0])})
        >>> named.where("*.bias"), named.where(lambda name, p: p.ndim == 2)
        (Parameters(0.bias), Parameters(0.weight))
        """
        chosen = selected(self._items, what, role)
        return Parameters(pair for pair in self._items if pair[1].id in chosen)

    def without(
        self,
        what: Criterion | Parameters[Any] | None = None,
        /,
        *,
        role: Role | None = None,
    ) -> Parameters[M_co]:
        """Return the parameters that `where` would not return, or those not in other parameters.

        The result may be empty.

        what: the parameters to leave out, as in `where`, or other `Parameters`.
        role: of the parameters to leave out, one of `ROLES`.

        The errors are those of `where`.

        >>> from rumus.tensor import Parameter, Parameters
        >>> named = Parameters({"0.weight": Parameter([[1.0]]), "0.bias": Parameter([1.0])})
        >>> named.without("*.bias"), named.without(named.where("*.weight"))
        (Parameters(0.weight), Parameters(0.bias))
        """
        if isinstance(what, Parameters):
            given = {parameter.id for parameter in what}
            named = self.without(role=role) if role is not None else self
            return Parameters(pair for pair in named.items() if pair[1].id not in given)
        chosen = selected(self._items, what, role)
        return Parameters(pair for pair in self._items if pair[1].id not in chosen)
