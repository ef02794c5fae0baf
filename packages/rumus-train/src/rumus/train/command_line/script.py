"""The script that describes a training: its function and the configuration it takes."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from rumus.train.base.configuration import load_configuration
from rumus.train.command_line.exit_codes import UsageError
from rumus.train.loop.training import Training


@dataclass(frozen=True)
class Script:
    """A function that returns a Training, its file, and its configuration class, if any."""

    path: Path
    build: Callable[..., Any]
    kind: type[Any] | None

    def configure(self, file: Path | None, settings: Sequence[str]) -> Any:
        """Return the configuration, or None if the function takes none.

        Raises ConfigurationError.
        """
        if self.kind is not None:
            if file is not None and not file.is_file():
                raise UsageError(f"--config: there is no file {file}")
            return load_configuration(self.kind, file, settings)
        if file is None and not settings:
            return None
        raise UsageError(
            f"{self.path.name}:{self.build.__name__} takes no configuration, so there is nothing "
            f"to set: write def {self.build.__name__}(config: Config), where Config is your "
            "dataclass"
        )

    def training(self, config: Any) -> Training:
        """Call the function. Raises UsageError if it does not return a Training."""
        made = self.build() if self.kind is None else self.build(config)
        if not isinstance(made, Training):
            raise UsageError(
                f"{self.path.name}:{self.build.__name__} must return a rumus.train.Training, not "
                f"{type(made).__name__}"
            )
        return made


def load_script(text: str) -> Script:
    """Return what "folder/script.py:function" names; the default function is "build".

    Raises UsageError if it does not exist or its signature does not fit.
    """
    file, name = split_name(text)
    path = Path(file)
    if not path.is_file():
        raise UsageError(
            f"there is no script {file}; write script.py:function, such as train.py:build"
        )
    module = _run(path.resolve())
    build = getattr(module, name, None)
    if not callable(build):
        functions = [v for v in vars(module).values() if inspect.isfunction(v)]
        own = [f.__name__ for f in functions if f.__module__ == module.__name__]
        raise UsageError(f"{path.name} has no function {name}; it has {', '.join(own) or 'none'}")
    return Script(path.resolve(), build, _configuration_class(build, f"{path.name}:{name}"))


def split_name(text: str) -> tuple[str, str]:
    """Return the file and the function of "script.py:function".

    >>> split_name("train.py:small"), split_name("train.py")
    (('train.py', 'small'), ('train.py', 'build'))
    """
    file, colon, name = text.rpartition(":")
    return (file, name) if colon and name.isidentifier() else (text, "build")


def _run(path: Path) -> ModuleType:
    """Import a file as Python runs a script: its folder comes first on the import path.

    The name stays importable, since worker processes import the dataset's class by it.
    """
    name = path.stem
    there = sys.modules.get(name)
    if there is not None and getattr(there, "__file__", None) != str(path):
        raise UsageError(f"{path.name} has the name of another module, {name}: rename it")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path.name} is not a Python script: its name must end in .py")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _configuration_class(build: Callable[..., Any], name: str) -> type[Any] | None:
    parameters = list(inspect.signature(build).parameters.values())
    if needless := [p.name for p in parameters[1:] if p.default is p.empty]:
        raise UsageError(f"{name} is called with only the configuration, not {needless[0]}")
    if not parameters:
        return None
    kind = get_type_hints(build).get(parameters[0].name)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise UsageError(
            f"{name}: the annotation of {parameters[0].name!r} must be the dataclass of the "
            "configuration"
        )
    return kind
