"""In what the Muon of other libraries differs from PyTorch's.

Newton-Schulz divides by the norm first, so a factor in the momentum is no difference: neither is
b = momentum b + g against an average, nor that average divided by 1 - momentum^t, but for what eps
is compared with.
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

    rule: for what goes to Muon; others: for what does not. couples_decay: weight_decay p is added
    to the gradient, before the momentum. eps_beside: the norm plus eps, not the larger of them.
    sums: eps is meant for b = momentum b + g. takes_convolutions: weights of 3 axes and more go to
    Muon as matrices, (first, all others). takes_all: whatever its shape is goes to Muon: 3 axes
    and more as (first, all others), fewer than 2 with their momentum as it is. takes_embeddings: so
    do these. flips: whose factor has rows and columns exchanged. The weight of a linear layer is
    (outputs, inputs) here, (inputs, outputs) in some libraries; a table of embeddings lies alike.
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
        """Whether a parameter goes to Muon if nobody says otherwise."""
        if self.takes_all:
            return True
        if parameter.ndim > 2:
            return self.takes_convolutions and parameter.role == "weight"
        return parameter.ndim == 2 and (self.takes_embeddings or parameter.role != "embedding")

    def factor(self, adjust: Adjust, parameter: Parameter, parts: int = 1) -> float:
        """What the orthogonal matrix is multiplied by, for its shape.

        Where everything goes to Muon it is that of the last two axes. parts: of how many matrices
        the parameter consists, one below the other.
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
    """Return that of a library that has a preset."""
    found = _VARIANTS[library]
    if library == "optax" and not nesterov:  # one bias correction for all: no other direction
        return replace(found, rule=rules.muon, others=rules.adamw)
    return found
