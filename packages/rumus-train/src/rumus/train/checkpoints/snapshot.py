"""The state of a training as a tree of numbers and arrays, saved and restored as a whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from numbers import Real
from types import CellType, FunctionType, MethodType
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rumus.optim import Optimizer, Scaling
from rumus.optim.engine.evaluated import EvaluatedOptimizer
from rumus.optim.engine.saved_state import check_unique
from rumus.optim.wrappers.wrapper import unwrapped
from rumus.tensor import Generator, Parameter, StateMismatchError, tensor
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.memory.late_array import copying_late, host_copy
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.train.base.random_sources import Random, is_random, restore_state, state_of
from rumus.train.base.scaling import scaling_of

AVERAGE: Final = "average"  # computed from the rest, for serving the model
RESERVED: Final = frozenset(
    (
        AVERAGE,
        "parameters",
        "optimizer",
        "schedules",
        "random",
        "loss_scale",
        "position",
        "losses",
        "batches",
        "callbacks",
    )
)


@runtime_checkable
class Stateful(Protocol):
    """An object that can be saved and restored: a module, an optimizer, a loader, your own object.

    The state has numbers, strings, lists and dicts of them, and NumPy arrays.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Return a copy of the state."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Restore a state; raise, and change nothing, if it does not fit.

        state: what `state_dict()` returned.
        """
        ...


def take(parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Return the state of every part, by name."""
    return {name: part.state_dict() for name, part in parts.items()}


def taking(store: object) -> AbstractContextManager[object]:
    """Within the block, have states copied on the device where a store lets them come later."""
    return copying_late() if getattr(store, "takes_late", False) else nullcontext()


def restore(parts: Mapping[str, Stateful], tree: Mapping[str, Any], origin: str) -> None:
    """Restore the state of all parts, or raise one StateMismatchError.

    It lists every part's objections; then none is restored.

    origin: of the state, for messages.
    """
    with Uninterrupted():
        _restore(parts, tree, origin)


def _restore(parts: Mapping[str, Stateful], tree: Mapping[str, Any], origin: str) -> None:
    problems = [f"{name}: here, not saved" for name in parts if name not in tree]
    known = {*parts, AVERAGE}
    problems += [f"{name}: saved, not here" for name in tree if name not in known]
    undo: list[tuple[Stateful, Mapping[str, Any]]] = []
    for name, part in parts.items():
        if name in tree:
            before = part.state_dict()
            undo.append((part, before))
            try:
                part.load_state_dict(tree[name])
            except Exception as error:
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                problems.append(f"{name}: {kind}{error}")
    if problems:
        for part, before in undo:
            part.load_state_dict(before)
        lines = "\n  ".join(line for problem in problems for line in problem.splitlines())
        raise StateMismatchError(f"{origin} does not fit; nothing was loaded:\n  {lines}")


