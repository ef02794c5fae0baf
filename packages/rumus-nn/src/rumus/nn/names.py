"""The names that well-known models give their tensors in files, for `load_file`.

Each table is for a model that names its parts as follows:

- `GPT2`: `tokens`, `positions`, `blocks` of `TransformerBlock`, `norm`; the output shares `tokens`.
- `LLAMA`: `tokens`, `blocks` of `TransformerBlock` (rms, swiglu, rotary), `norm`, `output`.
- `RESNET`: torchvision's names, `conv1`, `bn1`, `layer1` to `layer4`, `fc`.

They read files that transformers writes, and `save_file(path, rename=GPT2)` writes files that
transformers reads. Files of torchvision and timm already use the names of `RESNET`'s models. For
another layout, make your own `Names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.nn.fitting import Place

__all__ = ["GPT2", "LLAMA", "RESNET", "Names", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its name in the file and here, `{}` for a number, `{+}` for a number 1 larger.

    foreign: the name in the file.
    own: the name here.
    part, of, is_transposed: see `Place`; they apply to the layer's weight and bias alike, but only
        a matrix is transposed.
    """

    foreign: str
    own: str
    part: int = 0
    of: int = 1
    is_transposed: bool = False


class Names:
    """A table of names for reading and writing files.

    rows: the layers.
    prefix: of names in the file, optional on reading; written where a row has it.
    dropped: regular expressions of names, without the prefix, that are not weights.
    unwritten: layers of the file that are copies of others.

    >>> from rumus.nn.names import Names, Row
    >>> names = Names([Row("h.{}.mlp.c_fc", "blocks.{}.feed_forward.up", is_transposed=True)])
    >>> names("h.7.mlp.c_fc.bias")
    Place(name='blocks.7.feed_forward.up.bias', part=0, of=1, is_transposed=True)
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        prefix: str = "",
        dropped: Iterable[str] = (),
        unwritten: Iterable[str] = (),
    ) -> None:
        self._rows = tuple(rows)
        self._prefix = prefix
        self._dropped = [re.compile(pattern) for pattern in dropped]
        self._unwritten = frozenset(unwritten)

    def __call__(self, name: str) -> str | Place | None:
        """Return where a tensor of a file belongs; the name itself if no row matches."""
        short = name.removeprefix(self._prefix)
        if any(pattern.fullmatch(short) for pattern in self._dropped):
            return None
        layer, _, kind = short.rpartition(".")
        for pattern, row in self._readers:
            if match := pattern.fullmatch(layer):
                own = _filled(row.own, row.foreign, match.groups())
                return Place(f"{own}.{kind}", row.part, row.of, row.is_transposed)
        return name

    def foreign(self, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a state under the file's names, split where the file has several tensors.

        Tensors that no row matches keep their names. ValueError for a bias to split whose layer has
        no weight matrix.

        state: arrays by their names here.
        """
        found: dict[str, NDArray[Any]] = {}
        for name, array in state.items():
            layer, _, kind = name.rpartition(".")
            places = self.layers(layer)
            for foreign, row in places:
                piece = array if row.of == 1 else _pieces(state, layer, array, row.of)[row.part]
                is_turned = row.is_transposed and array.ndim == 2
                found[f"{foreign}.{kind}"] = piece.T if is_turned else piece
            if not places:
                found[name] = array
        return found

    def layers(self, own: str) -> list[tuple[str, Row]]:
        """Return the file's names of a layer, each with its row.

        own: the layer's name here.
        """
        return [
            (_filled(row.foreign, row.own, match.groups()), row)
            for pattern, row in self._writers
            if row.foreign not in self._unwritten and (match := pattern.fullmatch(own))
        ]

    @cached_property
    def _readers(self) -> list[tuple[re.Pattern[str], Row]]:
        return [(_pattern(row.foreign.removeprefix(self._prefix)), row) for row in self._rows]

    @cached_property
    def _writers(self) -> list[tuple[re.Pattern[str], Row]]:
        return [(_pattern(row.own), row) for row in self._rows]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{\+?\}", template)
    return re.compile(r"(\d+)".join(re.escape(part) for part in parts))


