"""How other libraries' Muon differs from PyTorch's.

Newton-Schulz divides by the norm first, so factors in the momentum do not matter: b = momentum b +
g, an average, and that average divided by 1 - momentum^t differ only in the scale of eps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from rumus.optim import rules
from rumus.optim.rules import Rule
from rumus.optim.rules import ported as other
from rumus.tensor import Parameter

Adjust: TypeAlias = Literal["original", "match_rms_adamw", "spectral_unclamped"]


@dataclass(frozen=True, slots=True)
class MuonVariant:
    """The mathematics of one library's Muon.

    rule: for Muon's parameters; others: for the rest. couples_decay: weight_decay p is added
    to the gradient, before the momentum. eps_beside: divide by norm + eps, not max(norm, eps).
    sums: eps is meant for b = momentum b + g. takes_convolutions: weights with 3 or more axes
    go to Muon as matrices, (first, all others). takes_all: all shapes go to Muon: 3 or more axes as
    (first, all others), fewer than 2 with plain momentum. takes_embeddings: embeddings do too.
    flips: the factor has rows and columns swapped. The weight of a linear layer is (outputs,
    inputs) here, (inputs, outputs) in some libraries; embedding tables have the same layout.
    """

    rule: Rule = rules.muon
    others: Rule = rules.adamw
    couples_decay: bool = False
    eps_beside: bool = False
    sums: bool = False
    takes_convolutions: bool = False
    takes_all: bool = False
    takes_embeddings: bool = False
    flips: Literal["nothing", "weights", "embeddings"] = "nothing"

    def takes(self, parameter: Parameter) -> bool:
        """Whether a parameter goes to Muon by default."""
        if self.takes_all:
            return True
        if parameter.ndim > 2:
            return self.takes_convolutions and parameter.role == "weight"
        return parameter.ndim == 2 and (self.takes_embeddings or parameter.role != "embedding")

    def factor(self, adjust: Adjust, parameter: Parameter, parts: int = 1) -> float:
        """The factor of the orthogonal matrix, for its shape.

        Without `takes_convolutions`, the shape is that of the last two axes. parts: the number of
        matrices stacked in the parameter.
        """
        rows, columns = parameter.shape[-2:]
        if self.takes_convolutions:
            rows, columns = parameter.shape[0], math.prod(parameter.shape[1:])
        rows //= parts
        if adjust == "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        kind = "embeddings" if parameter.role == "embedding" else "weights"
        ratio = columns / rows if kind == self.flips else rows / columns
        return math.sqrt(ratio if adjust == "spectral_unclamped" else max(1.0, ratio))


RUMUS: Final = MuonVariant(takes_convolutions=True)
_VARIANTS: Final[Mapping[str, MuonVariant]] = MappingProxyType(
    {
        "torch": MuonVariant(),
        "keras": MuonVariant(
            others=other.decoupled(other.adam_outer_eps), eps_beside=True, sums=True
        ),
        "optax": MuonVariant(
            rule=other.muon_corrected,
            others=other.decoupled(other.nadam_constant),
            eps_beside=True,
            takes_embeddings=True,
            flips="embeddings",
        ),
        "mlx": MuonVariant(
            rule=other.muon_coupled,
            others=other.decoupled(other.adam_uncorrected),
            couples_decay=True,
            eps_beside=True,
            takes_all=True,
        ),
        "burn": MuonVariant(sums=True, flips="weights"),
    }
)


def variant(library: str, *, nesterov: bool) -> MuonVariant:
    """Return the variant of a library with a preset."""
    found = _VARIANTS[library]
    if library == "optax" and not nesterov:  # a common bias correction does not change direction
        return replace(found, rule=rules.muon, others=rules.adamw)
    return found
