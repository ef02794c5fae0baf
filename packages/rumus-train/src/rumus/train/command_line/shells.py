"""The shells that can complete the commands of `rumus`."""

from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")
