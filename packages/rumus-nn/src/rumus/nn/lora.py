"""`lora`: fine-tunes a model with small matrices added to its frozen ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from rumus.nn import initialization
from rumus.nn.dropout import Dropout
from rumus.nn.frozen_linear import FrozenLinear, Storage
from rumus.nn.linear import Linear
from rumus.nn.module import Module, join
from rumus.nn.setting import Settings
from rumus.tensor import (
    Generator,
    OwnershipError,
    Parameter,
    Parameters,
    Tensor,
    float32,
    linear,
    next_generator,
    no_grad,
    zeros,
)
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.uninterrupted import Uninterrupted

_SHOWN: Final = 6  # names in a message


def _scale(layer: Module, name: str, value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"lora: the scale must be finite, not {value}")
    number: float = value
    return number


class LoraLinear(FrozenLinear):
    """y = x weight^T + bias + scale (x lora_A^T) lora_B^T; only lora_A and lora_B are trained.

    Hu et al.: arXiv:2106.09685, equation 3. lora_A: (rank, inputs), initialized as U(-b, b) with b
    = 1 / sqrt(inputs). lora_B: (outputs, rank), initialized with zeros, so that at first nothing
    changes. `lora` makes such layers.

    base: the layer, whose matrix and bias are frozen; see `FrozenLinear`.
    rank: the length of the axis between lora_A and lora_B.
    scale: multiplies their product.
    dropout: in [0, 1], of their input, in training.
    storage: of the frozen matrix, see `FrozenLinear`.
    generator: of lora_A and the dropout, by default a stream of the program's `seed`.
    """

    _settings: ClassVar[Settings] = {"scale": _scale}

    def __init__(
        self,
        base: Linear,
        rank: int,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        storage: Storage = "same",
        generator: Generator | None = None,
    ) -> None:
        if rank < 1:
            raise ValueError(f"lora: rank must be at least 1, not {rank}")
        _scale(self, "scale", scale)
        super().__init__(base, storage=storage)
        self.rank = rank
        self.scale = scale
        backend = base.weight.backend
        generator = next_generator() if generator is None else generator
        first = zeros((rank, base.inputs), dtype=float32, backend=backend)
        second = zeros((base.outputs, rank), dtype=float32, backend=backend)
        self.lora_A = Parameter(first, name="lora_A", role="weight")
        self.lora_B = Parameter(second, name="lora_B", role="weight")
        bound = 1 / math.sqrt(base.inputs)
        initialization.uniform(self.lora_A, generator=generator, low=-bound, high=bound)
        self.dropout = Dropout(dropout, generator=generator)

    def forward(
        self,
        x: Tensor,
        *,
        activation: Callable[[Tensor], Tensor] | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Map the last axis from `inputs` to `outputs`: activation(y) + residual, where given.

        x: (..., inputs).
        activation: a function of a tensor.
        residual: (..., outputs).
        """
        seen = self.dropout(x).astype(float32)
        low = linear(seen, self.lora_A) * self.scale
        y = linear(low, self.lora_B, residual=super().forward(x).astype(float32)).astype(x.dtype)
        y = y if activation is None else activation(y)
        return y if residual is None else y + residual

    def change(self) -> Tensor:
        """Return the change of the matrix: scale lora_B lora_A."""
        return self.lora_B @ self.lora_A * self.scale


class Lora:
    """The adapters that `lora` added to a model.

    model: that contains them.
    layers: each `LoraLinear` by the path of the layer that it replaces.
    """

    def __init__(self, model: Module, layers: Mapping[str, LoraLinear]) -> None:
        self.model = model
        self.layers = dict(layers)
        self._merged: list[tuple[FrozenLinear, Linear]] = []

    def __repr__(self) -> str:
        trained = sum(parameter.size for parameter in self.parameters())
        merged = ", merged" if self.is_merged else ""
        return f"Lora({len(self.layers)} layers, {trained} trained parameters{merged})"

    @property
    def is_merged(self) -> bool:
        """Whether the model currently uses merged matrices."""
        return bool(self._merged)

    def parameters(self) -> Parameters[Module]:
        """Return the trained parameters by name: `lora_A` and `lora_B` of each layer."""
        return Parameters(
            (join(path, name), parameter)
            for path, layer in self.layers.items()
            for name, parameter in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
        )

    def merge(self) -> None:
        """Add the adapters to the matrices: the model then has plain `Linear` layers in float32.

        It computes the same up to rounding, as fast as without adapters, and `save_file` writes it
        under its original names. The frozen matrices are kept for `unmerge`. ValueError if it is
        already merged.
        """
        if self.is_merged:
            raise ValueError("the adapters are already merged; call unmerge() first")
        merged: list[tuple[FrozenLinear, Linear]] = []
        with no_grad():
            for module in self.model.modules():
                if isinstance(module, FrozenLinear):
                    added = module.change() if isinstance(module, LoraLinear) else None
                    merged.append((module, module.thawed(added)))
        with Uninterrupted():
            replace_parts(self.model, merged)
            self._merged = merged

    def unmerge(self) -> None:
        """Restore the frozen matrices and the adapters, bit for bit.

        Changes to the merged matrices are lost. ValueError if nothing is merged.
        """
        if not self.is_merged:
            raise ValueError("the adapters are not merged")
        with Uninterrupted():
            replace_parts(self.model, [(after, before) for before, after in self._merged])
            self._merged = []


