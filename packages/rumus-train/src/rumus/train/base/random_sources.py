"""Random generators of rumus, NumPy and Python: their states, and which live ones have drawn.

A NumPy generator is a view of a bit generator, which holds the state. The generators behind
`numpy.random.normal()` and `random.random()` belong to the program.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping
from copy import copy
from types import BuiltinMethodType, CellType, FunctionType, ModuleType
from typing import Any, Final, TypeAlias, TypeGuard

import numpy as np

from rumus.tensor import Generator, StateMismatchError
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.state_names import name_differences
from rumus.train.base.live_objects import live_objects, referrers, with_subclasses

# What a program draws from, and the state that advances. (NumPy imports its part on first use.)
Source: TypeAlias = "Generator | np.random.BitGenerator | random.Random"
Random: TypeAlias = "Source | np.random.Generator | np.random.RandomState"

_OF_PYTHON: Final[random.Random] = random.random.__self__  # type: ignore[attr-defined]


def is_random(thing: object) -> TypeGuard[Random]:
    """Whether it is a generator whose state can be saved and restored."""
    return source_of(thing) is not None


def _views_of_numpy() -> tuple[type, ...]:
    return np.random.Generator, np.random.RandomState


def source_of(thing: object) -> Source | None:
    """Return the state holder of a generator; None if it is not a generator."""
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator
    if isinstance(thing, np.random.RandomState):
        return thing._bit_generator
    if isinstance(thing, random.SystemRandom):
        return None
    return thing if isinstance(thing, (Generator, np.random.BitGenerator, random.Random)) else None


def state_of(thing: Random) -> dict[str, Any]:
    """Return the state of a generator: numbers, strings and arrays."""
    if isinstance(thing, Generator):
        return dict(thing.state())
    if isinstance(thing, (np.random.Generator, np.random.BitGenerator)):
        return dict(_bits_of(thing).state)
    if isinstance(thing, np.random.RandomState):
        return dict(thing.get_state(legacy=False))
    version, words, gauss = thing.getstate()
    return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}


def restore_state(thing: Random, state: Any) -> None:
    """Restore a state. StateMismatchError, with nothing changed, for one of another kind."""
    own = state_of(thing)
    found = _differences(own, state)
    if not found:
        try:
            _put(thing, state)
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            _put(thing, own)
            found = [str(error)]
    if found:
        raise StateMismatchError(
            f"the saved state does not fit {type(thing).__name__}: {'; '.join(found)}"
        )


def _differences(own: Any, state: Any) -> list[str]:
    """The names that a state has and should not have, or the reverse, at any depth."""
    if not isinstance(own, Mapping):
        return []
    kind = own.get("bit_generator")
    if isinstance(state, Mapping) and str(saved := state.get("bit_generator", kind)) != str(kind):
        return [f"it is one of {shown(saved)}, here of {shown(kind)}"]
    if found := name_differences(None, state, own):
        return found
    return [each for name, value in own.items() for each in _differences(value, state[name])]


def _put(thing: Random, state: Any) -> None:
    if isinstance(thing, Generator):
        thing.restore(state)
    elif isinstance(thing, (np.random.Generator, np.random.BitGenerator)):
        _bits_of(thing).state = state
    elif isinstance(thing, np.random.RandomState):
        thing.set_state(state)
    else:
        words, gauss = tuple(int(word) for word in state["words"]), state["gauss"]
        if not isinstance(gauss, float | None):  # which `setstate` would take as it is
            raise TypeError(f"gauss must be a number or None, not {shown(gauss)}")
        thing.setstate((state["version"], words, gauss))


def _bits_of(thing: np.random.Generator | np.random.BitGenerator) -> np.random.BitGenerator:
    return thing.bit_generator if isinstance(thing, np.random.Generator) else thing


def states_of_program() -> dict[str, Any]:
    """Return the states of the program's generators in JSON's types."""
    legacy = np.random.get_state(legacy=False)
    states = {"python": _as_text(state_of(_OF_PYTHON)), "numpy": _as_text(legacy)}
    if (torch := _torch()) is not None:
        states["torch"] = _hex(torch.get_rng_state())
        for name, device in _devices_of(torch):
            states[f"torch.{name}"] = [_hex(state) for state in device.get_rng_state_all()]
    return states


def restore_program(states: Mapping[str, Any]) -> None:
    """Restore the states of a program's generators, all or none.

    ValueError if one is of another kind.
    """
    if not states:
        return
    before = states_of_program()
    try:
        _restore_program(states)
    except BaseException:
        _restore_program(before)
        raise


def _restore_program(states: Mapping[str, Any]) -> None:
    optional = ("torch", *(f"torch.{name}" for name in _DEVICES))
    if found := name_differences(None, states, ("python", "numpy"), optional):
        raise StateMismatchError(f"the saved random states do not fit: {'; '.join(found)}")
    restore_state(_OF_PYTHON, _from_text(states["python"]))
    restore_state(np.random.mtrand._rand, _from_text(states["numpy"]))
    if "torch" in states and (torch := _torch()) is not None:
        try:
            torch.set_rng_state(_words_of(torch, states["torch"]))
            for name in _DEVICES:
                device: Any = getattr(torch, name, None)
                saved = states.get(f"torch.{name}", ())
                there = device.device_count() if saved and device is not None else 0
                for number, state in enumerate(saved[:there]):  # another machine may have fewer
                    device.set_rng_state(_words_of(torch, state), number)
        except RuntimeError as error:
            raise ValueError(f"the state of torch's generator does not fit: {error}") from error


_DEVICES: Final = ("cuda", "xpu")  # PyTorch's names, also of AMD's GPUs, and of Intel's


def _devices_of(torch: Any) -> list[tuple[str, Any]]:
    """The kinds of GPUs that PyTorch has used: only then it can have drawn there."""
    found = [(name, getattr(torch, name, None)) for name in _DEVICES]
    return [(name, device) for name, device in found if device and device.is_initialized()]


def _hex(state: Any) -> str:
    return str(state.cpu().numpy().tobytes().hex())


def _words_of(torch: Any, state: str) -> Any:
    return torch.from_numpy(np.frombuffer(bytearray.fromhex(state), np.uint8))


def _torch() -> Any:
    """PyTorch, if the program has imported it: only then it can have drawn."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "set_rng_state") and hasattr(torch, "from_numpy") else None


