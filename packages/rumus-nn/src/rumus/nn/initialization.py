"""Initial weights: each function fills a parameter in place and returns it.

A weight has the shape (outputs, inputs, *kernel). Its fan in is inputs times the size of the
kernel: the number of terms in one output. Its fan out is outputs times the size of the kernel.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from rumus.tensor import Generator, Parameter
from rumus.tensor.expression.arguments import checked_arguments, checked_first
from rumus.tensor.expression.choice import check_choice

__all__ = [
    "constant",
    "fans",
    "gain",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Nonlinearity: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu"]
Fan: TypeAlias = Literal["in", "out"]


@checked_first
def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan in and fan out of a weight; ValueError for fewer than two axes.

    shape: (outputs, inputs, *kernel).

    >>> from rumus.nn.initialization import fans
    >>> fans((8, 3, 5, 5))
    (75, 200)
    """
    if len(shape) < 2:
        raise ValueError(f"a weight needs (outputs, inputs, ...) to have a fan, not {shape}")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


@checked_arguments
def gain(nonlinearity: Nonlinearity, slope: float = 0.01) -> float:
    """Return the factor that scales the weights before this nonlinearity.

    It is 1 for "linear" and "sigmoid", 5/3 for "tanh" (the customary value), sqrt(2) for "relu" and
    sqrt(2 / (1 + slope^2)) for "leaky_relu". The last two keep the mean square of the activations
    from layer to layer: He et al., "Delving deep into rectifiers", 2015, equations 10 and 15.

    nonlinearity: one of these names, ValueError otherwise.
    slope: of "leaky_relu" for negative inputs.

    >>> from rumus.nn.initialization import gain
    >>> gain("leaky_relu", slope=1.0)
    1.0
    """
    known = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope * slope)),
    }
    check_choice("nonlinearity", nonlinearity, known)
    return known[nonlinearity]


def _kaiming_std(parameter: Parameter, fan: Fan, nonlinearity: Nonlinearity, slope: float) -> float:
    check_choice("fan", fan, ("in", "out"))
    count = fans(parameter.shape)[0 if fan == "in" else 1]
    return gain(nonlinearity, slope) / math.sqrt(max(count, 1))


def _xavier_std(parameter: Parameter, scale: float) -> float:
    return scale * math.sqrt(2 / max(sum(fans(parameter.shape)), 1))


@checked_arguments
def kaiming_normal(
    parameter: Parameter,
    *,
    generator: Generator,
    fan: Fan = "in",
    nonlinearity: Nonlinearity = "relu",
    slope: float = 0.01,
) -> Parameter:
    """Fill with N(0, gain^2 / fan): He et al., "Delving deep into rectifiers", 2015, section 2.2.

    parameter: a weight, of shape (outputs, inputs, *kernel).
    generator: of the random numbers.
    fan: "in" preserves the scale of activations, "out" that of gradients.
    nonlinearity, slope: as in `gain`.

    >>> from rumus.nn.initialization import kaiming_normal
    >>> from rumus.tensor import Generator, Parameter, zeros
    >>> weight = kaiming_normal(Parameter(zeros((400, 200))), generator=Generator(0))
    >>> round(weight.var().item() * 200, 1)  # gain^2
    2.0
    """
    return normal(
        parameter, generator=generator, std=_kaiming_std(parameter, fan, nonlinearity, slope)
    )


@checked_arguments
def kaiming_uniform(
    parameter: Parameter,
    *,
    generator: Generator,
    fan: Fan = "in",
    nonlinearity: Nonlinearity = "relu",
    slope: float = 0.01,
) -> Parameter:
    """Fill with U(-b, b), b = gain sqrt(3 / fan): the variance of `kaiming_normal`.

    parameter, generator, fan, nonlinearity, slope: as in `kaiming_normal`.
    """
    bound = math.sqrt(3) * _kaiming_std(parameter, fan, nonlinearity, slope)
    return uniform(parameter, generator=generator, low=-bound, high=bound)


@checked_arguments
def xavier_normal(parameter: Parameter, *, generator: Generator, scale: float = 1.0) -> Parameter:
    """Fill with N(0, scale^2 2 / (fan in + fan out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, equation 12: a compromise between preserving the scale of activations and of gradients.

    parameter: a weight, of shape (outputs, inputs, *kernel).
    generator: of the random numbers.
    scale: a `gain`.
    """
    return normal(parameter, generator=generator, std=_xavier_std(parameter, scale))


@checked_arguments
def xavier_uniform(parameter: Parameter, *, generator: Generator, scale: float = 1.0) -> Parameter:
    """Fill with U(-b, b), b = scale sqrt(6 / (fan in + fan out)).

    Glorot and Bengio, 2010, equation 16.

    parameter, generator, scale: as in `xavier_normal`.
    """
    bound = math.sqrt(3) * _xavier_std(parameter, scale)
    return uniform(parameter, generator=generator, low=-bound, high=bound)


@checked_arguments
def uniform(
    parameter: Parameter, *, generator: Generator, low: float = 0.0, high: float = 1.0
) -> Parameter:
    """Fill with numbers uniform in [low, high).

    parameter: of any shape.
    generator: of the random numbers.
    low, high: the bounds; ValueError unless low <= high.
    """
    if not low <= high:
        raise ValueError(f"uniform: low {low} is above high {high}")
    return parameter.assign(
        generator.uniform(parameter.shape, low, high, backend=parameter.backend)
    )


@checked_arguments
def normal(
    parameter: Parameter, *, generator: Generator, mean: float = 0.0, std: float = 1.0
) -> Parameter:
    """Fill with normal numbers.

    parameter: of any shape.
    generator: of the random numbers.
    mean, std: of the distribution; ValueError for a negative std.
    """
    if not std >= 0:
        raise ValueError(f"normal: std must not be negative: {std}")
    return parameter.assign(generator.normal(parameter.shape, mean, std, backend=parameter.backend))


@checked_arguments
def truncated_normal(
    parameter: Parameter,
    *,
    generator: Generator,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
) -> Parameter:
    """Fill with normal numbers, redrawn until they are in [low, high].

    parameter: of any shape.
    generator: of the random numbers.
    mean, std: of the distribution before it is truncated.
    low, high: values, not multiples of std; ValueError if almost no number is between them.
    """
    values = generator.truncated_normal(
        parameter.shape, mean, std, low, high, backend=parameter.backend
    )
    return parameter.assign(values)


@checked_arguments
def constant(parameter: Parameter, value: float) -> Parameter:
    """Fill with one number.

    parameter: of any shape.
    value: that every element gets.
    """
    return parameter.assign(value)


@checked_arguments
def zeros(parameter: Parameter) -> Parameter:
    """Fill with zeros.

    parameter: of any shape.
    """
    return constant(parameter, 0.0)


@checked_arguments
def ones(parameter: Parameter) -> Parameter:
    """Fill with ones.

    parameter: of any shape.
    """
    return constant(parameter, 1.0)
