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
        "get_lr": "optimizer.hyper['lr']",
        "current_lr": "optimizer.hyper['lr']",
        "get_last_lr": "optimizer.hyper['lr']",
        "set_lr": "optimizer.set(lr=...)",
        "assign": "optimizer.set(lr=...)",
        "get_config": "optimizer.hyper",
        "get_weights": "optimizer.state_dict()",
        "variables": "optimizer.state_dict()",
        "set_weights": "optimizer.load_state_dict(state)",
        "build": "nothing: the state is made with the optimizer",
        "init": "nothing: the state is made with the optimizer",
        "apply": "optimizer.step(grads)",
        "update": "optimizer.step(grads)",
        "backward": "grads = loss.backward()",
        "clip_grad_norm": "clip=ClipNorm(...), or clip_grad_norm(grads, optimizer, max_norm)",
        "no_sync": "Accumulation(), or accumulate=... of Trainer.fit",
        "lr_scheduler": "lr=..., a schedule, when it is made",
        "scheduler": "lr=..., a schedule, when it is made",
        "compute_gradients": "grads = loss.backward()",
        "get_gradients": "grads = loss.backward()",
        "nesterov": "nesterov=... when it is made",
        "amsgrad": "amsgrad=... when it is made",
        "eps": "optimizer.set(eps=...)",
        "epsilon": "optimizer.set(eps=...)",
        "beta_1": "optimizer.set(betas=...)",
        "decay": "lr=..., a schedule, when it is made",
        "clipnorm": "clip=ClipNorm(...) when it is made",
        "params": "optimizer.parameters",
        "param_names": "optimizer.named_parameters()",
        "step_count": "optimizer.steps",
        "zero_grads": "grads = loss.backward(); optimizer.step(grads): there is nothing to zero",
        "train": "with average.applied(): ...",
        "eval": "with average.applied(): ...",
        "get_slot": "optimizer.state_dict()",
        "register_step_post_hook": "a callback of Trainer.fit",
        "register_step_pre_hook": "a callback of Trainer.fit",
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
_FIRST: Final = "what loss.backward() returned, as optimizer.step(loss.backward())"
_CLOSURE: Final = "minimize_step(closure) of LBFGS and SAM; others step with gradients"
STEP: Final = OtherNames("an optimizer's step", {"closure": _CLOSURE}, {"grads": _FIRST})
MINIMIZE: Final = OtherNames(
    "minimize_step",
    {"loss": "closure, a function without arguments that returns the loss"},
    {"closure": "a function without arguments that returns the loss"},
)
_CLIPPED: Final = {
    "grads": "what loss.backward() returned; then the optimizer, and the limit",
    "optimizer": "the one whose parameters count, between the gradients and the limit",
    "max_norm": "the third argument: clip_grad_norm(grads, optimizer, max_norm)",
    "max_value": "the third argument: clip_grad_value(grads, optimizer, max_value)",
}
CLIPPING: Final = OtherNames(
    "clipping",
    {
        "parameters": "grads and optimizer: clip_grad_norm(grads, optimizer, max_norm)",
        "clip_value": "max_value=...",
        "norm_type": "nothing: it is the 2-norm",
        "error_if_nonfinite": "always so",
    },
    _CLIPPED,
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
        "differentiable": "nothing: a step has no gradient",
        "model": "parameters, the first argument: model.parameters()",
        "ema_momentum": "average=EMA(...)",
        "ema_overwrite_frequency": "average=EMA(...), and average.applied()",
        "jit_compile": "always so: leave it out",
        "gradient_accumulation_steps": "accumulate=... of Trainer.fit",
        "decay": "lr=..., a schedule",
        "clip_norm": "clip=ClipNorm(...)",
        "max_grad_norm": "clip=ClipNorm(...)",
        "grad_clip": "clip=ClipNorm(...)",
        "gradient_clip_val": "clip=ClipNorm(...)",
        "clip_value": "clip=ClipValue(...)",
        "ema": "average=EMA(...)",
        "scheduler": "lr=..., a schedule",
        "lr_scheduler": "lr=..., a schedule",
        "lr_schedule": "lr=..., a schedule",
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
        "SparseAdam": "AdamW, since every gradient is dense",
        "LinearLR": "linear(...), or warmup(...), given as lr=...",
        "MultiStepLR": "multi_step(...), given as lr=...",
        "LambdaLR": "a function of the step, given as lr=...",
        "MultiplicativeLR": "a function of the step, given as lr=...",
        "CosineAnnealingWarmRestarts": "warm_restarts(...), given as lr=...",
        "CosineDecayRestarts": "warm_restarts(...), given as lr=...",
        "CyclicLR": "cyclic(...), given as lr=...",
        "PolynomialLR": "polynomial(...), given as lr=...",
        "PolynomialDecay": "polynomial(...), given as lr=...",
        "ConstantLR": "constant(...), given as lr=...",
        "SequentialLR": "warmup(n).then(schedule), given as lr=...",
        "ChainedScheduler": "warmup(n).then(schedule), given as lr=...",
        "SWALR": "average=SWA(...) of an optimizer",
        "AveragedModel": "average=EMA(...) or average=SWA(...) of an optimizer",
        "chain": "options of one optimizer: clip=..., weight_decay=..., average=...",
        "apply_updates": "optimizer.step(grads)",
        "adamw": "AdamW(parameters, lr)",
        "adam": "Adam(parameters, lr)",
        "sgd": "SGD(parameters, lr)",
        "clip_by_global_norm": "clip=ClipNorm(...) of an optimizer",
        "cosine_decay_schedule": "cosine(...), given as lr=...",
        "CosineDecay": "cosine(...), given as lr=...",
        "warmup_cosine_decay_schedule": "warmup(n).then(cosine(...)), given as lr=...",
        "get_cosine_schedule_with_warmup": "warmup(n).then(cosine(...)), given as lr=...",
        "WarmupCosine": "warmup(n).then(cosine(...)), given as lr=...",
        "get_linear_schedule_with_warmup": "warmup(n).then(linear(...)), given as lr=...",
        "get_constant_schedule_with_warmup": "warmup(n).then(constant(...)), given as lr=...",
        "get_scheduler": "a schedule as the rate: AdamW(parameters, lr=cosine(...))",
        "exponential_decay": "exponential(...), given as lr=...",
        "ExponentialDecay": "exponential(...), given as lr=...",
        "piecewise_constant_schedule": "multi_step(...), given as lr=...",
        "PiecewiseConstantDecay": "multi_step(...), given as lr=...",
        "linear_schedule": "linear(...), given as lr=...",
        "InverseTimeDecay": "a function of the step, given as lr=...",
        "schedules": "functions of rumus.optim, given as lr=...",
        "masked": "ParameterGroup, or MultiOptimizer",
        "multi_transform": "ParameterGroup, or MultiOptimizer",
        "inject_hyperparams": "optimizer.set(lr=...)",
        "Nadam": "NAdam",
        "AdamW8bit": "AdamW(parameters, state_dtype='8bit')",
        "Adam8bit": "AdamW(parameters, state_dtype='8bit')",
        "PagedAdamW8bit": "AdamW(parameters, state_dtype='8bit')",
        "LookAhead": "Lookahead",
        "Lamb": "LAMB",
        "Lars": "LARS",
        "LossScaleOptimizer": "Trainer(optimizer, loss_scale=LossScale())",
        "MultiSteps": "Accumulation(), or accumulate=... of Trainer.fit",
        "ReduceOnPlateau": "Plateau(...), given as lr=...",
        "ZeroRedundancyOptimizer": "Trainer(optimizer, ranks=..., zero=True)",
    },
)
_NEEDS_NO_STEP: Final = "nothing: a schedule is a function of the optimizer's step, lr(step)"
SCHEDULE: Final = OtherNames(
    "a Schedule",
    {
        "step": _NEEDS_NO_STEP,
        "get_last_lr": "optimizer.hyper['lr'](optimizer.steps)",
        "get_lr": "optimizer.hyper['lr'](optimizer.steps)",
        **dict.fromkeys(
            ("state_dict", "load_state_dict"), "save_state(optimizer, path), which has its step"
        ),
        "last_epoch": "optimizer.steps",
        "optimizer": "lr=... of an optimizer, which the schedule is given to",
    },
)
SCHEDULE_OPTIONS: Final = OtherNames(
    "a schedule",
    {
        "optimizer": "lr=... of an optimizer, which the schedule is given to",
        **dict.fromkeys(("T_max", "total_iters", "total_steps", "decay_steps"), "steps"),
        **dict.fromkeys(("num_training_steps", "max_iters", "transition_steps"), "steps"),
        **dict.fromkeys(("num_warmup_steps", "warmup_steps"), "warmup(steps).then(schedule)"),
        **dict.fromkeys(
            ("lr", "base_lr", "initial_learning_rate", "init_value", "max_lr", "peak_value"),
            "the first argument, a rate",
        ),
        **dict.fromkeys(("eta_min", "min_lr", "end_value", "end_learning_rate"), "end, a rate"),
        **dict.fromkeys(("start_factor", "end_factor"), "start and end, which are rates"),
        **dict.fromkeys(("gamma", "decay_rate"), "factor, or shrink of cyclic"),
        "step_size": "every",
        "milestones": "after",
        "T_0": "period",
        "T_mult": "growth",
        "pct_start": "rise",
        "div_factor": "divide",
        "final_div_factor": "final_divide",
        "step_size_up": "up",
        "step_size_down": "down",
        "last_epoch": "nothing: the optimizer counts its steps",
        "verbose": "nothing: print(schedule(step))",
    },
)
LOSS_SCALE: Final = OtherNames(
    "LossScale",
    {
        "init_scale": "initial",
        "growth_factor": "growth",
        "backoff_factor": "backoff",
        "growth_interval": "every",
        "min_scale": "minimum",
        "enabled": "nothing: leave loss_scale= out",
    },
)
AVERAGE: Final = OtherNames(
    "an average",
    {
        "update": "optimizer.step(grads), which does so",
        "update_parameters": "optimizer.step(grads), which does so",
        "apply_shadow": "with average.applied(): ...",
        "average_parameters": "with average.applied(): ...",
        "swap": "with average.applied(): ...",
        "module": "the model itself, in a block of average.applied()",
        "shadow": "optimizer.state_dict()",
    },
)
PLATEAU: Final = OtherNames(
    "a Plateau",
    {
        "step": "plateau.report(value), or FeedPlateau(plateau), a callback of fit",
        "num_bad_epochs": "plateau.waited",
        "min_lrs": "plateau.lowest",
    },
)
ACCUMULATION: Final = OtherNames(
    "an Accumulation",
    {
        "step": "optimizer.step(accumulation.gradients())",
        "backward": "accumulation.add(loss.backward(), weight=...)",
    },
)
STATE: Final = OtherNames(
    "load_state_dict",
    {"strict": "always so: the state is loaded whole, or an error lists every difference"},
)