def _filled(template: str, other: str, numbers: Iterable[str]) -> str:
    """Fill a template with the numbers matched by the other one."""
    gaps = zip(re.findall(r"\{\+?\}", template), re.findall(r"\{\+?\}", other), strict=True)
    shifts = [(mine == "{+}") - (theirs == "{+}") for mine, theirs in gaps]
    values = (str(int(n) + shift) for n, shift in zip(numbers, shifts, strict=True))
    return re.sub(r"\{\+?\}", lambda _: next(values), template)


def _pieces(
    state: Mapping[str, NDArray[Any]], layer: str, array: NDArray[Any], count: int
) -> list[NDArray[Any]]:
    weight = state.get(f"{layer}.weight")
    if weight is None or weight.ndim != 2:
        raise ValueError(
            f"{layer} is split into {count} parts, but has no weight matrix to tell their sizes"
        )
    return cut(array, weight.shape[1], count)


def cut(array: NDArray[Any], inputs: int, count: int) -> list[NDArray[Any]]:
    """Split queries, keys and values: as many queries as inputs, keys and values half the rest."""
    other = (len(array) - inputs) // (count - 1) if count > 1 else 0
    return np.split(array, [inputs + other * part for part in range(count - 1)])


def _attention(foreign: str, own: str) -> list[Row]:
    """Queries, keys and values: three layers in the file, one here."""
    return [
        Row(f"{foreign}.{letter}_proj", f"{own}.query_key_value", part, 3)
        for part, letter in enumerate("qkv")
    ]


GPT2: Final = Names(
    [
        Row("transformer.wte", "tokens"),
        Row("lm_head", "tokens"),
        Row("transformer.wpe", "positions"),
        Row("transformer.h.{}.ln_1", "blocks.{}.attention_norm"),
        Row(
            "transformer.h.{}.attn.c_attn",
            "blocks.{}.attention.query_key_value",
            is_transposed=True,
        ),
        Row("transformer.h.{}.attn.c_proj", "blocks.{}.attention.output", is_transposed=True),
        Row("transformer.h.{}.ln_2", "blocks.{}.feed_forward_norm"),
        Row("transformer.h.{}.mlp.c_fc", "blocks.{}.feed_forward.up", is_transposed=True),
        Row("transformer.h.{}.mlp.c_proj", "blocks.{}.feed_forward.down", is_transposed=True),
        Row("transformer.ln_f", "norm"),
    ],
    prefix="transformer.",
    dropped=[r"h\.\d+\.attn\.(masked_)?bias"],
    unwritten=["lm_head"],
)
LLAMA: Final = Names(
    [
        Row("model.embed_tokens", "tokens"),
        Row("model.layers.{}.input_layernorm", "blocks.{}.attention_norm"),
        *_attention("model.layers.{}.self_attn", "blocks.{}.attention"),
        Row("model.layers.{}.self_attn.o_proj", "blocks.{}.attention.output"),
        Row("model.layers.{}.post_attention_layernorm", "blocks.{}.feed_forward_norm"),
        *(
            Row(f"model.layers.{{}}.mlp.{part}_proj", f"blocks.{{}}.feed_forward.{part}")
            for part in ("gate", "up", "down")
        ),
        Row("model.norm", "norm"),
        Row("lm_head", "output"),
    ],
    prefix="model.",
    dropped=[r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"],
)


def _normalized(foreign: str, convolution: str, norm: str) -> list[Row]:
    return [Row(f"{foreign}.convolution", convolution), Row(f"{foreign}.normalization", norm)]


_STAGE: Final = "resnet.encoder.stages.{}.layers.{}"
RESNET: Final = Names(
    [
        *_normalized("resnet.embedder.embedder", "conv1", "bn1"),
        *_normalized(f"{_STAGE}.layer.{{}}", "layer{+}.{}.conv{+}", "layer{+}.{}.bn{+}"),
        *_normalized(f"{_STAGE}.shortcut", "layer{+}.{}.downsample.0", "layer{+}.{}.downsample.1"),
        Row("classifier.1", "fc"),
    ],
    prefix="resnet.",
)
