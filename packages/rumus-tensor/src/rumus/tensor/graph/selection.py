"""Selecting named parameters by role, name pattern or function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import shown

if TYPE_CHECKING:
    from rumus.tensor.graph.parameter import Parameter, ParamId

Role: TypeAlias = Literal["weight", "bias", "norm", "embedding"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
Criterion: TypeAlias = "str | Callable[[str, Parameter], bool]"
_SHOWN: Final = 4  # names in a message


def check_role(role: object) -> None:
    """Raise ValueError if `role` is not one of `ROLES`, TypeError if it is no text."""
    check_choice("role", role, ROLES)


def selected(
    named: Sequence[tuple[str, Parameter]],
    what: Criterion | None,
    role: Role | None,
    of: str = "what",
) -> set[ParamId]:
    """Return the ids of those that match; see `Parameters.where` for arguments and errors.

    of: the name of `what` in messages.
    """
    if what is None and role is None:
        raise TypeError("give a pattern, a function of name and parameter, or a role")
    if what is not None and not isinstance(what, str) and not callable(what):
        raise TypeError(
            f"{of} must be a pattern, or a function of name and parameter, not {shown(what)}"
        )
    if role is not None:
        check_role(role)
    found = {p.id for name, p in named if _fits(name, p, what, role)}
    if not found:
        raise ValueError(_nothing(named, what, role))
    return found


def _fits(name: str, parameter: Parameter, what: Criterion | None, role: Role | None) -> bool:
    if role is not None and parameter.role != role:
        return False
    if isinstance(what, str):
        return fnmatchcase(name, what)
    return what is None or bool(what(name, parameter))


def _nothing(
    named: Sequence[tuple[str, Parameter]], what: Criterion | None, role: Role | None
) -> str:
    names = [name for name, _ in named]
    asked = [f"the name {what!r}"] if isinstance(what, str) else []
    asked += ["the given function"] if what is not None and not asked else []
    asked += [f"the role {role!r}"] if role is not None else []
    message = f"no parameter matches {' and '.join(asked)}"
    if not names:
        return f"{message}: there are no parameters"
    if isinstance(what, str):
        near = get_close_matches(what, names, _SHOWN, 0.4) or names[:_SHOWN]
        return f"{message}; similar names: {', '.join(near)}"
    roles = ", ".join(dict.fromkeys(p.role for _, p in named))
    return f"{message}; there are {len(names)}: {', '.join(names[:_SHOWN])}, with roles {roles}"