@checked_arguments
def lora(
    model: Module,
    rank: int,
    *,
    targets: str | Iterable[str] | None = None,
    alpha: float | None = None,
    dropout: float = 0.0,
    storage: Storage = "same",
    generator: Generator | None = None,
) -> Lora:
    """Freeze a model and add small trained matrices to its linear layers.

    An optimizer made from `model.parameters()` afterwards owns only these, since frozen parameters
    are not claimed.

    model: changed in place.
    rank: of the added matrices.
    targets: the `Linear` layers that get them, by path: one or several patterns such as
        `blocks.*.attention.*`, or ends of paths such as `query_key_value`. None: all.
    alpha: their product is scaled by alpha / rank; by default alpha is the rank.
    dropout: in [0, 1], see `LoraLinear`.
    storage: of all frozen matrices of linear layers, see `FrozenLinear`.
    generator: of the initial values and the dropout; by default one per layer.

    ValueError for a target that matches no linear layer, and for a model that already has adapters
    or is itself a `Linear`; OwnershipError if an optimizer owns any parameter. Nothing is changed
    then.

    >>> from rumus.nn import Linear, ReLU, Sequential, lora
    >>> model = Sequential(Linear(64, 64), ReLU(), Linear(64, 10))
    >>> adapters = lora(model, 4, targets="0", storage="8bit")
    >>> adapters.parameters().names
    ('0.lora_A', '0.lora_B')
    >>> adapters.merge()
    >>> model.parameters().names
    ('0.weight', '0.bias', '2.weight', '2.bias')
    """
    if not isinstance(model, Module):
        raise TypeError(f"lora: model must be a Module, not {model!r}")
    rank = whole_number("lora: rank", rank)
    linears = check_model(model)
    wanted = _targets(linears, targets)
    if alpha is not None and not 0 < real_number("lora: alpha", alpha) < math.inf:
        raise ValueError(f"lora: alpha must be positive, not {alpha}")
    scale = 1.0 if alpha is None else alpha / max(rank, 1)

    def adapted(layer: Linear) -> LoraLinear:
        return LoraLinear(
            layer, rank, scale=scale, dropout=dropout, storage=storage, generator=generator
        )

    return put_in(model, linears, dict.fromkeys(wanted, adapted), storage)


def check_model(model: Module) -> dict[str, Linear]:
    """Return the linear layers of a model that can get adapters; see `lora` for the errors."""
    if isinstance(model, Linear):
        raise ValueError("lora: the model is itself a Linear; put it into a Sequential")
    modules = dict(model.named_modules())
    if any(isinstance(module, FrozenLinear) for module in modules.values()):
        raise ValueError("lora: the model already has adapters or frozen layers")
    for name, parameter in model.named_parameters():
        if parameter.owner is not None:
            raise OwnershipError(
                f"lora: {name} is owned by {parameter.owner}, which would keep training it; make "
                "the optimizer afterwards"
            )
    return {path: module for path, module in modules.items() if isinstance(module, Linear)}


def put_in(
    model: Module,
    linears: Mapping[str, Linear],
    adapters: Mapping[str, Callable[[Linear], LoraLinear]],
    storage: Storage,
) -> Lora:
    """Freeze a model, and replace the layers found by `check_model` by adapted or frozen ones."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers: dict[str, LoraLinear] = {}
    swaps: list[tuple[Module, Module]] = []
    try:
        for path, layer in linears.items():
            if path in adapters:
                layers[path] = adapters[path](layer)
                swaps.append((layer, layers[path]))
            elif storage != "same":
                swaps.append((layer, FrozenLinear(layer, storage=storage)))
    except BaseException:
        for parameter in trained:
            parameter.requires_grad = True
        raise
    with Uninterrupted():
        model.freeze()
        replace_parts(model, swaps)
    return Lora(model, layers)


def _targets(linears: Mapping[str, Linear], targets: str | Iterable[str] | None) -> list[str]:
    """The matching paths. ValueError for a target that matches nothing."""
    patterns = ["*"] if targets is None else [targets] if isinstance(targets, str) else [*targets]
    found: dict[str, None] = {}
    for pattern in patterns:
        fitting = [
            path for path in linears if fnmatchcase(path, pattern) or path.endswith(f".{pattern}")
        ]
        if not fitting:
            near = get_close_matches(pattern, linears, _SHOWN, 0.3) or list(linears)[:_SHOWN]
            there = ", ".join(near) or "none at all"
            raise ValueError(
                f"lora: no linear layer matches the target {pattern!r}; there are {there}"
            )
        found.update(dict.fromkeys(fitting))
    if not found:
        raise ValueError("lora: targets is empty; None means all linear layers")
    return [path for path in linears if path in found]


def replace_parts(model: Module, swaps: Iterable[tuple[Module, Module]]) -> None:
    """Replace parts by other modules, wherever they are held."""
    new = {id(before): after for before, after in swaps}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if id(child) in new:
                module.replace_child(name, new[id(child)])
