"""Rules of other libraries, where the same name means different mathematics.

They differ in the place of eps, in the bias correction of averages, and in whether the learning
rate and the weight decay are inside the momentum.
"""

from __future__ import annotations

import inspect

from rumus.optim.rules.denominator import denominator
from rumus.optim.rules.rule import Rule, Update
from rumus.tensor import Expr, maximum, sqrt, where


def decoupled(rule: Rule) -> Rule:
    """Return a rule with a scalar weight_decay: p = p (1 - lr weight_decay), then `rule`.

    That is how Keras decays the weights of every optimizer.
    """

    def decayed(p: Expr, g: Expr, *state: Expr, weight_decay: Expr, **scalars: Expr) -> Update:
        return rule(p * (1 - scalars["lr"] * weight_decay), g, *state, **scalars)

    signature = inspect.signature(rule)
    extra = inspect.Parameter("weight_decay", inspect.Parameter.KEYWORD_ONLY)
    parameters = [*signature.parameters.values(), extra]
    decayed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    decayed.__name__ = f"{rule.__name__}_decoupled"
    return decayed


def adam_outer_eps(
    p: Expr, g: Expr, m: Expr, v: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;

    p = p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps).

    Keras: the second form of Kingma, Ba: arXiv:1412.6980, section 2, with "epsilon hat". It equals
    `adam` with eps / sqrt(1 - beta2^t), thirty times as large at the first step.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return {"p": p - _alpha(t, lr, beta1, beta2) * (m / denominator(v, eps)), "m": m, "v": v}


def amsgrad_outer_eps(
    p: Expr,
    g: Expr,
    m: Expr,
    v: Expr,
    v_max: Expr,
    *,
    t: Expr,
    lr: Expr,
    beta1: Expr,
    beta2: Expr,
    eps: Expr,
) -> Update:
    """`adam_outer_eps` with v_max = max(v_max, v) in place of v. Keras."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    v_max = maximum(v_max, v)
    p = p - _alpha(t, lr, beta1, beta2) * (m / denominator(v_max, eps))
    return {"p": p, "m": m, "v": v, "v_max": v_max}


def _alpha(t: Expr, lr: Expr, beta1: Expr, beta2: Expr) -> Expr:
    return lr * sqrt(1 - beta2**t) / (1 - beta1**t)


def adam_uncorrected(
    p: Expr, g: Expr, m: Expr, v: Expr, *, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p = p - lr m / (sqrt(v) + eps).

    MLX, unless bias_correction=True: the first step is 3.16 times that of `adam`.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return {"p": p - lr * (m / denominator(v, eps)), "m": m, "v": v}


def adamax_outer_eps(
    p: Expr, g: Expr, m: Expr, u: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g|);

    p = p - lr / (1 - beta1^t) m / (u + eps). Keras.
    """
    return adamax_uncorrected(p, g, m, u, lr=lr / (1 - beta1**t), beta1=beta1, beta2=beta2, eps=eps)


