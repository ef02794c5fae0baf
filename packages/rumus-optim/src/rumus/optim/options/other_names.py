"""PyTorch's and Keras's names for an optimizer's parts, and their counterparts here."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.other_names import OtherNames

_GRADIENTS: Final = "grads = loss.backward(); optimizer.step(grads): there is nothing to zero"
_SET: Final = "optimizer.set(lr=...), or lr=..., a schedule, when it is made"
_SAVE: Final = "save_state(optimizer, path) of rumus.optim"
_LOAD: Final = "load_state(optimizer, path) of rumus.optim"

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
        "save": _SAVE,
        "save_file": _SAVE,
        "load_file": _LOAD,
        "save_state": _SAVE,
        "load_state": _LOAD,
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
OPTIONS: Final = OtherNames(
    "an optimizer",
    {
        "params": "parameters, the first argument",
        "learning_rate": "lr=...",
        "epsilon": "eps=...",
        "beta_1": "betas=(..., ...)",
        "beta_2": "betas=(..., ...)",
        "clipnorm": "clip=ClipNorm(...)",
        "global_clipnorm": "clip=ClipNorm(...)",
        "clipvalue": "clip=ClipValue(...)",
        "use_ema": "average=EMA(...)",
        "fused": "always so: leave it out",
        "foreach": "always so: leave it out",
        "capturable": "always so: leave it out",
    },
)
MODULE: Final = OtherNames(
    "rumus.optim",
    {
        "lr_scheduler": "a schedule as the rate: AdamW(parameters, lr=cosine(...))",
        "StepLR": "step_decay(...), given as lr=...",
        "CosineAnnealingLR": "cosine(...), given as lr=...",
        "ExponentialLR": "exponential(...), given as lr=...",
        "OneCycleLR": "one_cycle(...), given as lr=...",
        "ReduceLROnPlateau": "Plateau(...), given as lr=...",
        "RMSProp": "RMSprop",
        "Ftrl": "Adagrad",
        "swa_utils": "average=SWA(...) or average=EMA(...) of an optimizer",
        "clip_grad_norm_": "clip=ClipNorm(...) of an optimizer, or clip_grad_norm(grads, ...)",
        "clip_grad_value_": "clip=ClipValue(...) of an optimizer, or clip_grad_value(grads, ...)",
        "GradScaler": "Trainer(optimizer, loss_scale=LossScale())",
    },
)
STATE: Final = OtherNames(
    "load_state_dict",
    {"strict": "always so: the state is loaded whole, or an error lists every difference"},
)
