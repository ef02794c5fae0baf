"""The optimizer of one module does not take the parameters of another."""

from rumus.optim import AdamW
from rumus.tensor import Parameters


class Generator:
    def parameters(self) -> "Parameters[Generator]":
        return Parameters({})


class Discriminator:
    def parameters(self) -> "Parameters[Discriminator]":
        return Parameters({})


# error: Argument 1 to "AdamW" has incompatible type "Parameters[Discriminator]"; expected "Parameters[Generator] | Sequence[Parameter] | Sequence[ParameterGroup]"  [arg-type]
AdamW[Generator](Discriminator().parameters())
# error: Argument 1 to "AdamW" has incompatible type "Parameters[Discriminator]"; expected "Parameters[Generator] | Sequence[Parameter] | Sequence[ParameterGroup]"  [arg-type]
optimizer: AdamW[Generator] = AdamW(Discriminator().parameters())
