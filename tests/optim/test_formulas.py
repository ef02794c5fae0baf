"""Every optimizer and every option against formulas in NumPy float64.

The gradients are given (the loss is linear), so only the update is under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import KINDS

from rumus.optim import (
    ADOPT,
    ASGD,
    LAMB,
    LARS,
    MARS,
    SGD,
    SOAP,
    AdaBelief,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    AdEMAMix,
    AveragingOptimizer,
    DAdaptAdam,
    LaProp,
    Lion,
    Muon,
    NAdam,
    Optimizer,
    ParameterGroup,
    Prodigy,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    StableAdamW,
    Yogi,
)
from rumus.tensor import Backend, DType, Parameter, float32, float64, tensor

Real = NDArray[Any]
STEPS: Final = 200
SHAPES: Final = ((), (1,), (7,), (3, 5), (2, 1, 3), (257,), (65, 3))
LARGE: Final = ((129, 131), (11,))  # beyond the size from which numba compiles a loop
COMPILED: Final = (16_411,)  # the same parameters in one group


def value(hyper: Any, t: int) -> float:
    """A hyperparameter at step t, counted from 1."""
    return float(hyper(t) if callable(hyper) else hyper)


def expected_sgd(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: Any = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> Real:
    b = np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + value(weight_decay, t) * p
        d = g
        if momentum:
            b = g if t == 1 else momentum * b + (1 - dampening) * g
            d = g + momentum * b if nesterov else b
        p = p - value(lr, t) * d
    return p


def expected_adam(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Any = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled: bool = False,
) -> Real:
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        if decoupled:
            p = p * (1 - value(lr, t) * value(weight_decay, t))
        else:
            g = g + value(weight_decay, t) * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        largest = np.maximum(largest, v)
        used = largest if amsgrad else v
        correction1, correction2 = 1 - betas[0] ** t, 1 - betas[1] ** t
        p = p - value(lr, t) / correction1 * m / (np.sqrt(used) / np.sqrt(correction2) + eps)
    return p


def expected_adamw(p: Real, gradients: Sequence[Real], **options: Any) -> Real:
    return expected_adam(p, gradients, **{"weight_decay": 0.01, "decoupled": True, **options})


def expected_adagrad(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
) -> Real:
    s = np.full_like(p, initial_accumulator_value)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + weight_decay * p
        s = s + g**2
        p = p - value(lr, t) / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s) + eps)
    return p


def expected_rmsprop(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> Real:
    v, mean, b = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        divisor = np.sqrt(v - mean**2 if centered else v) + eps
        b = momentum * b + g / divisor
        p = p - value(lr, t) * b
    return p


def expected_adadelta(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Real:
    v, u = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + weight_decay * p
        v = rho * v + (1 - rho) * g**2
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d**2
        p = p - value(lr, t) * d
    return p


def expected_adamax(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Real:
    m, u = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        u = np.maximum(betas[1] * u, np.abs(g) + eps)
        p = p - value(lr, t) / (1 - betas[0] ** t) * m / u
    return p


def expected_nadam(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 2e-3,
    betas: Any = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    product = 1.0
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        if decoupled_weight_decay:
            p = p * (1 - value(lr, t) * weight_decay)
        else:
            g = g + weight_decay * p
        now = betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay))
        later = betas[0] * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
        product *= now
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        d = np.sqrt(v / (1 - betas[1] ** t)) + eps
        p = p - value(lr, t) * (1 - now) / (1 - product) * g / d
        p = p - value(lr, t) * later / (1 - product * later) * m / d
    return p


def expected_radam(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    most = 2 / (1 - betas[1]) - 1
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        if decoupled_weight_decay:
            p = p * (1 - value(lr, t) * weight_decay)
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        update = m / (1 - betas[0] ** t)
        length = most - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
        if length > 5:
            above = (length - 4) * (length - 2) * most
            r = np.sqrt(above / ((most - 4) * (most - 2) * length))
            update = update * r * np.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + eps)
        p = p - value(lr, t) * update
    return p


def expected_rprop(
    p: Real,
    gradients: Sequence[Real],
    lr: float = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
    maximize: bool = False,
) -> Real:
    step, before = np.full_like(p, lr), np.zeros_like(p)
    for given in gradients:
        g = -given if maximize else given
        agreement = g * before
        factor = np.ones_like(p)
        factor[agreement > 0] = etas[1]
        factor[agreement < 0] = etas[0]
        step = np.clip(step * factor, *step_sizes)
        g = np.where(agreement < 0, 0.0, g)
        p = p - np.sign(g) * step
        before = g
    return p


def expected_asgd(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    averaged: bool = False,
) -> Real:
    average = np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + weight_decay * p
        eta = value(lr, t) / (1 + lambd * value(lr, t) * (t - 1)) ** alpha
        p = p * (1 - lambd * eta) - eta * g
        average = average + (p - average) / max(1.0, t - 1 - t0)
    return average if averaged else p


def expected_lion(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Real:
    m = np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        p = p - value(lr, t) * (np.sign(betas[0] * m + (1 - betas[0]) * g) + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


def expected_lamb(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: Any = 0.01,
    adapt: float = 1.0,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        u = m_hat / (np.sqrt(v_hat) + eps) + value(weight_decay, t) * p
        norms = np.linalg.norm(p), np.linalg.norm(u)
        ratio = norms[0] / norms[1] if adapt and all(norms) else 1.0
        p = p - value(lr, t) * ratio * u
    return p


def expected_lars(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1.0,
    momentum: float = 0.9,
    weight_decay: Any = 5e-4,
    trust_coefficient: float = 1e-3,
    adapt: float = 1.0,
    maximize: bool = False,
) -> Real:
    b = np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        decay = value(weight_decay, t)
        norms = np.linalg.norm(p), np.linalg.norm(g)
        local = trust_coefficient * norms[0] / (norms[1] + decay * norms[0])
        ratio = local if adapt and all(norms) else 1.0
        b = momentum * b + value(lr, t) * ratio * (g + decay * p)
        p = p - b
    return p


def expected_adafactor(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float, float] = (1e-7, 1e-3),
    d: float = 1.0,
    weight_decay: Any = 0.0,
    maximize: bool = False,
) -> Real:
    """With v as a matrix, as in the paper; a tensor with one axis is a column without a mean."""
    rows = columns = v = np.zeros(())
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        w = t**beta2_decay
        if p.ndim >= 2:
            rows = (1 - w) * rows + w * (g**2).mean(-1, keepdims=True)
            columns = (1 - w) * columns + w * (g**2).mean(-2, keepdims=True)
            v = rows * columns / np.maximum(rows.mean(-2, keepdims=True), eps[0])
        else:
            v = (1 - w) * v + w * g**2
        u = g / np.sqrt(np.maximum(v, eps[0] ** 2))
        size = max(eps[1], np.sqrt((p**2).mean()))
        rate = size * min(value(lr, t), t**-0.5) / max(1.0, np.sqrt((u**2).mean()) / d)
        p = p * (1 - value(lr, t) * value(weight_decay, t)) - rate * u
    return p


def expected_adabelief(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-16,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Real:
    m, s = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        m = betas[0] * m + (1 - betas[0]) * g
        s = betas[1] * s + (1 - betas[1]) * (g - m) ** 2 + eps
        p = p - value(lr, t) * weight_decay * p
        m_hat, s_hat = m / (1 - betas[0] ** t), s / (1 - betas[1] ** t)
        p = p - value(lr, t) * m_hat / (np.sqrt(s_hat) + eps)
    return p


def expected_yogi(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-3,
    initial_accumulator_value: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.full_like(p, initial_accumulator_value)
    for t, given in enumerate(gradients, 1):
        g = (-given if maximize else given) + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = v + (1 - betas[1]) * np.sign(g**2 - v) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - value(lr, t) * m_hat / (np.sqrt(v_hat) + eps)
    return p


def expected_adan(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> Real:
    m, d, n = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    before = None
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        delta = np.zeros_like(g) if before is None else g - before
        m = betas[0] * m + (1 - betas[0]) * g
        d = betas[1] * d + (1 - betas[1]) * delta
        n = betas[2] * n + (1 - betas[2]) * (g + betas[1] * delta) ** 2
        m_hat, d_hat, n_hat = (a / (1 - beta**t) for a, beta in zip((m, d, n), betas, strict=True))
        p = p - value(lr, t) * (m_hat + betas[1] * d_hat) / (np.sqrt(n_hat) + eps)
        p = p / (1 + value(lr, t) * weight_decay)
        before = g
    return p


def expected_laprop(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 4e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-15,
    weight_decay: Any = 0.0,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        v = betas[1] * v + (1 - betas[1]) * g**2
        m = betas[0] * m + (1 - betas[0]) * g / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        p = p - value(lr, t) * value(weight_decay, t) * p
        p = p - value(lr, t) * m / (1 - betas[0] ** t)
    return p


def expected_ademamix(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    alpha: float = 5.0,
    t_alpha: int | None = None,
    t_beta3: int | None = None,
    eps: float = 1e-8,
    weight_decay: Any = 1e-2,
    maximize: bool = False,
) -> Real:
    m, v, slow = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    first, last = np.log(betas[0]), np.log(betas[2])
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        mixed = alpha if t_alpha is None else min(t * alpha / t_alpha, alpha)
        beta3 = betas[2]
        if t_beta3 is not None:  # in the paper's notation
            share = t / t_beta3
            slower = np.exp(first * last / ((1 - share) * last + share * first))
            beta3 = min(slower, betas[2]) if share < 1 else betas[2]
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        slow = beta3 * slow + (1 - beta3) * g
        u = m / (1 - betas[0] ** t) + mixed * slow
        u = u / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        p = p - value(lr, t) * (u + value(weight_decay, t) * p)
    return p


def expected_stable_adamw(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-6,
    weight_decay: Any = 1e-2,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        rms = np.sqrt(np.mean(g**2 / np.maximum(v_hat, eps**2)))
        rate = value(lr, t) / max(1.0, rms)
        p = p * (1 - rate * value(weight_decay, t)) - rate * m_hat / (np.sqrt(v_hat) + eps)
    return p


def expected_mars(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 3e-3,
    betas: tuple[float, float] = (0.95, 0.99),
    gamma: float = 0.025,
    eps: float = 1e-8,
    weight_decay: Any = 0.0,
    maximize: bool = False,
) -> Real:
    m, v, before = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        c = g + gamma * betas[0] / (1 - betas[0]) * (g - before)
        c = c / max(1.0, np.sqrt(np.sum(c * c)))
        m = betas[0] * m + (1 - betas[0]) * c
        v = betas[1] * v + (1 - betas[1]) * c**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p * (1 - value(lr, t) * value(weight_decay, t))
        p = p - value(lr, t) * m_hat / (np.sqrt(v_hat) + eps)
        before = g
    return p


def expected_prodigy(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    weight_decay: Any = 0.0,
    d0: float = 1e-6,
    d_coef: float = 1.0,
    growth_rate: float = np.inf,
    bias_correction: bool = False,
    safeguard_warmup: bool = False,
    maximize: bool = False,
) -> Real:
    """p and the gradients: those of all parameters, concatenated."""
    m, v, s, start = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), p
    d, d_max, numerator = d0, d0, 0.0
    beta3 = np.sqrt(betas[1]) if beta3 is None else beta3
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        correction = np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) if bias_correction else 1.0
        rate = d * value(lr, t) * correction
        numerator = beta3 * numerator + d / d0 * rate * np.sum(g * (start - p))
        m = betas[0] * m + d * (1 - betas[0]) * g
        v = betas[1] * v + d**2 * (1 - betas[1]) * g**2
        s = beta3 * s + d / d0 * (d if safeguard_warmup else rate) * g
        d_hat = d_coef * numerator / np.sum(np.abs(s))
        d = max(d, d_hat) if d == d0 else d
        d_max = max(d_max, d_hat)
        d = min(d_max, d * growth_rate)
        p = p - rate * value(weight_decay, t) * p
        p = p - rate * m / (np.sqrt(v) + d * eps)
    return p


def expected_dadapt_adam(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    d0: float = 1e-6,
    growth_rate: float = np.inf,
    bias_correction: bool = False,
    maximize: bool = False,
) -> Real:
    """p and the gradients: those of all parameters, concatenated."""
    m, v, s = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    d, numerator, b = d0, 0.0, np.sqrt(betas[1])
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        correction = np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) if bias_correction else 1.0
        rate, decay = d * value(lr, t) * correction, value(weight_decay, t)
        g = g if decoupled_weight_decay else g + decay * p
        numerator = b * numerator + (1 - b) * rate * np.sum(g * s / (np.sqrt(v) + eps))
        m = betas[0] * m + rate * (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        s = b * s + rate * (1 - b) * g
        d = max(d, min(numerator / ((1 - b) * np.sum(np.abs(s))), d * growth_rate))
        p = p - rate * decay * p if decoupled_weight_decay else p
        p = p - m / (np.sqrt(v) + eps)
    return p


def expected_adopt(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.9999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, given in enumerate(gradients):  # as in the paper: its step 0 only initializes v
        g = -given if maximize else given
        if not decoupled_weight_decay:
            g = g + weight_decay * p
        if t == 0:
            v = g**2
            continue
        if decoupled_weight_decay:
            p = p * (1 - value(lr, t + 1) * weight_decay)
        normalized = np.clip(g / np.maximum(np.sqrt(v), eps), -(t**0.25), t**0.25)
        m = betas[0] * m + (1 - betas[0]) * normalized
        p = p - value(lr, t + 1) * m
        v = betas[1] * v + (1 - betas[1]) * g**2
    return p


def expected_schedule_free(
    p: Real,
    gradients: Sequence[Real],
    lr: Any = 1.0,
    beta1: float = 0.9,
    betas: tuple[float, float] | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: float = 0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
    maximize: bool = False,
    averaged: bool = False,
) -> Real:
    """The paper's three points, all kept; with `betas` the direction is AdamW's."""
    beta1 = beta1 if betas is None else betas[0]
    x, y, z, v = p, p, p, np.zeros_like(p)
    largest = total = 0.0
    for t, given in enumerate(gradients, 1):
        g = -given if maximize else given
        if betas is not None:
            v = betas[1] * v + (1 - betas[1]) * g**2
            g = g / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        rate = value(lr, t) * (min(1.0, t / warmup_steps) if warmup_steps else 1.0)
        largest = max(largest, rate)
        total += t**r * largest**weight_lr_power
        c = t**r * largest**weight_lr_power / total if total else 0.0
        z = z - rate * (g + weight_decay * y)
        x = (1 - c) * x + c * z
        y = (1 - beta1) * z + beta1 * x
    return x if averaged else y


def expected_schedule_free_adamw(p: Real, gradients: Sequence[Real], **options: Any) -> Real:
    return expected_schedule_free(p, gradients, **{"lr": 2.5e-3, "betas": (0.9, 0.999), **options})


def halving(t: int) -> float:
    return float(0.02 * 0.5 ** (t // 50))


def warming(t: int) -> float:
    return 0.01 * min(1.0, t / 20)


Expected = Callable[..., Real]
CASES: Final[dict[str, tuple[type[Optimizer[Any]], Expected, dict[str, Any]]]] = {
    "sgd": (SGD, expected_sgd, {}),
    "sgd lr": (SGD, expected_sgd, {"lr": 0.05}),
    "sgd momentum": (SGD, expected_sgd, {"lr": 0.01, "momentum": 0.9}),
    "sgd dampening": (SGD, expected_sgd, {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    "sgd nesterov": (SGD, expected_sgd, {"lr": 0.01, "momentum": 0.8, "nesterov": True}),
    "sgd decay": (SGD, expected_sgd, {"lr": 0.01, "weight_decay": 0.1}),
    "sgd maximize": (SGD, expected_sgd, {"lr": 0.01, "maximize": True}),
    "sgd all": (
        SGD,
        expected_sgd,
        {"lr": halving, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.05, "maximize": True},
    ),
    "sgd nesterov decay": (
        SGD,
        expected_sgd,
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02, "maximize": True},
    ),
    "sgd schedules": (SGD, expected_sgd, {"lr": warming, "weight_decay": halving}),
    "adam": (Adam, expected_adam, {}),
    "adam betas": (Adam, expected_adam, {"lr": 0.01, "betas": (0.8, 0.95)}),
    "adam betas 0": (Adam, expected_adam, {"lr": 0.01, "betas": (0.0, 0.0)}),
    "adam eps": (Adam, expected_adam, {"lr": 0.01, "eps": 0.1}),
    "adam L2": (Adam, expected_adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adam maximize": (Adam, expected_adam, {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "adam schedule": (Adam, expected_adam, {"lr": warming}),
    "amsgrad": (Adam, expected_adam, {"lr": 0.01, "amsgrad": True}),
    "amsgrad L2": (Adam, expected_adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "adamw": (AdamW, expected_adamw, {}),
    "adamw decay": (AdamW, expected_adamw, {"lr": 0.01, "weight_decay": 0.3}),
    "adamw amsgrad": (AdamW, expected_adamw, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "adamw maximize": (AdamW, expected_adamw, {"lr": 0.01, "maximize": True}),
    "adamw schedules": (AdamW, expected_adamw, {"lr": halving, "weight_decay": warming}),
    "adamw all": (
        AdamW,
        expected_adamw,
        {"lr": halving, "betas": (0.7, 0.99), "eps": 1e-4, "weight_decay": 0.2, "maximize": True},
    ),
    "adagrad": (Adagrad, expected_adagrad, {}),
    "adagrad decay": (Adagrad, expected_adagrad, {"lr_decay": 0.01, "weight_decay": 0.1}),
    "adagrad all": (
        Adagrad,
        expected_adagrad,
        {
            "lr": halving,
            "lr_decay": 0.1,
            "initial_accumulator_value": 0.5,
            "eps": 1e-3,
            "weight_decay": 0.05,
            "maximize": True,
        },
    ),
    "rmsprop": (RMSprop, expected_rmsprop, {}),
    "rmsprop momentum": (RMSprop, expected_rmsprop, {"lr": 1e-3, "momentum": 0.9}),
    "rmsprop centered": (RMSprop, expected_rmsprop, {"lr": 1e-3, "centered": True, "alpha": 0.9}),
    "rmsprop all": (
        RMSprop,
        expected_rmsprop,
        {
            "lr": halving,
            "alpha": 0.95,
            "momentum": 0.5,
            "centered": True,
            "eps": 1e-3,
            "weight_decay": 0.1,
            "maximize": True,
        },
    ),
    "adadelta": (Adadelta, expected_adadelta, {}),
    "adadelta all": (
        Adadelta,
        expected_adadelta,
        {"lr": warming, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1, "maximize": True},
    ),
    "adamax": (Adamax, expected_adamax, {}),
    "adamax all": (
        Adamax,
        expected_adamax,
        {
            "lr": halving,
            "betas": (0.8, 0.9),
            "eps": 1e-2,
            "weight_decay": 0.1,
            "maximize": True,
        },
    ),
    "nadam": (NAdam, expected_nadam, {}),
    "nadam L2": (NAdam, expected_nadam, {"weight_decay": 0.1, "momentum_decay": 0.1}),
    "nadam all": (
        NAdam,
        expected_nadam,
        {
            "lr": warming,
            "betas": (0.95, 0.99),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
            "maximize": True,
        },
    ),
    "radam": (RAdam, expected_radam, {}),
    "radam L2": (RAdam, expected_radam, {"lr": 0.01, "weight_decay": 0.1}),
    "radam never rectified": (RAdam, expected_radam, {"betas": (0.9, 0.6)}),
    "radam all": (
        RAdam,
        expected_radam,
        {
            "lr": halving,
            "betas": (0.8, 0.99),
            "eps": 1e-3,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
            "maximize": True,
        },
    ),
    "rprop": (Rprop, expected_rprop, {}),
    "rprop all": (
        Rprop,
        expected_rprop,
        {"lr": 0.02, "etas": (0.25, 1.5), "step_sizes": (1e-3, 0.0625), "maximize": True},
    ),
    "asgd": (ASGD, expected_asgd, {}),
    "asgd all": (
        ASGD,
        expected_asgd,
        {
            "lr": 0.02,
            "lambd": 0.1,
            "alpha": 0.6,
            "t0": 50,
            "weight_decay": 0.05,
            "maximize": True,
        },
    ),
    "lion": (Lion, expected_lion, {}),
    "lion all": (
        Lion,
        expected_lion,
        {"lr": halving, "betas": (0.8, 0.9), "weight_decay": 0.3, "maximize": True},
    ),
    "lamb": (LAMB, expected_lamb, {}),
    "lamb no ratio": (LAMB, expected_lamb, {"adapt": 0.0}),
    "lamb all": (
        LAMB,
        expected_lamb,
        {
            "lr": halving,
            "betas": (0.8, 0.95),
            "eps": 1e-3,
            "weight_decay": warming,
            "maximize": True,
        },
    ),
    "adafactor": (Adafactor, expected_adafactor, {}),
    "adafactor all": (
        Adafactor,
        expected_adafactor,
        {
            "lr": halving,
            "beta2_decay": -0.5,
            "eps": (0.9, 5.0),
            "d": 1.25,
            "weight_decay": warming,
            "maximize": True,
        },
    ),
    "adafactor relative": (Adafactor, expected_adafactor, {"lr": 0.2, "weight_decay": 0.01}),
    "lars": (LARS, expected_lars, {}),
    "lars no ratio": (LARS, expected_lars, {"adapt": 0.0, "lr": 1e-3}),
    "lars all": (
        LARS,
        expected_lars,
        {
            "lr": halving,
            "momentum": 0.5,
            "weight_decay": warming,
            "trust_coefficient": 0.05,
            "maximize": True,
        },
    ),
    "adabelief": (AdaBelief, expected_adabelief, {}),
    "adabelief all": (
        AdaBelief,
        expected_adabelief,
        {
            "lr": halving,
            "betas": (0.8, 0.95),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "maximize": True,
        },
    ),
    "yogi": (Yogi, expected_yogi, {}),
    "yogi all": (
        Yogi,
        expected_yogi,
        {
            "lr": halving,
            "betas": (0.8, 0.95),
            "eps": 1e-2,
            "initial_accumulator_value": 0.5,
            "weight_decay": 0.1,
            "maximize": True,
        },
    ),
    "stable adamw": (StableAdamW, expected_stable_adamw, {}),
    "stable adamw all": (
        StableAdamW,
        expected_stable_adamw,
        {
            "lr": halving,
            "betas": (0.8, 0.95),
            "eps": 1e-4,
            "weight_decay": warming,
            "maximize": True,
        },
    ),
    "mars": (MARS, expected_mars, {}),
    "mars all": (
        MARS,
        expected_mars,
        {
            "lr": halving,
            "betas": (0.8, 0.95),
            "gamma": 0.1,
            "eps": 1e-4,
            "weight_decay": warming,
            "maximize": True,
        },
    ),
    "prodigy": (Prodigy, expected_prodigy, {"d0": 1e-3}),
    "prodigy all": (
        Prodigy,
        expected_prodigy,
        {
            "lr": 0.9,
            "betas": (0.8, 0.95),
            "beta3": 0.9,
            "eps": 1e-4,
            "weight_decay": warming,
            "d0": 1e-2,
            "d_coef": 2.0,
            "growth_rate": 1.02,
            "bias_correction": True,
            "safeguard_warmup": True,
            "maximize": True,
        },
    ),
    "dadapt adam": (DAdaptAdam, expected_dadapt_adam, {"d0": 1e-3}),
    "dadapt adam decay": (DAdaptAdam, expected_dadapt_adam, {"d0": 1e-2, "weight_decay": 0.1}),
    "dadapt adam all": (
        DAdaptAdam,
        expected_dadapt_adam,
        {
            "lr": halving,
            "betas": (0.8, 0.95),
            "eps": 1e-4,
            "weight_decay": warming,
            "decoupled_weight_decay": True,
            "d0": 1e-2,
            "growth_rate": 1.02,
            "bias_correction": True,
            "maximize": True,
        },
    ),
    "laprop": (LaProp, expected_laprop, {}),
    "laprop all": (
        LaProp,
        expected_laprop,
        {
            "lr": halving,
            "betas": (0.95, 0.8),
            "eps": 1e-4,
            "weight_decay": warming,
            "maximize": True,
        },
    ),
    "ademamix": (AdEMAMix, expected_ademamix, {}),
    "ademamix all": (
        AdEMAMix,
        expected_ademamix,
        {
            "lr": halving,
            "betas": (0.8, 0.95, 0.99),
            "alpha": 2.0,
            "t_alpha": 50,
            "t_beta3": 150,
            "eps": 1e-4,
            "weight_decay": warming,
            "maximize": True,
        },
    ),
    "adan": (Adan, expected_adan, {}),
    "adan all": (
        Adan,
        expected_adan,
        {
            "lr": halving,
            "betas": (0.9, 0.8, 0.95),
            "eps": 1e-4,
            "weight_decay": 0.2,
            "maximize": True,
        },
    ),
    "adopt": (ADOPT, expected_adopt, {}),
    "adopt L2": (ADOPT, expected_adopt, {"lr": 0.01, "weight_decay": 0.1}),
    "adopt all": (
        ADOPT,
        expected_adopt,
        {
            "lr": halving,
            "betas": (0.8, 0.99),
            "eps": 0.5,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
            "maximize": True,
        },
    ),
    "schedule-free sgd": (ScheduleFreeSGD, expected_schedule_free, {"lr": 0.01}),
    "schedule-free sgd all": (
        ScheduleFreeSGD,
        expected_schedule_free,
        {
            "lr": halving,
            "beta1": 0.5,
            "weight_decay": 0.1,
            "warmup_steps": 20,
            "r": 0.5,
            "weight_lr_power": 1.0,
            "maximize": True,
        },
    ),
    "schedule-free adamw": (ScheduleFreeAdamW, expected_schedule_free_adamw, {}),
    "schedule-free adamw all": (
        ScheduleFreeAdamW,
        expected_schedule_free_adamw,
        {
            "lr": warming,
            "betas": (0.7, 0.99),
            "eps": 1e-4,
            "weight_decay": 0.2,
            "warmup_steps": 20,
            "r": 1.0,
            "maximize": True,
        },
    ),
}


# Those with a number that is shared by all parameters.
JOINT: Final = (expected_prodigy, expected_dadapt_adam)


class Problem:
    """Parameters, and for each one gradients at every step, random but given."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: DType, backend: Backend) -> None:
        generator = np.random.default_rng(7)

        def draw(shape: tuple[int, ...]) -> Real:
            return np.asarray(generator.normal(size=shape), dtype)

        self.start = [
            3 * np.sign(a) + a for a in map(draw, shapes)
        ]  # far from 0: errors are relative
        self.gradients = [[draw(shape) for _ in range(STEPS)] for shape in shapes]
        self.parameters = [
            Parameter(a, name=f"p{i}", dtype=dtype, backend=backend)
            for i, a in enumerate(self.start)
        ]

    def run(self, optimizer: Optimizer[Any]) -> None:
        for t in range(STEPS):
            parts = [
                (p * tensor(g[t], dtype=p.dtype, backend=p.backend)).sum()
                for p, g in zip(self.parameters, self.gradients, strict=True)
            ]
            with sum(parts[1:], parts[0]).backward() as grads:
                optimizer.step(grads)

    def errors(self, expected: Expected, options: Sequence[dict[str, Any]]) -> list[float]:
        """The error of each parameter in the 2-norm, relative to the larger of start and end.

        Rounding errors are as large as the numbers were at the time, so a parameter that has come
        close to 0 keeps earlier, larger errors.
        """
        found = []
        rows = zip(self.parameters, self.start, self.gradients, options, strict=True)
        if expected in JOINT:
            rows = zip(*self._together(), options[:1], strict=True)
        for parameter, start, gradients, option in rows:
            wide = [g.astype(np.float64) for g in gradients]
            wanted = expected(start.astype(np.float64), wide, **option)
            error = np.linalg.norm(parameter.numpy().astype(np.float64) - wanted)
            found.append(float(error / max(np.linalg.norm(wanted), np.linalg.norm(start))))
        return found

    def _together(self) -> tuple[list[Any], list[Real], list[list[Real]]]:
        """All parameters, with their starts and gradients, as one vector."""

        def joined(parts: Sequence[Real]) -> Real:
            return np.concatenate([part.ravel() for part in parts])

        values = Parameter(joined([p.numpy() for p in self.parameters]), dtype=self.start[0].dtype)
        return (
            [values],
            [joined(self.start)],
            [list(map(joined, zip(*self.gradients, strict=True)))],
        )


