"""Adapters in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.nn.fitting import Place, Rename, place_of
from rumus.nn.frozen_linear import Storage
from rumus.nn.linear import Linear
from rumus.nn.lora import Lora, LoraLinear, check_model, put_in
from rumus.nn.module import Module
from rumus.nn.names import Names, Row, cut
from rumus.nn.weights_file import WeightsFileError, read_weights, regular, write_weights
from rumus.tensor import StateMismatchError
from rumus.tensor.expression.arguments import checked_first
from rumus.tensor.memory.replaced_file import replaced
from rumus.tensor.memory.uninterrupted import Uninterrupted

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
_NAME: Final = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")
# Settings that would change the adapters; with these values they have no effect.
_PLAIN: Final[Mapping[str, Sequence[object]]] = {
    "bias": ("none",),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
}


@checked_first
def save_lora(
    adapters: Lora, folder: str | os.PathLike[str], *, rename: Names | None = None
) -> None:
    """Write adapters in PEFT's format, for `PeftModel.from_pretrained` or `load_lora`.

    A layer that corresponds to several in PEFT is written in parts, which share lora_A and compute
    the same.

    adapters: what `lora` or `load_lora` returned.
    folder: created if necessary.
    rename: a table from `nn.names`, to write the paths of that program.

    OSError if it cannot be written.
    """
    folder = Path(folder)
    arrays: dict[str, NDArray[Any]] = {}
    layers: dict[str, LoraLinear] = {}  # by foreign path
    is_turned = False
    for path, layer in adapters.layers.items():
        found = rename.layers(path) if rename is not None else []
        for foreign, row in found or [(path, Row(path, path))]:
            low, high = layer.lora_A.numpy(), cut(layer.lora_B.numpy(), layer.inputs, row.of)
            arrays[f"{_PREFIX}{foreign}.lora_A.weight"] = low
            arrays[f"{_PREFIX}{foreign}.lora_B.weight"] = high[row.part]
            layers[foreign] = layer
            is_turned = is_turned or row.is_transposed
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_configuration(layers, is_turned), indent=2)
    # Both or neither: other weights would fit the old settings, with another scale.
    with Uninterrupted(), replaced(folder / _CONFIG) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
        write_weights(folder / _WEIGHTS, arrays)


def _configuration(layers: Mapping[str, LoraLinear], is_turned: bool) -> dict[str, Any]:
    first = next(iter(layers.values()))
    alpha = {path: layer.scale * layer.rank for path, layer in layers.items()}
    default = first.scale * first.rank
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": first.rank,
        "lora_alpha": default,
        "rank_pattern": {p: layer.rank for p, layer in layers.items() if layer.rank != first.rank},
        "alpha_pattern": {path: value for path, value in alpha.items() if value != default},
        "target_modules": sorted(layers),
        "lora_dropout": first.dropout.p,
        "fan_in_fan_out": is_turned,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }


@checked_first
def load_lora(
    model: Module,
    folder: str | os.PathLike[str],
    *,
    rename: Rename | None = None,
    storage: Storage = "same",
) -> Lora:
    """Freeze a model and add adapters written by PEFT or `save_lora`.

    Several layers in the file that are one here become one adapter, whose rank is the sum of theirs
    unless they share lora_A.

    model: changed in place, as by `lora`.
    folder: with `adapter_config.json` and `adapter_model.safetensors`.
    rename: from names of weights in the file to those here, such as a table from `nn.names`.
    storage: of the frozen matrices, see `lora`.

    WeightsFileError for files that are damaged, incomplete, or of another kind of adapter;
    StateMismatchError for layers that the model lacks, and for other shapes; and the errors of
    `lora`. Nothing is changed then. OSError if a file cannot be read.
    """
    folder = Path(folder)
    settings = _Settings.read(folder / _CONFIG)
    linears = check_model(model)
    found = _by_layer(folder / _WEIGHTS, rename)
    if missing := [path for path in found if path not in linears]:
        raise StateMismatchError(
            f"{folder}: the model has no linear layer {missing[0]!r}; it has "
            f"{', '.join([*linears][:6]) or 'none'}"
        )
    joined = {
        path: _joined(path, linears[path], pieces, settings) for path, pieces in found.items()
    }
    makers = {path: partial(_made, values=each, settings=settings, storage=storage)
              for path, each in joined.items()}  # fmt: skip
    return put_in(model, linears, makers, storage)


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings in the configuration."""

    alpha: float
    dropout: float
    is_by_root: bool  # alpha / sqrt(rank): arXiv:2312.03732
    alphas: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Settings:
        """Read a configuration. WeightsFileError if it is not plain LoRA."""
        try:
            given = json.loads(regular(path).read_bytes())
            if given["peft_type"] != "LORA":
                raise ValueError(f"its peft_type is {given['peft_type']!r}, not 'LORA'")
            for name, plain in _PLAIN.items():
                if given.get(name, plain[0]) not in plain:
                    raise ValueError(f"{name}={given[name]!r} is not supported")
            alphas = {p: float(a) for p, a in dict(given.get("alpha_pattern") or {}).items()}
            if odd := [p for p in alphas if not re.fullmatch(r"[\w.]+", p)]:
                raise ValueError(f"alpha_pattern {odd[0]!r} is not a plain layer name")
            alpha = float(given["lora_alpha"])
            if not all(math.isfinite(a) and a > 0 for a in (alpha, *alphas.values())):
                raise ValueError("alpha must be positive")
            dropout = float(given.get("lora_dropout") or 0)
            return cls(alpha, dropout, bool(given.get("use_rslora")), alphas)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise WeightsFileError(f"{path} is not a LoRA configuration: {error}") from error

    def scale(self, foreign: str, rank: int) -> float:
        """The factor of the product of a layer's matrices."""
        fitting = [a for p, a in self.alphas.items() if f".{foreign}".endswith(f".{p}")]
        alpha = fitting[0] if fitting else self.alpha
        return alpha / (math.sqrt(rank) if self.is_by_root else rank)


