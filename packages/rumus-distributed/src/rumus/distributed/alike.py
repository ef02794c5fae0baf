"""What must agree on all ranks before training starts, and what is made to agree."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rumus.distributed.buffer_means import buffers_of
from rumus.distributed.errors import RankError
from rumus.distributed.link import Link
from rumus.tensor import Generator, tensor
from rumus.train.base.scaling import scaling_of
from rumus.train.checkpoints.snapshot import generators_of

if TYPE_CHECKING:
    from rumus.train import Run, Trainer


def check_alike(link: Link, run: Run) -> None:
    """Raise RankError, listing every difference, on all ranks if the run of one differs."""
    if link.size == 1:
        return
    found = link.gather(described(run))
    wrong = [
        line for rank, other in enumerate(found) for line in _differences(rank, found[0], other)
    ]
    wrong += _shared_gpus(link.gather(_gpu(run.trainer)))
    if wrong:
        raise RankError("the ranks do not train the same way:\n  " + "\n  ".join(wrong))


def described(run: Run) -> dict[str, object]:
    """Return the settings of a run, by names for messages."""
    trainer, loader, limits = run.trainer, run.batches.loader, run.limits
    position = {"epoch", "batch"}
    state = loader.state_dict() if hasattr(loader, "state_dict") else {}
    return {
        **{f"rumus-{name}": _version(name) for name in ("tensor", "optim", "train", "distributed")},
        **{f"the loader's {n}": value for n, value in state.items() if n not in position},
        **{f"the limit of {n}": getattr(limits, n) for n in ("epochs", "steps", "seconds")},
        "the optimizer": getattr(trainer.optimizer, "kind", type(trainer.optimizer).__name__),
        **{
            f"the optimizer's {name}": _text(getattr(trainer.optimizer, name, None))
            for name in ("hyper", "clip", "average", "nonfinite", "maximize")
        },
        **{
            f"group {number}": _text((group.hyper, group.lr_scale, group.optional))
            for number, group in enumerate(trainer.optimizer.groups)
        },
        "the loss scale": repr(getattr(scaling_of(trainer.optimizer), "policy", None)),
        "zero": getattr(trainer.team, "is_zero", False),
        "accumulate": run.accumulate,
        "weight_of": run.batches.weight_of is not None,
        "validate": run.validate_fn is not None,
        "validate_every": run.validate_every,
        "save_every": run.checkpoints.every,
        "checkpoints": run.checkpoints.store is not None,
        **{
            f"the parameter {name}": f"{parameter.shape} {parameter.dtype}"
            for name, parameter in trainer.optimizer.named_parameters()
        },
        **{
            f"the generator {name}": repr(random)
            for name, random in generators_of(trainer.state).items()
            if isinstance(random, Generator)
        },
    }


def _differences(rank: int, first: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    names = dict.fromkeys((*first, *other))
    return [
        f"{name} is {other.get(name, 'missing')} on rank {rank}, {first.get(name, 'missing')} on "
        "rank 0"
        for name in names
        if first.get(name, "missing") != other.get(name, "missing")
    ]


def _text(value: object) -> str:
    """Its text for comparison: functions have other addresses on each rank."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _version(name: str) -> str:
    try:
        return version(f"rumus-{name}")
    except PackageNotFoundError:  # a checkout on the path
        return "not installed"


def _gpu(trainer: Trainer[Any]) -> tuple[str, str] | None:
    """The machine and the card of a rank; None on the CPU and for a software driver."""
    adapter = getattr(getattr(trainer.backend, "gpu", None), "adapter", None)
    if adapter is None or adapter.kind == "CPU" or not adapter.uuid:
        return None
    return socket.gethostname(), f"{adapter.name} {adapter.uuid}"


def _shared_gpus(cards: list[tuple[str, str] | None]) -> list[str]:
    """Devices that two ranks share."""
    first: dict[tuple[str, str], int] = {}
    wrong = []
    for rank, card in enumerate(cards):
        if card is not None and first.setdefault(card, rank) != rank:
            wrong.append(
                f"ranks {first[card]} and {rank} both use the GPU {card[1]} of {card[0]}: give "
                "each its own with model.to(ranks.gpu())"
            )
    return wrong


def give_parameters(link: Link, trainer: Trainer[Any]) -> None:
    """Copy parameters and buffers from rank 0 where they differ."""
    if link.size == 1:
        return
    parameters = [parameter for _, parameter in trainer.optimizer.named_parameters()]
    tensors = [*parameters, *buffers_of(trainer.state).values()]
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).digest()
    if len(set(link.gather(digest))) == 1:
        return
    for each in tensors:
        values = link.first(each.numpy())
        if link.rank:
            each.assign(tensor(values, dtype=each.dtype, backend=each.backend))