def _as_text(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _as_text(value) for name, value in state.items()}
    return state.astype("<u4").tobytes().hex() if isinstance(state, np.ndarray) else state


def _from_text(state: Any) -> Any:
    if not isinstance(state, Mapping):
        return state
    made = dict(state)
    for name, value in state.items():
        if isinstance(value, Mapping):
            made[name] = _from_text(value)
        elif isinstance(value, str) and name in ("words", "key"):
            made[name] = np.frombuffer(bytes.fromhex(value), "<u4")
    return made


# Which of them have drawn


class Look:
    """The positions of all generators in the process, except the program's own.

    of_program: include these. keeps_states: so that they can be put back.

    >>> noise, look = np.random.default_rng(0), Look()
    >>> number = noise.random()
    >>> [name_of(source) for source in look.moved()]
    ['noise']
    """

    __slots__ = ("_places", "_sources", "_states")

    def __init__(self, *, of_program: bool = False, keeps_states: bool = False) -> None:
        left_out = () if of_program else _of_program().values()
        self._sources = [
            source for source in _alive() if not any(source is own for own in left_out)
        ]
        self._places = [place_of(source) for source in self._sources]
        self._states = [state_of(source) for source in self._sources] if keeps_states else []

    def put_back(self) -> None:
        """Restore the generators that have drawn since then, if their states were kept."""
        for source, place, state in zip(self._sources, self._places, self._states, strict=True):
            if place_of(source) != place:
                restore_state(source, state)

    def again(self) -> Look:
        """Return the current places of the same generators: cheap, but blind to new ones."""
        now = copy(self)
        now._places = [place_of(source) for source in self._sources]
        return now

    def moved(self) -> list[Source]:
        """Return the generators that have drawn, or were set, since then."""
        pairs = zip(self._sources, self._places, strict=True)
        return [source for source, place in pairs if place_of(source) != place]


def _of_program() -> dict[str, Source]:
    return {"random": _OF_PYTHON, "numpy.random": np.random.mtrand._rand._bit_generator}


def is_of_program(source: Source) -> bool:
    """Whether it is the generator of `random.random()` or `numpy.random.normal()`."""
    return any(source is own for own in _of_program().values())


def _alive() -> list[Source]:
    """All in the process, in one pass over its objects."""
    kinds = [*with_subclasses(Generator), *with_subclasses(np.random.BitGenerator)]
    kinds += set(with_subclasses(random.Random)).difference(with_subclasses(random.SystemRandom))
    found = {id(thing): thing for thing in live_objects(kinds) if _is_made(thing)}
    if gc.get_freeze_count():  # the collector lists nothing that was frozen
        found |= {id(source): source for _, source in _of_modules()}
    # The names of temporary files are no numbers of a training.
    names = getattr(sys.modules.get("tempfile"), "_name_sequence", None)
    found.pop(id(getattr(names, "_rng", None)), None)
    return list(found.values())


def _is_made(source: Source) -> bool:
    """False for what a constructor that failed has left, which a kept traceback holds."""
    return not isinstance(source, Generator) or hasattr(source, "undecided")


def _of_modules() -> Iterator[tuple[str, Source]]:
    """The generators that modules name, but those of the standard library."""
    kinds = Generator, np.random.BitGenerator, random.Random, *_views_of_numpy()
    for title, module in list(sys.modules.items()):
        if title in sys.stdlib_module_names:
            continue
        for name, thing in list(getattr(module, "__dict__", {}).items()):
            if issubclass(type(thing), kinds) and (source := source_of(thing)) is not None:
                yield name, source


