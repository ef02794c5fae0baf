"""`Optimizer`: the owner of parameters.

An optimizer claims its parameters when it is made. From then on only it changes them, with the
gradients that `step` drains from a store.
"""

from __future__ import annotations

import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, Self

from rumus.optim.options.group import Claimable, M_co, ParameterGroup, as_groups
from rumus.optim.options.other_names import OPTIMIZER, OPTIONS
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    GradientStore,
    OwnershipError,
    Parameter,
    PrecisionError,
    UnclaimedGradientError,
    float16,
)
from rumus.tensor.expression.arguments import (
    check_arguments,
    checked_arguments,
    constructor_names,
    place_arguments,
)
from rumus.tensor.expression.decided import check_of_class, decided, is_decided
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import Outcome

_PACKAGE = __name__.partition(".")[0]
DECIDED: Final = frozenset({"groups", "hyper"})  # besides the arguments


class Optimizer(ABC, Generic[M_co]):
    """Owner of parameters; a subclass defines `step`.

    parameters: `module.parameters()`, a sequence of parameters, or of `ParameterGroup`s. Frozen
    ones (`requires_grad` False) are not claimed.

    If an error is raised, nothing is claimed: OwnershipError for a parameter that has an owner or
    is given twice; PrecisionError for float16; BackendMismatchError for a group on two backends;
    TypeError for anything but parameters; ValueError if nothing is left to own.
    """

    float16_remedy: ClassVar[str] = ""  # advice that precedes keeping parameters in float32

    def __init__(self, parameters: Claimable[M_co]) -> None:
        self.steps = 0  # the number of applied steps
        self.skipped = 0  # the number of steps skipped because of a non-finite gradient
        self.outcome = Outcome(True)  # the outcome of the last step, as far as known
        self.made_at = called_from()
        self.groups = tuple([group.trainable() for group in as_groups(parameters)])
        self._check_claim()
        with Uninterrupted():
            self._own()

    def _own(self) -> None:
        """Claim the parameters."""
        for parameter in self.parameters:
            parameter._owner = weakref.ref(self)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The owned parameters, in the order of the groups."""
        return tuple(p for group in self.groups for _, p in group.named)

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """The owned parameters, by the names they were given under."""
        return [pair for group in self.groups for pair in group.named]

    if not TYPE_CHECKING:  # so that type checkers see every method

        def __init_subclass__(cls, **given: object) -> None:
            super().__init_subclass__(**given)
            place_arguments(cls)

        def __new__(cls, *args: object, **given: object) -> Self:  # noqa: D102
            if given and cls.__module__.startswith("rumus."):
                OPTIONS.check_keywords(given.keys() - constructor_names(cls))
            check_arguments(cls, args, given)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            OPTIMIZER.refuse(name)

        def __setattr__(self, name: str, value: object) -> None:
            if name not in vars(self):
                OPTIMIZER.check_assignment(self, name)
                if type(self).__module__.startswith("rumus."):
                    check_of_class(self, name, value)
            elif type(self).__module__.startswith("rumus.") and is_decided(name):
                self._check_assigned(name, value)
            object.__setattr__(self, name, value)

    def _check_assigned(self, name: str, value: Any) -> None:
        """Raise an error for an attribute that a user assigns and that nothing would read."""
        raise decided(self, name, DECIDED)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is not copied or pickled, since a parameter has one owner: "
            "make another for a copy of the model, and give it optimizer.state_dict()"
        )

    def __str__(self) -> str:
        return f"{type(self).__name__} (made at {self.made_at})"

    @abstractmethod
    def step(self, grads: GradientStore) -> None:
        """Drain the gradients of this optimizer's parameters and update the parameters, or raise.

        grads: what `backward` returned.

        Raises an AutogradError, with parameters, state, counters and the store unchanged.
        """

    def gradients(self, grads: GradientStore) -> list[tuple[Backend, Array, list[Parameter]]]:
        """Return the owned gradients in `grads` as arrays that cover them, without copies.

        One array per parameter here; a subclass may have several parameters in one array.

        grads: what `backward` returned.

        MissingGradientError for a missing one, unless its group is optional.
        """
        return [
            (parameter.backend, grads.array(parameter), [parameter])
            for group in self.groups
            for _, parameter in group.named
            if not group.optional or parameter in grads
        ]

    @property
    def decision(self) -> tuple[Backend, Array] | None:
        """The device decision about steps, if training continues after a refused one.

        The backend, and one int32 in its memory, 0 if the last step is not applied; otherwise None.
        """
        return None

    def poll(self, wait: bool = False) -> None:
        """Learn the outcome of earlier steps, if a device decides; with `wait`, of all of them.

        If a step is known to have failed, its error is raised here.

        wait: wait for all outcomes.
        """

    def release(self) -> None:
        """Give up the parameters: another optimizer may claim them. They keep their values."""
        with Uninterrupted():
            for parameter in self.parameters:
                parameter._owner = None
            self.groups = ()

    @checked_arguments
    def move(self, parameters: Sequence[Parameter], backend: Backend) -> None:
        """Move owned parameters to another backend; `module.to(...)` calls this.

        parameters: those to move.
        backend: their new backend.
        """
        uploaded = [backend.upload(parameter.numpy()) for parameter in parameters]
        with Uninterrupted():
            for parameter, array in zip(parameters, uploaded, strict=True):
                parameter._array = array
                parameter._backend = backend
                parameter._version.count += 1

    def _check_claim(self) -> None:
        seen: dict[int, str] = {}
        for name, parameter in self.named_parameters():
            if parameter.id in seen:
                raise OwnershipError(
                    f"{_called(name)} is given twice to one {type(self).__name__} (first as "
                    f"{seen[parameter.id]!r}); pass it once"
                )
            seen[parameter.id] = name
            if parameter.owner is not None:
                raise OwnershipError(
                    f"{_called(name)} is already owned by {parameter.owner}; the {self} cannot own "
                    "it too: release() the first (or call parameters.release(), if you no longer "
                    "have it), or give each its own parameters"
                )
            self._check_precision(name, parameter)
        if not seen:
            raise ValueError(f"{type(self).__name__} owns nothing: every parameter is frozen")
        for group in self.groups:
            check_one_backend(group)

    def check_owning(self) -> None:
        """Raise OwnershipError if this was released: it has neither parameters nor state."""
        if not self.groups:
            raise OwnershipError(
                f"{self} was released and owns nothing: to train on, make another optimizer of the "
                f"parameters, as {type(self).__name__}(model.parameters()), and give it to a "
                "Trainer of its own"
            )

    def _check_precision(self, name: str, parameter: Parameter) -> None:
        """Raise PrecisionError for a parameter too coarse for small updates."""
        if parameter.dtype == float16:
            raise PrecisionError(
                f"{_called(name)} is float16: small updates would vanish in rounding. "
                f"{self.float16_remedy}Keep the parameter in float32 and cast what you compute with"
            )


def check_one_backend(group: ParameterGroup) -> None:
    """Raise BackendMismatchError if the parameters of a group are on several backends."""
    pairs = group.named
    for name, parameter in pairs:
        if parameter.backend is not pairs[0][1].backend:
            raise BackendMismatchError(
                f"one group holds {_called(pairs[0][0])} on {pairs[0][1].backend.name} and "
                f"{_called(name)} on {parameter.backend.name}; move the whole model with "
                ".to(...), or make two groups"
            )


def refuse_foreign(grads: GradientStore, optimizer: Optimizer[Any]) -> None:
    """Raise UnclaimedGradientError for gradients of parameters that the optimizer does not own."""
    optimizer.check_owning()
    owned = {parameter.id for parameter in optimizer.parameters}
    foreign = [p for p in grads if p.id not in owned]
    if foreign:
        raise UnclaimedGradientError(
            f"the loss depends on {', '.join(p.label for p in foreign)}, not owned by "
            f"{optimizer}; nothing was updated. Give it to the optimizer, freeze it with "
            "requires_grad = False, or compute with it under no_grad()"
        )


def _called(name: str) -> str:
    return f"parameter {name!r}"


def called_from() -> str:
    """Return the file and line outside rumus that makes an optimizer, for messages."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _module_of(frame).startswith(f"{_PACKAGE}."):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def names_of(parameters: Iterable[Parameter], optimizer: Optimizer[Any]) -> list[str]:
    """Return the names under which an optimizer knows parameters."""
    wanted = {parameter.id for parameter in parameters}
    return [name for name, parameter in optimizer.named_parameters() if parameter.id in wanted]
