"""What PyTorch's and Keras's names for an optimizer's parts are called here."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.other_names import OtherNames

_GRADIENTS: Final = "grads = loss.backward(); optimizer.step(grads): nothing has to be set to zero"
_SET: Final = "optimizer.set(lr=...), or lr=..., a schedule, when it is made"

OPTIMIZER: Final = OtherNames(
    "an optimizer",
    {
        "zero_grad": _GRADIENTS,
        "lr": _SET,
        "learning_rate": _SET,
        "param_groups": "optimizer.groups to read and optimizer.set(...) to change",
        "add_param_group": "a ParameterGroup in the list that the optimizer is made with",
        "defaults": "optimizer.hyper",
        "weight_decay": "optimizer.set(weight_decay=...)",
        "betas": "optimizer.set(betas=...)",
        "momentum": "optimizer.set(momentum=...)",
        "minimize": "grads = loss.backward(); optimizer.step(grads)",
        "apply_gradients": "optimizer.step(grads)",
        "iterations": "optimizer.steps",
        "state": "optimizer.state_dict()",
    },
)
GROUP: Final = OtherNames(
    "a ParameterGroup",
    {
        "lr": "ParameterGroup(..., lr=...) when it is made; group.hyper shows it",
        "weight_decay": "ParameterGroup(..., weight_decay=...) when it is made",
        "params": "group.named",
    },
)
