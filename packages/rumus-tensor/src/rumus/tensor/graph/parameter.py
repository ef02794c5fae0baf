"""`Parameter`: a tensor that is trained, and that at most one optimizer owns."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NewType, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from rumus.tensor.expression.dtype import is_floating
from rumus.tensor.expression.errors import OwnershipError
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
    """What owns parameters: an optimizer."""

    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Take `parameters`, their gradients and their state to another backend.

        parameters: which it owns.
        backend: where to.
        """
        ...

    def release(self) -> None:
        """Give up all parameters."""
        ...


class Parameter(Tensor):
    """A floating tensor that `backward` gives a gradient for.

    data: numbers, an array or a tensor; copied.
    name: what errors call it; a module sets it to the path of the attribute.
    dtype: of the elements.
    backend: where the elements lie, by default the CPU.
    requires_grad: False freezes it: no gradient, and no optimizer takes it.
    role: what it is to its layer, one of `ROLES`; optimizers make groups by it.

    TypeError for data that are not floating: integers have no gradient. ValueError for another
    role.

    >>> from rumus.tensor import Parameter
    >>> weight = Parameter([1.0, 2.0], name="weight")
    >>> grads = (weight * weight).sum().backward()
    >>> grads[weight].tolist()
    [2.0, 4.0]
    """

    __slots__ = ("_owner", "_slot", "_trainable", "id", "name", "role")

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
        check_role(role)
        value = tensor(data, dtype=dtype, backend=backend)
        if not is_floating(value.dtype):
            raise TypeError(
                f"parameter {name or '(unnamed)'!r}: {value.dtype} has no gradient; "
                "use a floating dtype, or keep it as a tensor"
            )
        super().__init__(value._array, value._backend)
        self.id = ParamId(next(_numbers))
        self.name = name
        self.role: Role = role
        self._trainable = requires_grad
        self._slot: Slot | None = None
        self._owner: weakref.ref[Owner] | None = None

    @property
    def label(self) -> str:
        """How messages call this parameter."""
        return f"parameter {self.name!r}" if self.name else f"an unnamed parameter {self.shape}"

    @property
    def requires_grad(self) -> bool:
        """Whether `backward` makes a gradient for it; may be set."""
        depends_on(self, "_trainable")
        return self._trainable

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._trainable = value

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
        """Move to another backend in place; an owner moves what belongs to it along.

        backend: where to.
        """
        move_parameters([self], backend)

    def convert(self, dtype: DTypeLike) -> None:
        """Round to another floating dtype, or widen, in place.

        dtype: floating.

        OwnershipError if it has an owner, whose state fits the dtype it has; TypeError for a dtype
        that is not floating.
        """
        wanted = np.dtype(dtype)
        if not is_floating(wanted):
            raise TypeError(f"{self.label}: {wanted} has no gradient; use a floating dtype")
        if wanted == self.dtype:
            return
        if self.owner is not None:
            raise OwnershipError(
                f"{self.label} is {self.dtype} and owned by {self.owner}: convert it to {wanted} "
                "before the optimizer is made, or release() that first"
            )
        converted = self.detach().astype(wanted)._array
        with Uninterrupted():
            self._array = converted
            self._version.count += 1


def move_parameters(parameters: Sequence[Parameter], backend: Backend) -> None:
    """Move parameters to a backend in place, with what their owners keep for them.

    Parameters of one owner move together, so that its arenas are laid out anew only once.

    parameters: of any owner.
    backend: where to.
    """
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


class Parameters(Generic[M_co]):
    """The named parameters of an `M`, in order: what `model.parameters()` returns.

    The type remembers whose they are: `AdamW(generator.parameters())` is an `AdamW[Generator]`.
    Iterating gives the parameters; `names` gives their names.

    named: a mapping from names to parameters.
    """

    def __init__(self, named: Mapping[str, Parameter] | Iterable[tuple[str, Parameter]]) -> None:
        items = named.items() if isinstance(named, Mapping) else named
        self._items = tuple(items)

    def __iter__(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Parameters({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each parameter, in order."""
        return tuple(name for name, _ in self._items)

    def release(self) -> None:
        """Have the optimizers that own any of them give up all that they own.

        For an optimizer that no name reaches any more: after an error in a notebook or a shell the
        traceback that it keeps holds the optimizer of the failed call. Parameters that have no
        owner stay as they are.

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
        """Return those that fit everything given, in the same order.

        what: a pattern for the name, with `*`, `?` and `[...]`, or a function of name and parameter
            that returns whether to take it.
        role: one of `ROLES`.

        ValueError if nothing fits: a typing error would otherwise leave a group out in silence.
        TypeError if nothing is given.

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
        """Return the rest of `where` with the same arguments, or what is not in other parameters.

        The rest may be empty.

        what: the names that are left out, or patterns of them.
        role: what they are for, in error messages.

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
