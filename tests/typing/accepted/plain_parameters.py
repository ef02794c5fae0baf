"""Parameters in a list belong to no module; a schedule is a function of the step."""

from rumus.optim import SGD, Adam, AdamW
from rumus.tensor import Parameter, ParamId

first, second, third = (Parameter([1.0], name=name) for name in ("first", "second", "third"))
optimizers = (SGD([first], 0.5), Adam([second], lr=0.1), AdamW([third], lr=lambda step: 0.1 / step))
grads = (first + second + third).sum().backward()
for optimizer in optimizers:
    optimizer.step(grads)
counts: dict[ParamId, int] = {first.id: 1}
assert len(grads) == 0
assert first.tolist() == [0.5]
