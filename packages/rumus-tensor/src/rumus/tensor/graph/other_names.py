"""What PyTorch's names for parts of a tensor are called here."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.other_names import OtherNames

TENSOR: Final = OtherNames(
    "a tensor",
    {
        "grad": "grads = loss.backward(); grads[parameter]",
        "zero_grad": "nothing: each backward returns gradients of its own",
        "requires_grad_": "parameter.requires_grad = True",
        "view": "x.reshape(...)",
        "cuda": "x.to_gpu()",
        "cpu": "x.to(cpu()), or x.numpy()",
        "device": "x.backend",
        "dim": "x.ndim",
        "numel": "x.size",
        "float": "x.astype(float32)",
        "double": "x.astype(float64)",
        "half": "x.astype(float16)",
        "long": "x.astype(int32)",
        "int": "x.astype(int32)",
        "bool": "x.astype(bool_)",
        "type": "x.astype(...)",
        "pow": "x ** y",
        "mul": "x * y",
        "add": "x + y",
        "sub": "x - y",
        "div": "x / y",
        "mm": "x @ y",
        "bmm": "x @ y",
        "t": "x.T",
        "masked_fill": "where(mask, value, x)",
        "std": "x.var(...).sqrt()",
        "expand": "x.broadcast_to(shape)",
        "copy_": "x.assign(value)",
        "fill_": "x.assign(value)",
        "clamp": "x.clip(low, high)",
        "contiguous": "nothing: a tensor is contiguous wherever that matters",
        "data": "x.detach()",
    },
)
AXIS: Final = OtherNames(
    "a reduction", {"dim": "axis=...", "keepdim": "keepdims=...", "unbiased": "ddof=1"}
)
MODULE: Final = OtherNames(
    "rumus.tensor",
    {
        "nn": "rumus.nn",
        "optim": "rumus.optim",
        "cat": "concat([x, y], axis=...)",
        "concatenate": "concat([x, y], axis=...)",
        "from_numpy": "tensor(array)",
        "array": "tensor(values)",
        "as_tensor": "tensor(values)",
        "asarray": "tensor(values)",
        "Variable": "Parameter(values), which is trained, or tensor(values)",
        "randn": "Generator(seed).normal(shape)",
        "rand": "Generator(seed).uniform(shape)",
        "manual_seed": "Generator(seed), given to what draws",
        "mm": "matmul(x, y), or x @ y",
        "bmm": "matmul(x, y), or x @ y",
        "dot": "matmul(x, y), or x @ y",
        "einsum": "matmul(x, y) with x.transpose(...) and x.reshape(...)",
        "sum": "x.sum(axis=...)",
        "mean": "x.mean(axis=...)",
        "argmax": "x.argmax(axis=...)",
        "reshape": "x.reshape(...)",
        "inference_mode": "no_grad()",
        "set_grad_enabled": "no_grad()",
        "cuda": "gpu_backend(), or x.to_gpu()",
        "device": "cpu() and gpu_backend()",
        "save": "rumus.optim.save_state, or rumus.train.Checkpoints",
        "load": "rumus.optim.load_state, or rumus.train.Checkpoints",
        "compile": "nothing: Trainer captures steps by itself",
    },
)
