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
