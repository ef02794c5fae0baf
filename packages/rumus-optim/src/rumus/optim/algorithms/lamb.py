"""LAMB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rumus.optim import rules
from rumus.optim.algorithms.trust_ratio import TrustRatioOptimizer
from rumus.optim.options.group import Claimable, M_co
from rumus.optim.options.hyperparameter import Hyper
from rumus.tensor import Expr, Kernel
from rumus.tensor.memory.updater import NonFinite


class LAMB(TrustRatioOptimizer[M_co]):
    """AdamW's direction, in a step for each tensor that is as long as the tensor: large batches.

    u = m_hat / (sqrt(v_hat) + eps) + weight_decay p;
    p = p - lr r u,  r = norm(p) / norm(u), or 1 if one of them is 0

    lr >= 0: by how much of its norm a tensor moves. betas: each in [0, 1). eps >= 0.
    weight_decay >= 0. adapt: 0 sets r = 1, as is usual for biases and norms:

        [ParameterGroup(matrices), ParameterGroup(others, adapt=0, weight_decay=0)]

    maximize, nonfinite: see `FusedOptimizer`. The defaults are the paper's. Gradients are not
    clipped; `clip_grad_norm` does that. ValueError for a value out of range. A step is the same few
    kernels for any number of tensors. It keeps one array besides the state, to be measured.

    `rumus.optim.rules.lamb`. You et al.: arXiv:1904.00962.

    >>> from rumus.tensor import Parameter
    >>> w = Parameter([3.0, -4.0])
    >>> optimizer = LAMB([w], 0.1, eps=0.0, weight_decay=0.0)
    >>> optimizer.step((w * w).sum().backward())  # u = (1, -1), r = 5 / sqrt(2)
    >>> [round(x, 4) for x in w.tolist()]
    [2.6464, -3.6464]
    """

    given_names: ClassVar[tuple[str, ...]] = ("p_squares", "u_squares")
    measured: ClassVar[Mapping[str, str]] = {"p_squares": "p", "u_squares": "u"}

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: Hyper = 0.01,
        adapt: float = 1.0,
        maximize: bool = False,
        nonfinite: NonFinite = "raise",
    ) -> None:
        super().__init__(
            parameters,
            rules.lamb,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            adapt=adapt,
            maximize=maximize,
            nonfinite=nonfinite,
        )

    def _direction(self) -> Kernel:
        p, g, m, v = map(Expr.array, "pgmv")
        names = ("t", "beta1", "beta2", "eps", "weight_decay")
        scalars = {name: Expr.scalar(name) for name in names}
        u = rules.lamb_direction(p, -g if self.maximize else g, m, v, **scalars)
        return Kernel("lamb_direction", {"u": u}, ("p", "g", "m", "v", "u"))
