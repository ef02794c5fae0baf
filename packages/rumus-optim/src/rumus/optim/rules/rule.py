"""What an update rule is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from rumus.tensor import Expr

Update: TypeAlias = Mapping[str, Expr]
Rule: TypeAlias = Callable[..., Update]
