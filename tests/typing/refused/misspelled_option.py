"""A hyperparameter that an optimizer does not have."""

from rumus.optim import SGD, AdamW, Lion
from rumus.tensor import Parameter

# error: Unexpected keyword argument "weigth_decay" for "AdamW"; did you mean "weight_decay"?  [call-arg]
AdamW([Parameter([1.0])], weigth_decay=0.1)

# error: Unexpected keyword argument "master_weight" for "SGD"; did you mean "master_weights"?  [call-arg]
SGD([Parameter([1.0])], master_weight=True)

# error: Argument "state_dtype" to "Lion" has incompatible type "Literal['bfloat16']"; expected "Literal['float16', 'float32', '8bit'] | None"  [arg-type]
Lion([Parameter([1.0])], state_dtype="bfloat16")
