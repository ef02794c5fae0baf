"""A hyper-parameter that an optimizer does not have."""

from rumus.optim import AdamW
from rumus.tensor import Parameter

# error: Unexpected keyword argument "weigth_decay" for "AdamW"; did you mean "weight_decay"?  [call-arg]
AdamW([Parameter([1.0])], weigth_decay=0.1)