def tolerance(dtype: DType, kind: type[Optimizer[Any]]) -> float:
    """What 200 steps may differ from float64.

    Some round to the same side at each step, all 200 times. AdamW and its kin, Adafactor, ASGD and,
    decoupled, NAdam and RAdam multiply their parameters by a number near 1 that float32 knows to
    3e-8 (PyTorch rounds there too, and test_optim_torch.py agrees to 1e-6); Lion adds the same
    small number again and again, up to 1.2e-7 of the parameter off. In Yogi rounding can turn a
    sign. Prodigy's estimate is a sum of differences p0 - p, which are far smaller than p is.
    """
    if dtype == float64:
        return 1e-10
    if kind in (Yogi, Prodigy):
        return 4e-6 if kind is Yogi else 4e-5
    decays = (AdamW, AdEMAMix, StableAdamW, ASGD, NAdam, RAdam, Lion, Adafactor)
    return 8e-6 if kind in decays else 2e-6


@pytest.mark.parametrize("name", list(CASES))
def test_widest_dtype(name: str, backend: Backend, widest: DType) -> None:
    kind, expected, options = CASES[name]
    problem = Problem(SHAPES, widest, backend)
    problem.run(kind(problem.parameters, **options))
    assert max(problem.errors(expected, [options] * len(SHAPES))) <= tolerance(widest, kind)


