"""Configuration: your dataclass, from TOML and from `name=value`, and back to TOML.

The annotations are the schema; nothing is converted except an integer where a float is needed. All
errors are in one ConfigurationError.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.expression.nearest_name import nearest_name
from rumus.tensor.expression.printable import PrintableError
from rumus.tensor.memory.replaced_file import replaced
from rumus.train.base.printable import printable
from rumus.train.base.regular_file import require_regular_file
from rumus.train.base.sealed import fault_of_seal
from rumus.train.base.toml_text import DEEPEST, parse_toml, to_toml, toml_value

C = TypeVar("C")
NONE: Final = "none"  # TOML has no null; this text stands for None where it is allowed
_PLAIN: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


class ConfigurationError(PrintableError, ValueError):
    """A configuration does not fit its dataclass; the message lists all errors."""


@dataclasses.dataclass(frozen=True, repr=False)
class Text:
    """A value as typed: `read` takes it as text or as TOML, depending on the annotation."""

    text: str

    def __repr__(self) -> str:
        return repr(self.text)


class _Wrong(Exception):
    """A value of a wrong type. Never leaves this file."""


@checked_first
def load_configuration(
    kind: type[C], file: str | Path | None = None, settings: Iterable[str] = ()
) -> C:
    """Return a dataclass with the values of a TOML file, then of settings such as "optim.lr=3e-4".

    Fields may be bool, int, float, str, Path, Enum, Literal, lists, tuples, dicts with str keys,
    unions of these with None, and dataclasses of such fields. Missing fields get their defaults.
    Where None is allowed, the text "none" stands for it.

    kind: a dataclass.
    file: in TOML.
    settings: strings such as "lr=0.1", which override the file.

    ConfigurationError with all errors: unknown keys, with the nearest existing one; missing ones;
    values of a wrong type, with the right one; errors from `__post_init__`. OSError for a file that
    cannot be read.

    >>> from dataclasses import dataclass, field
    >>> from rumus.train import load_configuration
    >>> @dataclass
    ... class Optim:
    ...     lr: float = 1e-3
    ...     betas: tuple[float, float] = (0.9, 0.999)
    >>> @dataclass
    ... class Config:
    ...     width: int = 64
    ...     optim: Optim = field(default_factory=Optim)
    >>> load_configuration(Config, settings=["optim.lr=3e-4", "width=128"])
    Config(width=128, optim=Optim(lr=0.0003, betas=(0.9, 0.999)))
    >>> load_configuration(Config, settings=["optim.rl=1", "width=wide"])
    Traceback (most recent call last):
        ...
    rumus.train.base.configuration.ConfigurationError: the configuration does not fit Config:
      width must be a whole number, not 'wide'
      optim.rl is unknown; did you mean optim.lr?
    """
    table: dict[str, Any] = {} if file is None else _parsed(Path(file))
    for setting in settings:
        _set(table, setting)
    return configure(kind, table)


def configure(kind: type[C], table: Mapping[str, Any]) -> C:
    """Return a dataclass with the values of a table; see `load_configuration`."""
    problems: list[str] = []
    made = _build(kind, table, "", problems)
    if problems:
        lines = "\n  ".join(problems)
        raise ConfigurationError(f"the configuration does not fit {kind.__name__}:\n  {lines}")
    assert isinstance(made, kind)
    return made


def configuration_table(config: Any) -> dict[str, Any]:
    """Return a configuration as a table for TOML, with every field.

    ConfigurationError for values that could not be read back.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     clip: float | None = None
    ...     data: Path = Path("digits.npy")
    >>> configuration_table(Config())
    {'clip': 'none', 'data': 'digits.npy'}
    """
    table = {f.name: _plain(getattr(config, f.name), f.name) for f in _fields(type(config))}
    given, again = map(dataclasses.asdict, (config, configure(type(config), table)))
    for name, value in given.items():
        if not _is_same(value, again[name]):
            raise ConfigurationError(
                f"{name} is {_shown(value)}, which would not read back unchanged, but as "
                f"{_shown(again[name])}: give another value, of the annotated type"
            )
    try:
        to_toml(table).encode()
    except (TypeError, ValueError) as error:  # keys that are no text, halves of characters
        raise ConfigurationError(f"no TOML file can hold the configuration: {error}") from None
    return table


def _is_same(given: Any, read: Any) -> bool:
    """Whether a value was read back, a whole number maybe as a float."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [*given] == [*read] and all(_is_same(given[name], read[name]) for name in given)
    if isinstance(given, (list, tuple)) and type(given) is type(read):
        return len(given) == len(read) and all(map(_is_same, given, read))
    if type(given) is int and type(read) is float:
        return given == read
    return repr(given) == repr(read)  # NaN is not NaN


