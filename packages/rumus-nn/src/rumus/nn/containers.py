"""Lists and dicts of modules, whose parameters are found."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from rumus.nn.module import Module
from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.printable import abridged

M = TypeVar("M", bound=Module)


class Ordered(Module, Generic[M]):
    """Modules in order, whose names are their positions: what containers of them share.

    modules: the initial contents; TypeError for an item that is not a module.
    """

    def __init__(self, modules: Iterable[M]) -> None:
        self._modules: list[M] = []
        self.extend(modules)

    def append(self, module: M) -> Self:
        """Add a module at the end, and return the container.

        An optimizer made before does not train it.

        module: TypeError for anything else.
        """
        return self.insert(len(self._modules), module)

    def extend(self, modules: Iterable[M]) -> Self:
        """Add modules at the end, and return the container.

        modules: TypeError, with none added, for an item that is not a module.
        """
        added = list(modules)
        for at, module in enumerate(added, len(self._modules)):
            check_module(type(self).__name__, at, module)
        self._modules += added
        return self

    def insert(self, index: int, module: M) -> Self:
        """Add a module before the one at `index`, and return the container.

        index: from the end if it is negative.
        module: TypeError for anything else.
        """
        check_module(type(self).__name__, index, module)
        self._modules.insert(index, module)
        return self

    def pop(self, index: int = -1) -> M:
        """Remove a module, and return it. IndexError if there is none.

        index: from the end if it is negative.
        """
        return self._modules.pop(self._place(index))

    def _place(self, index: int) -> int:
        """The index of a module from the front. IndexError if there is none."""
        name, count = type(self).__name__, len(self._modules)
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"{name}[...] takes the number of a module, not {shown(index)}"
            ) from None
        if not -count <= number < count:
            raise IndexError(f"{name} has {count} modules, and none of number {number}")
        return number % count

    def _has_item(self, name: str) -> bool:
        return name.isdecimal() and int(name) < len(vars(self).get("_modules", ()))

    def _put_child(self, name: str, module: Module) -> None:
        if name.isdecimal():
            self._modules[int(name)] = module  # type: ignore[assignment]
        else:
            super()._put_child(name, module)

    def named_members(self) -> Iterable[tuple[str, object]]:
        """Return the modules by position, then attributes that a subclass added."""
        yield from ((str(i), module) for i, module in enumerate(self._modules))
        yield from ((name, v) for name, v in vars(self).items() if name != "_modules")

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[M]:
        return iter(self._modules)

    def __iadd__(self, modules: Iterable[M]) -> Self:
        return self.extend(modules)

    def __setitem__(self, index: int, module: M) -> None:
        """Replace a module. IndexError if there is none, TypeError for anything else.

        index: from the end if it is negative.
        module: the replacement.
        """
        check_module(type(self).__name__, index, module)
        self._modules[self._place(index)] = module

    def __delitem__(self, index: int | slice) -> None:
        """Remove a module, or several. IndexError if there is none."""
        del self._modules[index if isinstance(index, slice) else self._place(index)]


class ModuleList(Ordered[M]):
    """Modules in order; their names are their positions.

    modules: the initial contents.

    TypeError for an item that is not a module.

    >>> from rumus.nn import Linear, ModuleList
    >>> ModuleList([Linear(2, 3), Linear(3, 1, bias=False)]).parameters().names
    ('0.weight', '0.bias', '1.weight')
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        given: Any = modules
        if not is_ordered(given):
            raise TypeError(f"ModuleList takes a list of modules, not {type(given).__name__}")
        super().__init__(modules)

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList[M]: ...
    def __getitem__(self, index: int | slice) -> M | ModuleList[M]:
        """Return a module, or a list of some of them: the same modules, not copies."""
        if isinstance(index, slice):
            return ModuleList(self._modules[index])
        return self._modules[self._place(index)]


class ModuleDict(Module, Generic[M]):
    """Modules by name, in order.

    modules: a mapping from names to modules.

    TypeError for an item that is not a module; ValueError for a name with a dot, or an empty one.

    >>> from rumus.nn import Linear, ModuleDict
    >>> heads = ModuleDict({"age": Linear(8, 1), "kind": Linear(8, 5)})
    >>> heads["kind"].outputs
    5
    """

    def __init__(self, modules: Mapping[str, M] | None = None) -> None:
        self._modules: dict[str, M] = {}
        if modules is not None and not hasattr(modules, "items"):
            raise TypeError(f"ModuleDict takes modules by name, not {type(modules).__name__}")
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: M) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a module's name is text, unlike {name!r}")
        if not name or "." in name:
            raise ValueError(f"a module's name is not empty and has no dot, unlike {name!r}")
        check_module(type(self).__name__, name, module)
        self._modules[name] = module

    def _has_item(self, name: str) -> bool:
        return name in vars(self).get("_modules", ())

    def _put_child(self, name: str, module: Module) -> None:
        if name in self._modules:
            self._modules[name] = module  # type: ignore[assignment]
        else:
            super()._put_child(name, module)

    def named_members(self) -> Iterable[tuple[str, object]]:
        """Return the modules by name, then attributes that a subclass added."""
        yield from self._modules.items()
        yield from ((name, v) for name, v in vars(self).items() if name != "_modules")

    def __getitem__(self, name: str) -> M:
        return self._modules[name]

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._modules.keys())

    def values(self) -> Iterator[M]:
        """Iterate over the modules."""
        return iter(self._modules.values())

    def update(self, modules: Mapping[str, M]) -> None:
        """Add modules, or replace those of these names.

        modules: by name, with the errors of the constructor.
        """
        for name, module in modules.items():
            self[name] = module

    def pop(self, name: str) -> M:
        """Remove a module, and return it. KeyError if there is none.

        name: of the module.
        """
        return self._modules.pop(name)

    def items(self) -> Iterator[tuple[str, M]]:
        """Iterate over (name, module)."""
        return iter(self._modules.items())


def check_module(container: str, key: int | str, module: object) -> None:
    """Raise TypeError for an item that is not a module."""
    if not isinstance(module, Module):
        hint = " (make it first: ReLU() and not ReLU)" if isinstance(module, type) else ""
        raise TypeError(f"{container}[{key!r}] must be a Module, not {abridged(module)}{hint}")