class OwnedParameters:
    """The values of an optimizer's parameters, by its names for them."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = parameters

    def named_parameters(self) -> Iterable[tuple[str, Parameter]]:
        """Iterate over (name, parameter)."""
        return self.parameters.items()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all values."""
        return {name: host_copy(p._array, p._backend) for name, p in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy values into the parameters, all or none. ValueError lists every difference."""
        arrays = {name: np.asarray(value) for name, value in state.items()}
        if found := self._differences(arrays):
            raise ValueError("\n".join(found))
        staged = {  # on the device before anything is written: an upload may fail, a copy does not
            name: tensor(arrays[name], dtype=parameter.dtype, backend=parameter.backend)
            for name, parameter in self.parameters.items()
        }
        with Uninterrupted():
            for name, value in staged.items():
                self.parameters[name].assign(value)

    def _differences(self, arrays: Mapping[str, NDArray[Any]]) -> list[str]:
        found = [f"{name!r} is here, not saved" for name in self.parameters if name not in arrays]
        for name, array in arrays.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                found.append(f"{name!r} was saved, but is not here")
                continue
            for what, saved, here in (
                ("shape", array.shape, parameter.shape),
                ("dtype", str(array.dtype), str(parameter.dtype)),
            ):
                if saved != here:
                    found.append(f"{name!r}: {what} {saved} was saved, but here it is {here}")
        return found


class RandomStreams:
    """The positions of random generators: of rumus, of NumPy and of Python."""

    def __init__(self, generators: Mapping[str, Random]) -> None:
        self.generators = generators

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each, by name."""
        return {name: state_of(random) for name, random in self.generators.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore saved positions. ValueError, with nothing changed, for other names."""
        if set(state) != set(self.generators):
            raise ValueError(f"saved {sorted(state)}, here {sorted(self.generators)}")
        for name, random in self.generators.items():
            restore_state(random, state[name])


def hyperparameters_of(optimizer: Optimizer[Any]) -> dict[str, Any]:
    """Return an optimizer's hyperparameters and those of its groups, also within a wrapper."""
    own = unwrapped(optimizer)
    found = dict(getattr(own, "hyper", {}))
    for n, group in enumerate(own.groups):
        found |= {f"group {n}.{name}": value for name, value in group.hyper.items()}
    return found


class Schedules:
    """The hyperparameters of an optimizer that have state, such as `Plateau`."""

    def __init__(self, optimizer: Optimizer[Any]) -> None:
        found = hyperparameters_of(optimizer).items()
        self.found: dict[str, Any] = {
            name: value for name, value in found if hasattr(value, "load_state_dict")
        }

    def state_dict(self) -> dict[str, Any]:
        """Return their states, by the names of the hyperparameters."""
        return {name: schedule.state_dict() for name, schedule in self.found.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the states. ValueError if others were saved."""
        if set(state) != set(self.found):
            raise ValueError(f"saved {sorted(state)}, here {sorted(self.found)}")
        for name, schedule in self.found.items():
            schedule.load_state_dict(state[name])


class SavedScale:
    """The loss scale of an optimizer after its last step."""

    def __init__(self, optimizer: Optimizer[Any], scaling: Scaling) -> None:
        self.optimizer, self.scaling = optimizer, scaling

    def state_dict(self) -> dict[str, Any]:
        """Return the scale; it waits until all steps are decided."""
        self.optimizer.poll(wait=True)
        return self.scaling.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the scale. ValueError for an invalid one."""
        self.optimizer.poll(wait=True)
        self.scaling.load_state_dict(state)


def parts_of_model(optimizer: Optimizer[Any], state: Mapping[str, Any]) -> dict[str, Stateful]:
    """Return all that a step changes: parameters, optimizer, schedules, streams, scale, `state`.

    state: objects by name. A module's parameters are saved only with the module. TypeError for an
        optimizer or an object that cannot be saved, ValueError for two parameters with one name: a
        state is saved by name.
    """
    if not isinstance(optimizer, Stateful):
        raise TypeError(f"{optimizer} has no state_dict and load_state_dict: it cannot be saved")
    check_unique(optimizer.named_parameters())
    random = generators_of(state)
    plain = {name: thing for name, thing in state.items() if not is_random(thing)}
    for name, thing in plain.items():
        if not isinstance(thing, Stateful):
            raise TypeError(
                f"state[{name!r}] is {type(thing).__name__}, which has no state_dict and "
                "load_state_dict: it cannot be saved"
            )
    covered = {
        parameter.id
        for thing in plain.values()
        if hasattr(thing, "named_parameters")
        for _, parameter in thing.named_parameters()
    }
    named = {name: p for name, p in optimizer.named_parameters() if p.id not in covered}
    scaling = scaling_of(optimizer)
    scale = {} if scaling is None else {"loss_scale": SavedScale(optimizer, scaling)}
    return {
        "parameters": OwnedParameters(named),
        "optimizer": optimizer,
        "schedules": Schedules(optimizer),
        "random": RandomStreams(random),
        **scale,
        **plain,
    }


def average_in_place(optimizer: Optimizer[Any]) -> AbstractContextManager[None]:
    """In the block an optimizer's average, if it keeps one, replaces the parameters."""
    fused = unwrapped(optimizer)
    if isinstance(fused, EvaluatedOptimizer) and fused.has_average:
        return fused.eval_params()
    return nullcontext()


def average_of(
    optimizer: Optimizer[Any], parts: Mapping[str, Stateful]
) -> dict[str, dict[str, dict[str, NDArray[Any]]]]:
    """Return the part of a checkpoint for serving a model without its optimizer.

    It has each part's parameter values for evaluation, if they differ from the trained ones (EMA,
    schedule-free). Empty for an optimizer without an average.
    """
    fused = unwrapped(optimizer)
    if not (isinstance(fused, EvaluatedOptimizer) and fused.has_average):
        return {}
    named = {
        name: dict(part.named_parameters() if hasattr(part, "named_parameters") else ())
        for name, part in parts.items()
        if name != "optimizer"
    }
    with average_in_place(optimizer):
        return {
            AVERAGE: {
                name: {path: host_copy(p._array, p._backend) for path, p in found.items()}
                for name, found in named.items()
                if found
            }
        }


def checked_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return objects by name. ValueError for a name that is taken or invalid as a file name."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must map names to objects, not {shown(state)}: state={{'model': model}}"
        )
    for name in state:
        if not str(name).isidentifier() or not str(name).isascii():
            raise ValueError(
                f"state: {name!r} must be an identifier, because files are named after it"
            )
        if isinstance(state[name], type):
            raise TypeError(
                f"state: {name!r} is the class {state[name].__name__}, which holds no state: give "
                f"an object, as state={{{name!r}: {state[name].__name__}(...)}}"
            )
        if not is_random(state[name]) and not isinstance(state[name], Stateful):
            raise TypeError(
                f"state: {name!r} is {shown(state[name])}, which holds no state: give a module, a "
                "random generator, or an object with state_dict and load_state_dict"
            )
        if name in RESERVED:
            raise ValueError(
                f"state: {name!r} is a name that the trainer uses itself; choose another"
            )
    return dict(state)


def generators_of(state: Mapping[str, Any]) -> dict[str, Random]:
    """Return the random generators among objects and in modules, by dotted name."""
    found: dict[str, Random] = {}
    for name, thing in state.items():
        if is_random(thing):
            found[name] = thing
        elif hasattr(thing, "named_generators"):
            found |= {f"{name}.{path}": random for path, random in thing.named_generators()}
            found |= _others_within(name, thing)
    return found


def _others_within(name: str, root: Any) -> dict[str, Random]:
    """The NumPy and Python generators that modules have as attributes, each once."""
    found: dict[int, tuple[str, Random]] = {}
    for path, module in root.named_modules() if hasattr(root, "named_modules") else ():
        for attribute, value in list(vars(module).items()):
            if is_random(value) and not isinstance(value, Generator):
                place = ".".join(part for part in (name, path, attribute) if part)
                found.setdefault(id(value), (place, value))
    return dict(found.values())


def check_declared(loss_fn: Callable[..., Any], state: Mapping[str, Any]) -> None:
    """Raise ValueError if `loss_fn` uses a module whose state would not be saved.

    That is one with random generators or buffers, in the function's closure, globals or object, or
    in a container, a partial or a function there.
    """
    known = {id(random) for random in generators_of(state).values()}
    for thing in state.values():
        if hasattr(thing, "named_buffers"):
            known |= {id(buffer) for _, buffer in thing.named_buffers()}
    for name, thing in named_by(loss_fn):
        if isinstance(thing, type) or not hasattr(thing, "named_generators"):
            continue
        for path, item in (*thing.named_generators(), *thing.named_buffers()):
            if id(item) not in known:
                raise ValueError(
                    f"loss_fn uses {name!r}, whose {path!r} changes while training and would not "
                    f"be saved: Trainer(optimizer, state={{{name!r}: {name}}})"
                )


def warn_of_strangers(optimizer: Optimizer[Any], state: Mapping[str, Any]) -> None:
    """Warn of a model in `state` that nothing trains while the one that is trained is missing."""
    held = {name: s for name, s in state.items() if hasattr(s, "named_parameters")}
    found = {name: [p for _, p in thing.named_parameters()] for name, thing in held.items()}
    declared = {p.id for parameters in found.values() for p in parameters}
    if all(p.id in declared for _, p in optimizer.named_parameters()):
        return
    for name, parameters in found.items():
        if any(p.requires_grad for p in parameters) and all(p.owner is None for p in parameters):
            warn_user(
                f"no optimizer trains state[{name!r}], and {optimizer} trains parameters that are "
                f"in nothing of state: is it another {type(held[name]).__name__} than the one that "
                "the optimizer was made for? Freeze it if not"
            )


def whole_models(
    optimizer: Optimizer[Any], state: Mapping[str, Any], loss_fn: Callable[..., Any]
) -> list[tuple[str, Any]]:
    """Return the models, by name, that evaluation mode changes and that are trained as a whole.

    They are looked for in `state` and in what `loss_fn` names. The mode changes dropout or running
    statistics; single layers are switched on purpose.
    """
    trained = {parameter.id for _, parameter in optimizer.named_parameters()}
    found: list[tuple[str, Any]] = []
    for name, thing in [*state.items(), *named_by(loss_fn)]:
        if not hasattr(thing, "named_generators") or not hasattr(thing, "training"):
            continue
        depends = any(thing.named_generators()) or any(thing.named_buffers())
        if depends and trained <= {parameter.id for _, parameter in thing.named_parameters()}:
            found.append((name, thing))
    return found


def warn_of_evaluation_mode(models: Iterable[tuple[str, Any]], epoch: int | None = None) -> bool:
    """Warn of a model that is trained in evaluation mode; return whether one is.

    models: see `whole_models`.
    epoch: from which on, as after a callback that looks at predictions; None from the start.
    """
    for name, thing in models:
        if thing.training is False:
            since, advice = "", f"Call {name}.train() first"
            if epoch is not None:
                since = f" from epoch {epoch} on"
                advice = f"Call {name}.train() where its eval() has been called, as in a callback"
            warn_user(
                f"{name} is trained in evaluation mode{since}: it drops nothing, and its running "
                f"statistics stay as they are. {advice}; to keep some layers in evaluation mode, "
                "call their eval() after it"
            )
            return True
    return False


def named_by(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return what a function reaches by name: in partials, closures, containers and its object."""
    found: list[tuple[str, Any]] = []
    left: list[tuple[str, Any]] = [("loss_fn", function)]
    if not isinstance(function, (FunctionType, MethodType, partial)):
        left += getattr(function, "__dict__", {}).items()
    seen = set[int]()
    while left:
        name, thing = left.pop()
        if isinstance(thing, Real) or id(thing) not in seen:  # equal numbers may be one object
            seen.add(id(thing))
            found.append((name, thing))
            left += _within(name, thing)
    code = inspect.unwrap(getattr(function, "__func__", function))
    if isinstance(code, FunctionType):
        names = [name for name in code.__code__.co_names if name in code.__globals__]
        found += [(name, code.__globals__[name]) for name in names]
    return found


def _within(name: str, thing: Any) -> Iterable[tuple[str, Any]]:
    """The contents of a function or a container, by name."""
    if isinstance(thing, MethodType):
        own = getattr(thing.__self__, "__dict__", {})
        return [("self", thing.__self__), (name, thing.__func__), *own.items()]
    if isinstance(thing, partial):
        return [*((name, part) for part in (thing.func, *thing.args)), *thing.keywords.items()]
    if isinstance(thing, FunctionType):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        held = [(free, cell.cell_contents) for free, cell in cells if cell != CellType()]
        defaults = *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()
        return [*held, *((name, default) for default in defaults)]
    if isinstance(thing, dict):
        return [(name, value) for value in thing.values()]
    return [(name, value) for value in thing] if isinstance(thing, (list, tuple)) else []