@checked_first
def save_configuration(config: Any, file: str | Path) -> None:
    """Write a configuration as TOML that `load_configuration` restores exactly.

    config: an object of a dataclass.
    file: to write, in TOML.
    """
    text = to_toml(configuration_table(config))
    with replaced(Path(file)) as beside:
        beside.write_text(text, encoding="utf-8")


# Reading


def _parsed(file: Path) -> dict[str, Any]:
    require_regular_file(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
        table = parse_toml(text)
    except ValueError as error:
        raise ConfigurationError(f"{printable(file)} is not TOML: {printable(error)}") from None
    if (fault := fault_of_seal(text)) is not None:
        raise ConfigurationError(
            f"{printable(file)} does not fit the checksum in its first line: {fault}; restore it, "
            "or remove that line if the change is meant"
        )
    return table


def _set(table: dict[str, Any], setting: str) -> None:
    """Put "a.b=value" into a table."""
    name, equals, value = setting.partition("=")
    path = name.strip().split(".")
    if len(path) > DEEPEST:
        raise ConfigurationError(f"{printable(setting)} is nested too deeply")
    if not equals or not all(path):
        raise ConfigurationError(
            f"a setting is written name=value, such as optim.lr=3e-4: {setting!r}"
        )
    for part in path[:-1]:
        inner = table.get(part)
        if not isinstance(inner, dict):
            inner = table[part] = {}
        table = inner
    table[path[-1]] = Text(value)


def _fields(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(kind):
        raise ConfigurationError(f"{kind!r} must be a dataclass")
    return [field for field in dataclasses.fields(kind) if field.init]


def _build(kind: type[Any], table: Any, path: str, problems: list[str]) -> Any:
    """Return a dataclass from a table; errors are added to `problems`."""
    if not isinstance(table, Mapping):
        problems.append(f"{path[:-1]} must be a table, not {_shown(table)}")
        return None
    fields = {field.name: field for field in _fields(kind)}
    problems += [_unknown(path, name, fields) for name in table if name not in fields]
    count = len(problems)
    values = {}
    hints = _hints(kind)
    for name, field in fields.items():
        if name in table:
            values[name] = _field(hints[name], table[name], path + name, problems)
        elif field.default is MISSING and field.default_factory is MISSING:
            needed = _needed(hints[name])
            problems.append(f"{path}{name} is missing; expected {needed}")
    if len(problems) > count:
        return None
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        problems.append(f"{path[:-1] or kind.__name__}: {error}")
        return None


def _hints(kind: type[Any]) -> dict[str, Any]:
    """Return the fields' annotations, all of which can be read."""
    made = [f.default_factory for f in _fields(kind)] + [type(f.default) for f in _fields(kind)]
    # A dataclass inside a function is found by no name, but often it is what makes the default.
    local = {each.__name__: each for each in made if dataclasses.is_dataclass(each)}
    try:
        hints = get_type_hints(kind, localns=local)
    except NameError as error:
        raise ConfigurationError(f"the annotations of {kind.__name__}: {error}") from None
    for field in _fields(kind):
        try:
            _needed(hints[field.name])
        except _Wrong as wrong:
            raise ConfigurationError(f"{kind.__name__}.{field.name}: {wrong}") from None
    return hints


def _unknown(path: str, name: str, known: Mapping[str, object]) -> str:
    near = nearest_name(name, known, cutoff=0.5)
    there = f"did you mean {path}{near}?" if near else f"there is {', '.join(known) or 'none'}"
    return f"{printable(path + name)} is unknown; {there}"


def _field(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return _build(hint, value, f"{path}.", problems)
    try:
        return read(hint, value)
    except _Wrong as wrong:
        problems.append(f"{path} must be {_needed(hint)}, not {wrong}")
    return None


def read(hint: Any, value: Any) -> Any:
    """Convert a value according to an annotation, or raise _Wrong with what was found."""
    if isinstance(value, Text):
        return _read_text(hint, value.text)
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _first_that_fits(parts, value)
    if hint is type(None):
        return None if value == NONE else _refuse(value)
    if hint is float and type(value) is int:
        is_exact = abs(value) < 2**1023 and int(float(value)) == value
        return float(value) if is_exact else _refuse(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in _PLAIN and type(value) is hint:
        return value
    if origin is Literal:
        found = [part for part in parts if type(part) is type(value) and part == value]
        return found[0] if found else _refuse(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint[value] if value in hint.__members__ else _refuse(value)
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        return _read_sequence(origin or hint, parts, value)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {name: read(parts[1], item) for name, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return configure(hint, value)
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise _Wrong(_shown(value))


def _first_that_fits(parts: Sequence[Any], value: Any) -> Any:
    """None first, then the exact types, in the order they are written in."""
    for part in sorted(parts, key=lambda part: part is not type(None)):
        try:
            return read(part, value)
        except _Wrong:
            continue
    return _refuse(value)


def _read_sequence(origin: Any, parts: Sequence[Any], value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return _refuse(value)
    if origin is tuple and parts[-1:] != (Ellipsis,) and parts:
        if len(parts) != len(value):
            return _refuse(value)
        return tuple(read(part, item) for part, item in zip(parts, value, strict=True))
    kind = parts[0] if parts else str
    return (tuple if origin is tuple else list)(read(kind, item) for item in value)


def _read_text(hint: Any, text: str) -> Any:
    """Read typed text: as TOML if that fits, else as text."""
    try:
        typed = parse_toml(f"value = {text}")
    except ValueError:
        typed = {}
    is_plain = set(typed) == {"value"}
    bare = text.strip()
    for candidate in [typed["value"], bare] if is_plain else [bare]:
        if not _fits(hint, candidate):
            continue
        found = read(hint, candidate)
        if candidate is bare != text and found is not None and _fits(hint, text):
            raise _Wrong(
                f"{_shown(text)}, with spaces around it: leave them out, or write "
                f"{toml_value(text)} if they belong to it"
            )
        return found
    return _refuse(typed["value"] if is_plain else bare)


def _fits(hint: Any, value: Any) -> bool:
    try:
        read(hint, value)
    except _Wrong:
        return False
    return True


# Saying what is needed


def _needed(hint: Any) -> str:
    """Describe what an annotation allows."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_needed(part) for part in parts)
    if hint is type(None):
        return f'"{NONE}"'
    if origin is Literal:
        return " or ".join(repr(part) for part in parts)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(repr(name) for name in hint.__members__)
    if origin is tuple and parts[-1:] != (Ellipsis,):
        return f"a list of {len(parts)} ({', '.join(_needed(part) for part in parts)})"
    if origin in (list, tuple, Sequence):
        return f"a list ({_needed(parts[0])} each)"
    if origin in (dict, Mapping):
        return f"a table ({_needed(parts[1])} each)"
    if dataclasses.is_dataclass(hint):
        return "a table"
    if hint in _PLAIN:
        return _PLAIN[hint]
    raise _Wrong(
        f"a configuration cannot hold {hint}: use bool, int, float, str, Path, Enum, Literal, "
        "lists, tuples, dicts by str, or dataclasses of them"
    )


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


# Writing

_WRITTEN: Final[Sequence[tuple[Any, Callable[[Any], Any]]]] = (
    (Enum, lambda value: value.name),
    (Path, str),
    (type(None), lambda value: NONE),
    ((bool, int, float, str), lambda value: value),
)


def _plain(value: Any, path: str) -> Any:
    """Return a value in TOML's types."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in _fields(type(value))]
        return {name: _plain(getattr(value, name), f"{path}.{name}") for name in names}
    if isinstance(value, Mapping):
        return {name: _plain(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, path) for item in value]
    for kind, write in _WRITTEN:
        if isinstance(value, kind):
            return write(value)
    raise ConfigurationError(f"{path} is {value!r}, and a configuration cannot hold that")
