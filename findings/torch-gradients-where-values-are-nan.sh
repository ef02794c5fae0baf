#!/usr/bin/env bash
# torch 2.13.0 and jax 0.10.2 (CPU): where a value is NaN, the gradient often is a finite number, and
# the two libraries give different ones.
#
# One would expect NaN, as for sigmoid, tanh, softplus, silu and gelu in both. But torch gives 1 for
# relu, relu6, hardtanh, elu, celu, hardshrink, softshrink and max, the slope for leaky_relu, and 0
# for hardsigmoid, abs and l1_loss. jax gives 0 for relu, relu6 and hardsigmoid, 1 for hardtanh, the
# slope for leaky_relu, NaN for elu, celu and max, and -1 for abs.
#
# So gradients do not tell whether a loss is NaN, and a test of gradients at NaN that takes one of
# the two for exact holds a convention.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 jax==0.10.2
cat >"$folder/gradients.py" <<'PYTHON'
import math

import jax
import torch
from torch.nn import functional

FUNCTIONS = {
    "relu": (functional.relu, jax.nn.relu),
    "relu6": (functional.relu6, jax.nn.relu6),
    "hardtanh": (functional.hardtanh, jax.nn.hard_tanh),
    "leaky_relu": (functional.leaky_relu, jax.nn.leaky_relu),
    "elu": (functional.elu, jax.nn.elu),
    "celu": (functional.celu, jax.nn.celu),
    "hardsigmoid": (functional.hardsigmoid, jax.nn.hard_sigmoid),
    "abs": (torch.abs, abs),
    "hardshrink": (functional.hardshrink, None),
    "softshrink": (functional.softshrink, None),
    "l1_loss to 0": (lambda x: functional.l1_loss(x, torch.zeros(1)), None),
    "max": (torch.max, jax.numpy.max),
    "sigmoid": (torch.sigmoid, jax.nn.sigmoid),
    "tanh": (torch.tanh, jax.numpy.tanh),
    "softplus": (functional.softplus, jax.nn.softplus),
    "silu": (functional.silu, jax.nn.silu),
    "gelu": (functional.gelu, jax.nn.gelu),
}


def of_torch(function):
    x = torch.tensor([math.nan], requires_grad=True)
    value = function(x).sum()
    value.backward()
    assert math.isnan(value.item())
    return x.grad.item()


def of_jax(function):
    value, gradient = jax.value_and_grad(lambda x: function(x).sum())(jax.numpy.array([math.nan]))
    assert math.isnan(value)
    return float(gradient[0])


found = {}
for name, (in_torch, in_jax) in FUNCTIONS.items():
    found[name] = of_torch(in_torch), None if in_jax is None else of_jax(in_jax)
    print(f"{name}: torch {found[name][0]:.3g}, jax {'-' if in_jax is None else f'{found[name][1]:.3g}'}")

assert all(found[name][0] == 1 for name in ("relu", "relu6", "hardtanh", "elu", "celu", "max"))
assert found["hardshrink"][0] == found["softshrink"][0] == 1
assert found["hardsigmoid"] == (0, 0) and found["abs"] == (0, -1) and found["l1_loss to 0"][0] == 0
assert found["relu"][1] == found["relu6"][1] == 0 and found["hardtanh"][1] == 1
assert all(math.isnan(found[name][1]) for name in ("elu", "celu", "max"))
assert all(abs(gradient - 0.01) < 1e-8 for gradient in found["leaky_relu"])
passed_on = ("sigmoid", "tanh", "softplus", "silu", "gelu")
assert all(math.isnan(gradient) for name in passed_on for gradient in found[name])
PYTHON
"$folder/venv/bin/python" "$folder/gradients.py"
