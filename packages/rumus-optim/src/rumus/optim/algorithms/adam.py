"""Adam and AdamW."""

from __future__ import annotations

from typing import Literal, Unpack

from rumus.optim import rules
from rumus.optim.fused.fused import FusedOptimizer
from rumus.optim.options.group import Claimable, M_co, decaying_matrices
from rumus.optim.options.hyperparameter import Hyper
from rumus.optim.options.options import Options
from rumus.tensor.expression.choice import check_choice


class Adam(FusedOptimizer[M_co]):
    """Adam: scales each element's step by the mean and the size of its gradients.

    parameters: to own; see `Optimizer`.
    lr: at least 0.
    betas: the decay rates of the averages of g and g^2, each in [0, 1).
    eps: at least 0, outside the root.
    weight_decay: at least 0, weight_decay p is added to the gradient.
    amsgrad: divide by the largest average of g^2 so far.
    options: see `FusedOptimizer`.

    The defaults are those of the paper. ValueError for a value out of range.

    The formula is in `rumus.optim.rules.adam`. Kingma, Ba: arXiv:1412.6980.
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Hyper = 0.0,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            parameters,
            rules.amsgrad if amsgrad else rules.adam,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )


class AdamW(FusedOptimizer[M_co]):
    """Adam with decoupled weight decay: the decay does not pass through the averages.

    parameters: to own; see `Optimizer`.
    lr: as in `Adam`.
    betas: as in `Adam`.
    eps: as in `Adam`.
    weight_decay: at least 0; each step first multiplies p by 1 - lr weight_decay.
    decay: "all", as in PyTorch, or "matrices": only parameters with 2 or more axes decay, in
        separate groups; a group with its own weight_decay keeps it.
    amsgrad: as in `Adam`.
    options: see `FusedOptimizer`.

    The formula is in `rumus.optim.rules.adamw`. Loshchilov, Hutter: arXiv:1711.05101; the default
    decay is PyTorch's.

    >>> from rumus.optim import AdamW
    >>> from rumus.tensor import Parameter
    >>> w = Parameter([1.0])
    >>> optimizer = AdamW([w], 0.5, weight_decay=0.5)
    >>> optimizer.step((w * w).sum().backward())
    >>> round(w.item(), 6)
    0.25
    """

    packs_state = True

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Hyper = 1e-2,
        decay: Literal["all", "matrices"] = "all",
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_choice("decay", decay, ("all", "matrices"))
        super().__init__(
            parameters if decay == "all" else decaying_matrices(parameters),
            rules.adamw_amsgrad if amsgrad else rules.adamw,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            **options,
        )