@pytest.mark.parametrize(
    "name",
    [
        "sgd all",
        "sgd nesterov decay",
        "amsgrad L2",
        "adamw all",
        "rprop all",
        "rmsprop all",
        "radam all",
        "adan all",
        "schedule-free adamw all",
    ],
)
def test_large_arenas(name: str, backend: Backend, widest: DType) -> None:
    kind, expected, options = CASES[name]
    problem = Problem(LARGE, widest, backend)
    problem.run(kind(problem.parameters, **options))
    assert max(problem.errors(expected, [options] * len(LARGE))) <= tolerance(widest, kind)


@pytest.mark.parametrize("name", list(CASES))
def test_float32(name: str, backend: Backend, record_deviation: Callable[..., None]) -> None:
    kind, expected, options = CASES[name]
    shapes = (*SHAPES, COMPILED) if backend.name == "numba" else SHAPES
    problem = Problem(shapes, float32, backend)
    problem.run(kind(problem.parameters, **options))
    deviation = max(problem.errors(expected, [options] * len(shapes)))
    record_deviation(kind, options, "float64", backend, deviation)
    assert deviation <= tolerance(float32, kind)


@pytest.mark.parametrize(
    ("kind", "expected", "own", "groups"),
    [
        (SGD, expected_sgd, {"momentum": 0.9}, [{"lr": 0.1}, {"weight_decay": 0.1}, {}]),
        (SGD, expected_sgd, {"lr": 0.01}, [{"lr": warming}, {"lr": halving}, {"lr": 0.0}]),
        (
            AdamW,
            expected_adamw,
            {"lr": 0.01},
            [{"weight_decay": 0.0}, {"betas": (0.5, 0.9)}, {"eps": 1e-3, "lr": halving}],
        ),
        (Adam, expected_adam, {"amsgrad": True}, [{"weight_decay": 0.1}, {"lr": 0.02}, {}]),
        (NAdam, expected_nadam, {}, [{"momentum_decay": 0.1}, {"betas": (0.5, 0.9)}, {}]),
        (
            Rprop,
            expected_rprop,
            {"lr": 0.02},
            [{"etas": (0.25, 1.5)}, {"step_sizes": (1e-3, 0.0625)}, {"lr": 0.125}],
        ),
        (Adan, expected_adan, {}, [{"betas": (0.9, 0.8, 0.7)}, {"weight_decay": 0.1}, {}]),
        (
            ScheduleFreeAdamW,
            expected_schedule_free_adamw,
            {"lr": 0.01},
            [{"lr": warming}, {"warmup_steps": 30}, {"betas": (0.5, 0.9), "r": 1.0}],
        ),
    ],
    ids=["sgd", "sgd lr", "adamw", "amsgrad", "nadam", "rprop", "adan", "schedule-free"],
)
def test_groups_have_their_own_hyperparameters(
    kind: Any, expected: Expected, own: Any, groups: Any, backend: Backend, widest: DType
) -> None:
    problem = Problem(SHAPES[:6], widest, backend)
    pairs = [problem.parameters[i : i + 2] for i in (0, 2, 4)]
    optimizer = kind(
        [ParameterGroup(pair, **hyper) for pair, hyper in zip(pairs, groups, strict=True)], **own
    )
    problem.run(optimizer)
    options = [{**own, **groups[i // 2]} for i in range(6)]
    assert max(problem.errors(expected, options)) <= tolerance(widest, kind)


def test_two_dtypes_in_one_group(backend: Backend, widest: DType) -> None:
    narrow = Problem([(3, 5)], float32, backend)
    wide = Problem([(7,), (2, 2)], widest, backend)
    both = [narrow.parameters[0], *wide.parameters]
    optimizer = Adam(both, 0.01)
    for t in range(STEPS):
        gradients = [g[t] for g in narrow.gradients + wide.gradients]
        parts = [
            (p * tensor(g, dtype=p.dtype, backend=backend)).sum()
            for p, g in zip(both, gradients, strict=True)
        ]
        optimizer.step((parts[0] + parts[1] + parts[2]).backward())
    assert narrow.errors(expected_adam, [{"lr": 0.01}])[0] <= 1e-6
    assert max(wide.errors(expected_adam, [{"lr": 0.01}] * 2)) <= tolerance(widest, Adam)


def test_hyperparameters_changed_between_steps(backend: Backend, widest: DType) -> None:
    problem = Problem(SHAPES, widest, backend)
    optimizer = SGD(problem.parameters, 0.01, momentum=0.9)
    for t in range(STEPS):
        if t == 100:
            optimizer.set(lr=0.1, weight_decay=0.2)
        parts = [
            (p * tensor(g[t], dtype=widest, backend=backend)).sum()
            for p, g in zip(problem.parameters, problem.gradients, strict=True)
        ]
        optimizer.step(sum(parts[1:], parts[0]).backward())
    options = {
        "lr": lambda t: 0.01 if t <= 100 else 0.1,
        "momentum": 0.9,
        "weight_decay": lambda t: 0.0 if t <= 100 else 0.2,
    }
    assert max(problem.errors(expected_sgd, [options] * len(SHAPES))) <= tolerance(widest, SGD)


AVERAGING: Final[dict[str, tuple[type[AveragingOptimizer[Any]], Expected, dict[str, Any]]]] = {
    "asgd": (ASGD, expected_asgd, {"t0": 1e6}),
    "asgd averages": (ASGD, expected_asgd, {"lr": 0.05, "t0": 20, "lambd": 0.01}),
    "schedule-free sgd": (ScheduleFreeSGD, expected_schedule_free, {"lr": 0.02}),
    "schedule-free sgd, y is z": (ScheduleFreeSGD, expected_schedule_free, {"beta1": 0.0}),
    "schedule-free adamw": (
        ScheduleFreeAdamW,
        expected_schedule_free_adamw,
        {"lr": warming, "weight_decay": 0.1, "r": 0.5},
    ),
}


@pytest.mark.parametrize("name", list(AVERAGING))
def test_averages(name: str, backend: Backend, widest: DType) -> None:
    """What `eval_params` shows, for two groups, one of which has its own options."""
    kind, expected, options = AVERAGING[name]
    problem = Problem(SHAPES[1:], widest, backend)
    own: dict[str, Any] = {"weight_decay": 0.05}
    if kind is not ASGD:
        own |= {"beta1": 0.5} if kind is ScheduleFreeSGD else {"betas": (0.5, 0.999)}
    groups = [
        ParameterGroup(problem.parameters[:3]),
        ParameterGroup(problem.parameters[3:], **own),
    ]
    optimizer = kind(groups, **options)
    problem.run(optimizer)
    with optimizer.eval_params():
        given = [{**options, "averaged": True}] * 3 + [{**options, **own, "averaged": True}] * 3
        assert max(problem.errors(expected, given)) <= tolerance(widest, kind)
    given = [options] * 3 + [{**options, **own}] * 3
    assert max(problem.errors(expected, given)) <= tolerance(widest, kind)


def test_there_is_every_optimizer() -> None:
    own = {Muon, SOAP}  # test_muon.py and test_soap.py test them
    assert {kind for kind, _, _ in CASES.values()} == set(KINDS) - own
