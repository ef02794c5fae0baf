"""Adafactor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import numpy as np

from rumus.optim import rules
from rumus.optim.footprint import Memory, used
from rumus.optim.fused import FusedOptimizer
from rumus.optim.group import Claimable, M_co, ParameterGroup, as_groups
from rumus.optim.hyperparameter import Hyper, check
from rumus.optim.rules.factored import averaged, outer, scaled
from rumus.optim.segments import Segment, lay_out
from rumus.optim.update_kernel import Signature, UpdateRule
from rumus.tensor import Backend, DType, Expr, Kernel, Parameter, ParamId
from rumus.tensor.backend import Array
from rumus.tensor.slot_table import ALIGNMENT, slot_size
from rumus.tensor.updater import Factors, NonFinite, Preparation

_GIVEN: Final = ("p_squares", "u_squares", "size")
_FACTORED: Final = ("r", "c", "mean", "p_squares", "u_squares")
_SQUARES: Final = {"p_squares": "p", "u_squares": "u"}
_OF_SEGMENT: Final = frozenset({"eps1", "rows", "columns"})


class Adafactor(FusedOptimizer[M_co]):
    """Adam's scaling from the means of rows and columns alone: state far smaller than parameters.

    r = r + w (mean of g^2 in each row - r);  c likewise in each column;  w = t^beta2_decay;
    v = r c / max(mean(r), eps1);  u = g / sqrt(max(v, eps1^2));
    p = p (1 - lr weight_decay) - max(eps2, rms(p)) min(lr, 1 / sqrt(t)) / max(1, rms(u) / d) u

    Rows and columns are the last two axes; what has fewer keeps v itself. rms is the root of the
    mean square over a tensor.

    lr >= 0: by how much of its own size a tensor moves, at most. beta2_decay: at most 0; the lower,
    the longer the average reaches. eps: eps1 > 0, a number, None for the smallest step from 1 in
    the parameter's dtype; and eps2 >= 0, the size that a tensor has at least. d > 0: how large u
    may be. weight_decay >= 0, decoupled. maximize, nonfinite: see `FusedOptimizer`. The defaults
    are PyTorch's. ValueError for a value out of range.

    `planned_memory` tells what is saved. Besides the state there is one array as large as the
    largest tensor, which all of them use in turn. A tensor of two axes or more has an arena of its
    own, and a step is 17 dispatches for each of them on a GPU; it reads nothing.

    `rumus.optim.rules.adafactor`. Shazeer, Stern: arXiv:1804.04235.

    >>> import numpy as np
    >>> from rumus.optim import AdamW
    >>> from rumus.tensor import Parameter
    >>> w = Parameter(np.ones((512, 256), np.float32), name="weight")
    >>> AdamW.planned_memory([w]).state // 1024, Adafactor.planned_memory([w]).state // 1024
    (1024, 535)
    >>> optimizer = Adafactor([w], 0.5)
    >>> optimizer.step((w * w).sum().backward())
    >>> round(w[0, 0].item(), 4), [part.shape for part in optimizer.state_of(w).values()]
    (0.5, [(512,), (256,)])
    """

    given_names: ClassVar[tuple[str, ...]] = _GIVEN

    def __init__(
        self,
        parameters: Claimable[M_co],
        lr: Hyper = 1e-2,
        *,
        beta2_decay: Hyper = -0.8,
        eps: tuple[float | None, Hyper] = (None, 1e-3),
        d: Hyper = 1.0,
        weight_decay: Hyper = 0.0,
        maximize: bool = False,
        nonfinite: NonFinite = "raise",
    ) -> None:
        eps1, eps2 = eps
        self._eps1 = None if eps1 is None else check("eps1", eps1)
        self._shared: dict[tuple[int, DType], Array] = {}
        super().__init__(
            parameters,
            rules.adafactor,
            lr,
            beta2_decay=beta2_decay,
            eps2=eps2,
            d=d,
            weight_decay=weight_decay,
            maximize=maximize,
            nonfinite=nonfinite,
        )