def adamax_uncorrected(
    p: Expr, g: Expr, m: Expr, u: Expr, *, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m = beta1 m + (1 - beta1) g;  u = max(beta2 u, |g|);  p = p - lr m / (u + eps).

    MLX: the first step is a tenth of that of `adamax`.
    """
    m = beta1 * m + (1 - beta1) * g
    u = maximum(beta2 * u, abs(g))
    return {"p": p - lr * (m / (u + eps)), "m": m, "u": u}


def rmsprop_inner_eps(p: Expr, g: Expr, v: Expr, *, lr: Expr, alpha: Expr, eps: Expr) -> Update:
    """v = alpha v + (1 - alpha) g^2;  p = p - lr g / sqrt(v + eps). Keras, optax."""
    v = alpha * v + (1 - alpha) * g * g
    return {"p": p - lr * (g / sqrt(v + eps)), "v": v}


def rmsprop_inner_eps_momentum(
    p: Expr, g: Expr, v: Expr, b: Expr, *, lr: Expr, alpha: Expr, eps: Expr, momentum: Expr
) -> Update:
    """v as in `rmsprop_inner_eps`;  b = momentum b + lr g / sqrt(v + eps);  p = p - b.

    Keras, optax: unlike in `rmsprop_momentum`, a new lr does not rescale earlier steps.
    """
    v = alpha * v + (1 - alpha) * g * g
    b = momentum * b + lr * (g / sqrt(v + eps))
    return {"p": p - b, "v": v, "b": b}


def rmsprop_inner_eps_centered(
    p: Expr, g: Expr, v: Expr, m: Expr, *, lr: Expr, alpha: Expr, eps: Expr
) -> Update:
    """v = alpha v + (1 - alpha) g^2;  m = alpha m + (1 - alpha) g;

    p = p - lr g / sqrt(v - m^2 + eps). Keras, optax.
    """
    v = alpha * v + (1 - alpha) * g * g
    m = alpha * m + (1 - alpha) * g
    return {"p": p - lr * (g / _deviation(v, m, eps)), "v": v, "m": m}


def rmsprop_inner_eps_centered_momentum(
    p: Expr,
    g: Expr,
    v: Expr,
    m: Expr,
    b: Expr,
    *,
    lr: Expr,
    alpha: Expr,
    eps: Expr,
    momentum: Expr,
) -> Update:
    """v, m as in `rmsprop_inner_eps_centered`;  b = momentum b + lr g / sqrt(v - m^2 + eps);

    p = p - b. Keras, optax.
    """
    v = alpha * v + (1 - alpha) * g * g
    m = alpha * m + (1 - alpha) * g
    b = momentum * b + lr * (g / _deviation(v, m, eps))
    return {"p": p - b, "v": v, "m": m, "b": b}


def _deviation(v: Expr, m: Expr, eps: Expr) -> Expr:
    """sqrt(v - m^2 + eps): a variance, which rounding may push below 0."""
    return sqrt(maximum(v - m * m, 0.0) + eps)


def adagrad_inner_eps(
    p: Expr, g: Expr, s: Expr, *, t: Expr, lr: Expr, initial_accumulator_value: Expr, eps: Expr
) -> Update:
    """s = s + g^2, from initial_accumulator_value on;  p = p - lr g / sqrt(s + eps).

    Keras, optax.
    """
    s = s + where(t <= 1, initial_accumulator_value, 0.0) + g * g
    return {"p": p - lr * (g / sqrt(s + eps)), "s": s}


def nadam_constant(
    p: Expr, g: Expr, m: Expr, v: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m, v as in `adam`;  d = sqrt(v / (1 - beta2^t)) + eps;

    p = p - lr (beta1 m / (1 - beta1^(t + 1)) + (1 - beta1) g / (1 - beta1^t)) / d.

    optax: Dozat's mu_t is beta1 at every step.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = sqrt(1 - beta2**t)
    ahead = lr * root * beta1 / (1 - beta1 ** (t + 1)) * m
    ahead = ahead + lr * root * (1 - beta1) / (1 - beta1**t) * g
    return {"p": p - ahead / denominator(v, eps * root), "m": m, "v": v}


def radam_corrected_eps(
    p: Expr, g: Expr, m: Expr, v: Expr, *, t: Expr, lr: Expr, beta1: Expr, beta2: Expr, eps: Expr
) -> Update:
    """m, v, m_hat, rho, r as in `radam`;  v_hat = v / (1 - beta2^t);

    rho >= 5: p = p - lr r m_hat / (sqrt(v_hat) + eps);  before: p = p - lr m_hat.

    optax: eps is added after the bias correction, and rho = 5 is enough.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    root = sqrt(1 - beta2**t)
    adaptive = where(rho >= 5, r * root, 0.0)
    plain = where(rho >= 5, 0.0, 1.0)
    share = adaptive / denominator(v, eps * root + plain) + plain
    return {"p": p - lr / (1 - beta1**t) * m * share, "m": m, "v": v}


def sgd_velocity(p: Expr, g: Expr, b: Expr, *, lr: Expr, momentum: Expr) -> Update:
    """b = momentum b - lr g;  p = p + b.

    Keras: unlike in `sgd_momentum`, a new lr does not rescale the velocity.
    """
    b = momentum * b - lr * g
    return {"p": p + b, "b": b}


def sgd_velocity_nesterov(p: Expr, g: Expr, b: Expr, *, lr: Expr, momentum: Expr) -> Update:
    """b = momentum b - lr g;  p = p + momentum b - lr g. Keras."""
    b = momentum * b - lr * g
    return {"p": p + momentum * b - lr * g, "b": b}


def sgd_nesterov_dampened(
    p: Expr, g: Expr, b: Expr, *, t: Expr, lr: Expr, momentum: Expr, dampening: Expr
) -> Update:
    """b = momentum b + (1 - dampening) g, at the first step b = g;  p = p - lr (g + momentum b).

    burn, which allows both together.
    """
    b = momentum * b + where(t <= 1, 1.0, 1 - dampening) * g
    return {"p": p - lr * (g + momentum * b), "b": b}


def muon_corrected(
    p: Expr,
    g: Expr,
    b: Expr,
    o: Expr,
    *,
    t: Expr,
    lr: Expr,
    weight_decay: Expr,
    momentum: Expr,
) -> Update:
    """a = momentum a + (1 - momentum) g;  p = p (1 - lr weight_decay) - lr o.

    o: of momentum a / (1 - momentum^(t + 1)) + (1 - momentum) g / (1 - momentum^t).

    optax, with Nesterov's momentum: a and g have different bias corrections, so the direction
    differs in the first steps. The state is b = w a, with

    w(t) = (1 + momentum) / (momentum + (1 - momentum^(t + 1)) / (1 - momentum^t)) of the next step,

    for which Nesterov's momentum of b without correction has the corrected direction, so that the
    computation before a step need not know the step number.
    """
    a = momentum * (1 / _share(t, momentum)) * b + (1 - momentum) * g
    return {"p": p * (1 - lr * weight_decay) - lr * o, "b": _share(t + 1, momentum) * a}


def _share(t: Expr, momentum: Expr) -> Expr:
    ratio = (1 - momentum ** (t + 1)) / (1 - momentum**t)
    return (1 + momentum) / (momentum + ratio)


def muon_coupled(
    p: Expr, g: Expr, b: Expr, o: Expr, *, lr: Expr, weight_decay: Expr, momentum: Expr
) -> Update:
    """b = momentum b + (1 - momentum) (g + weight_decay p);  p = p - lr o. MLX."""
    b = momentum * b + (1 - momentum) * (g + weight_decay * p)
    return {"p": p - lr * o, "b": b}
