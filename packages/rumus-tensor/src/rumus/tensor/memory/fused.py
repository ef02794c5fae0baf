"""The names of the fused kernels that a backend may provide.

A misspelled name, in a lookup or in a backend's table, is a type error. `Backend.fused_in_half`
names the kernels that also read and write float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

FusedName: TypeAlias = Literal[
    "attention",
    "attention_gradient",
    "avg_pool",
    "avg_pool_gradient",
    "batch_norm",
    "batch_norm_gradient",
    "class_confusion",
    "class_hits",
    "class_totals",
    "columns",
    "convolution",
    "convolution_bias",
    "convolution_input",
    "convolution_weight",
    "cross_entropy",
    "cross_entropy_gradient",
    "cross_entropy_spread",
    "ctc",
    "ctc_gradient",
    "cumsum",
    "from_columns",
    "gru_cell",
    "gru_cell_gradient",
    "layer_norm",
    "layer_norm_gradient",
    "log_softmax",
    "log_softmax_gradient",
    "lstm_cell",
    "lstm_cell_gradient",
    "max_pool",
    "max_pool_gradient",
    "orthonormal_rows",
    "part_means",
    "part_means_gradient",
    "recurrence",
    "recurrence_gradient",
    "rms_norm",
    "rms_norm_gradient",
    "rnn_cell",
    "rnn_cell_gradient",
    "scaled_sum",
    "small_convolution",
    "small_convolution_weight",
    "softmax",
    "softmax_gradient",
    "sort",
    "sort_gradient",
]
# Forward -> backward, for kernels that are looked up by the name of their operation.
GRADIENTS: Final[Mapping[FusedName, FusedName]] = {
    "layer_norm": "layer_norm_gradient",
    "log_softmax": "log_softmax_gradient",
    "rms_norm": "rms_norm_gradient",
    "softmax": "softmax_gradient",
}
