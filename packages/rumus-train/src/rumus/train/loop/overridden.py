"""Methods of a user's trainer that `fit` would not call, as other libraries' trainers do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, Final

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.other_names import HEARD, HOOKS

_OWN: Final = ("train_step", "forward_backward", "update")  # whose work `fit` does otherwise


def check_overridden(kind: type, loss_fn: Callable[..., Any]) -> None:
    """Look at what a class derived from `Trainer` defines.

    TypeError for a method of `Trainer` that `fit` does not call; UserWarning for one that another
    library's trainer calls, unless the class or the loss function names it.

    kind: the trainer's class. loss_fn: what `fit` calls.
    """
    members = own_members(kind)
    for name in _OWN:
        if name in members:
            raise TypeError(
                f"{kind.__name__}.{name} is called by nothing in fit: change what loss_fn or a "
                f"callback does, or call {name} in a loop of your own"
            )
    hooks = HOOKS.rows | HEARD.rows
    unused = sorted(members.keys() & hooks.keys())
    if unused:
        named = names_in(*members.values(), loss_fn)
        named.add(getattr(loss_fn, "__name__", ""))
        for name in unused:
            if name not in named:
                warn_user(
                    f"{kind.__name__}.{name} is called by nothing in fit; here it is {hooks[name]}"
                )


def own_members(kind: type) -> dict[str, Any]:
    """Return what a user's class defines, and its bases outside of this library."""
    bases = [base for base in kind.__mro__ if not base.__module__.startswith("rumus.")]
    return {name: member for base in reversed(bases) for name, member in vars(base).items()}


def names_in(*members: Any) -> set[str]:
    """Return the names that the code of some functions and properties reads."""
    return {name for each in members for code in _codes(each) for name in code.co_names}


def _codes(member: Any) -> Iterator[CodeType]:
    """The code of a function or property, and of the functions in it."""
    parts = (member, *(getattr(member, of, None) for of in ("func", "fget", "__func__")))
    found = [code for part in parts if (code := getattr(inspect.unwrap(part), "__code__", None))]
    while found:
        code = found.pop()
        yield code
        found += [each for each in code.co_consts if isinstance(each, CodeType)]
