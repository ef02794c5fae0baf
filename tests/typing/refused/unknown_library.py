"""A preset for an unknown library, an option that no preset has, and an unknown value."""

from rumus.optim import AdamW, Muon
from rumus.tensor import Parameter

weight = Parameter([1.0])
# error: Argument 1 to "like" of "FusedOptimizer" has incompatible type "Literal['kreas']"; expected "Literal['torch', 'keras', 'optax', 'mlx', 'burn', 'tinygrad']"  [arg-type]
AdamW.like("kreas", [weight])
# error: Unexpected keyword argument "weigth_decay" for "like" of "FusedOptimizer"; did you mean "weight_decay"?  [call-arg]
AdamW.like("keras", [weight], weigth_decay=0.1)
# error: Argument "adjust" to "like" of "Muon" has incompatible type "Literal['rms']"; expected "Literal['original', 'match_rms_adamw', 'spectral_unclamped']"  [arg-type]
Muon.like("optax", [weight], 0.1, adjust="rms")
