"""The stages that implement an optimizer's options, in the order in which they act."""

from __future__ import annotations

from rumus.optim.engine.stage import Stage
from rumus.optim.fused.ascent import Ascent
from rumus.optim.fused.cautious_decay import CautiousDecay
from rumus.optim.fused.cautious_update import CautiousUpdate
from rumus.optim.fused.compensation import Compensation
from rumus.optim.fused.host_state import HostState
from rumus.optim.fused.kept_average import KeptAverage
from rumus.optim.fused.master_weights import MasterWeights
from rumus.optim.fused.stored_state import StoredState
from rumus.optim.options.average import Average
from rumus.optim.options.clip import AGC, AdaGC, Clip, ClipNorm, ClipValue, ZClip
from rumus.optim.options.options import StateDevice, StateDType
from rumus.tensor.memory.updater import NonFinite


def staged(
    *,
    master_weights: bool,
    state_dtype: StateDType | None,
    state_device: StateDevice | None,
    clip: Clip | None,
    nonfinite: NonFinite,
    maximize: bool,
    cautious: bool,
    cautious_weight_decay: bool,
    compensated: bool,
    average: Average | None,
) -> list[Stage]:
    """Return the stages for options of `FusedOptimizer`; raises the same ValueErrors."""
    found = (
        MasterWeights() if master_weights else None,
        None if state_dtype is None else StoredState(state_dtype),
        None if state_device is None else HostState(state_device),
        None if clip is None else _clipping(clip, nonfinite),
        Ascent() if maximize else None,
        CautiousUpdate(decays=not cautious_weight_decay) if cautious else None,
        CautiousDecay() if cautious_weight_decay else None,
        Compensation() if compensated else None,
        None if average is None else KeptAverage(average),
    )
    return [stage for stage in found if stage is not None]


def _clipping(clip: Clip, nonfinite: NonFinite) -> Stage:
    # Imported late: most optimizers do not clip, and these modules define a dozen kernels.
    from rumus.optim.fused.clip_elements import ClipElements
    from rumus.optim.fused.clip_factors import ClipFactors
    from rumus.optim.fused.clip_running import AdaGCFactors, ZClipFactors

    match clip:
        case ClipValue():
            return ClipElements(clip)
        case ZClip():
            return ZClipFactors(clip, nonfinite)
        case AdaGC():
            return AdaGCFactors(clip, nonfinite)
        case ClipNorm() | AGC():
            return ClipFactors(clip, nonfinite)
    raise TypeError(
        f"clip must be ClipNorm(...), ClipValue(...), AGC(...), ZClip(...), AdaGC(...) or None, "
        f"not {clip!r}"
    )
