"""Frozen matrices have only the listed storage formats."""

from rumus import nn

# error: Argument "storage" to "lora" has incompatible type "Literal['4bit']"; expected "Literal['same', 'float16', '8bit']"  [arg-type]
nn.lora(nn.Sequential(nn.Linear(2, 2)), 1, storage="4bit")