def place_of(source: Source) -> Hashable:
    """Return a generator's position, which is equal at another time if nothing was drawn."""
    if isinstance(source, Generator):
        return source.place
    if isinstance(source, random.Random):
        return random.Random.getstate(source)
    return _hashable(source.state)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((name, _hashable(each)) for name, each in value.items())
    return value.tobytes() if isinstance(value, np.ndarray) else value


def sources_in(things: Iterable[object], *, used: bool = False) -> Iterator[Source]:
    """Iterate over the generators that objects hold in attributes, containers and closures.

    used: also those that functions reach by global names, and that objects of rumus hold, which are
        not searched otherwise: they save their own.
    """
    waiting, seen = list(things), set[int]()
    while waiting and len(seen) < MOST:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType)):
            continue
        seen.add(id(thing))
        if (source := source_of(thing)) is not None:
            yield source
        elif isinstance(thing, FunctionType):
            waiting += [*(thing.__closure__ or ()), *(thing.__defaults__ or ())]
            names = thing.__code__.co_names if used else ()
            waiting += [thing.__globals__[name] for name in names if name in thing.__globals__]
        elif used or not type(thing).__module__.startswith("rumus."):
            waiting += [part for part in gc.get_referents(thing) if gc.is_tracked(part)]


# Their names for messages


def name_of(source: Source) -> str | None:
    """Return a program's name for a generator.

    None if no name leads to it, as when only a running function or the standard library has it.
    """
    for called, own in _of_program().items():
        if source is own:
            return called
    for called, own in _of_modules():
        if source is own:
            return called
    found: list[tuple[object, str]] = [(source, "")]  # and the path from each to the source
    for _ in range(DEPTH):
        ways = {id(thing): way for thing, way in found}
        holders = referrers(*(thing for thing, _ in found), by_tuples=True)
        found = []
        for holder in holders:
            if (name := _name_within(holder, ways)) is not None:
                return name
            if isinstance(holder, (list, tuple, BuiltinMethodType, *_views_of_numpy())):
                found.append((holder, _way_within(holder, ways)))
    return None


MOST: Final = 1_000_000  # objects that are searched for generators
DEPTH: Final = 3  # containers between a name and a generator; each costs a search of every object


def _name_within(holder: object, ways: Mapping[int, str]) -> str | None:
    """The name in a module, object or closure of one of the things, and the path from there."""
    names: Iterable[tuple[Any, object]] = ()
    if isinstance(holder, dict):
        names = () if _is_of_library(holder) else list(holder.items())
    elif isinstance(holder, CellType):
        names = [(_name_of_cell(holder), holder.cell_contents)]
    elif type(holder).__module__ not in sys.stdlib_module_names and type(holder) is not Look:
        own = [*getattr(holder, "__dict__", ())]
        own += [n for kind in type(holder).__mro__ for n in vars(kind).get("__slots__", ())]
        names = [(name, getattr(holder, name, None)) for name in own]
    for name, value in names:
        if isinstance(name, str) and (way := _way_to(value, ways)) is not None:
            return name + way
    return None


def _way_to(value: object, ways: Mapping[int, str]) -> str | None:
    """The path from a value to the source: of one of the things, or of a tuple of them."""
    if (way := ways.get(id(value))) is None and isinstance(value, tuple):
        found = (
            f"[{index}]{ways[id(each)]}" for index, each in enumerate(value) if id(each) in ways
        )
        return next(found, None)
    return way


def _way_within(holder: object, ways: Mapping[int, str]) -> str:
    """The path from a container, or from a method, to the source."""
    if isinstance(holder, BuiltinMethodType):
        return ".__self__" + ways.get(id(holder.__self__), "")
    if isinstance(holder, (list, tuple)):
        for index, value in enumerate(holder):
            if (way := _way_to(value, ways)) is not None:
                return f"[{index}]{way}"
    return next(iter(ways.values()))  # a view of NumPy is the source to a program


def _is_of_library(names: dict[Any, Any]) -> bool:
    """Whether they are the attributes of an object of the standard library."""
    return "__name__" not in names and any(
        type(owner).__module__ in sys.stdlib_module_names
        and getattr(owner, "__dict__", None) is names
        for owner in referrers(names)
    )


def _name_of_cell(cell: CellType) -> str | None:
    for function in live_objects([FunctionType]):
        if function.__closure__ is not None:
            for name, each in zip(function.__code__.co_freevars, function.__closure__, strict=True):
                if each is cell:
                    return str(name)
    return None


def kind_of(source: Source) -> str:
    """Return what kind of generator it is, for messages."""
    if isinstance(source, Generator):
        return repr(source)
    return f"a {'Python' if isinstance(source, random.Random) else 'NumPy'} generator"