@dataclass(slots=True)
class _Piece:
    """The matrices of one layer in the file."""

    foreign: str
    place: Place
    matrices: dict[str, NDArray[Any]] = field(default_factory=dict)


def _by_layer(path: Path, rename: Rename | None) -> dict[str, list[_Piece]]:
    """The layers of a file, by the path of the layer here that they are, or are part of."""
    pieces: dict[str, _Piece] = {}
    weights = read_weights(path)
    for name in weights:
        match = _NAME.fullmatch(name)
        if match is None:
            raise WeightsFileError(f"{path}: {name!r} is neither lora_A.weight nor lora_B.weight")
        foreign, letter = match[1], match[2]
        place = place_of(f"{foreign}.weight", rename)
        if place is None:
            continue
        piece = pieces.setdefault(foreign, _Piece(foreign, place))
        piece.matrices[letter] = weights[name]
    found: dict[str, list[_Piece]] = {}
    for piece in pieces.values():
        if len(piece.matrices) < 2:
            raise WeightsFileError(f"{path}: {piece.foreign} has one of lora_A and lora_B only")
        found.setdefault(piece.place.name.removesuffix(".weight"), []).append(piece)
    for own, parts in found.items():
        if len({piece.place.part for piece in parts}) < len(parts):
            names = ", ".join(piece.foreign for piece in parts)
            raise StateMismatchError(f"{path} has two adapters for {own}: {names}")
    if not found:
        raise WeightsFileError(f"{path} has no adapters")
    return found


@dataclass(frozen=True, slots=True)
class _Matrices:
    """The matrices of one adapter here."""

    low: NDArray[Any]
    high: NDArray[Any]
    scale: float


def _joined(path: str, layer: Linear, pieces: Sequence[_Piece], settings: _Settings) -> _Matrices:
    """Combine the matrices of a layer, or of its parts, into those of one adapter."""
    rows = [
        len(part) for part in cut(np.empty((layer.outputs, 0)), layer.inputs, pieces[0].place.of)
    ]
    starts = np.cumsum([0, *rows])
    shares = []
    for piece in pieces:
        low, high, part = piece.matrices["A"], piece.matrices["B"], piece.place.part
        if low.ndim != 2 or low.shape[1] != layer.inputs or high.shape != (rows[part], len(low)):
            raise StateMismatchError(
                f"{path}: lora_A {low.shape} and lora_B {high.shape} of {piece.foreign} do not fit "
                f"a matrix of shape {(rows[part], layer.inputs)}"
            )
        wide = np.zeros((layer.outputs, len(low)), np.float32)
        wide[starts[part] : starts[part] + rows[part]] = high
        shares.append((low.astype(np.float32), wide, settings.scale(piece.foreign, len(low))))
    scale = shares[0][2]
    if all(np.array_equal(low, shares[0][0]) and s == scale for low, _, s in shares):
        return _Matrices(
            shares[0][0], sum((high for _, high, _ in shares[1:]), shares[0][1]), scale
        )
    high = np.concatenate([high * np.float32(s / scale) for _, high, s in shares], axis=1)
    return _Matrices(np.concatenate([low for low, _, _ in shares]), high, scale)


def _made(base: Linear, *, values: _Matrices, settings: _Settings, storage: Storage) -> LoraLinear:
    layer = LoraLinear(
        base, len(values.low), scale=values.scale, dropout=settings.dropout, storage=storage
    )
    layer.lora_A.assign(values.low)
    layer.lora_B.assign(values.high)
    return layer
