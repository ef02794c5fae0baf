"""A preset of a library that is not known, and an option that no preset has."""

from rumus.optim import AdamW
from rumus.tensor import Parameter

weight = Parameter([1.0])
# error: Argument 1 to "like" of "FusedOptimizer" has incompatible type "Literal['kreas']"; expected "Literal['torch', 'keras', 'optax', 'mlx', 'burn', 'tinygrad']"  [arg-type]
AdamW.like("kreas", [weight])
# error: Unexpected keyword argument "weigth_decay" for "like" of "FusedOptimizer"; did you mean "weight_decay"?  [call-arg]
AdamW.like("keras", [weight], weigth_decay=0.1)
