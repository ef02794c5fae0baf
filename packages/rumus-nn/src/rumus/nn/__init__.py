"""Modules, layers, losses and initialization: models for rumus.tensor.

>>> from rumus import nn
>>> from rumus.tensor import Generator, ones
>>> model = nn.Sequential(nn.Linear(4, 8, generator=Generator(0)), nn.ReLU())
>>> loss = nn.mse_loss(model(ones((2, 4))), ones((2, 8)))
>>> sorted(parameter.name for parameter in loss.backward())
['bias', 'weight']
>>> model.parameters().names
('0.weight', '0.bias')
"""

from typing import TYPE_CHECKING, NoReturn

from rumus.nn import initialization, names
from rumus.nn.activation import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Activation,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from rumus.nn.attention import MultiHeadAttention
from rumus.nn.batch_norm import BatchNorm1d, BatchNorm2d
from rumus.nn.checkpoint import checkpoint
from rumus.nn.containers import ModuleDict, ModuleList
from rumus.nn.convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from rumus.nn.cross_entropy import cross_entropy_loss
from rumus.nn.ctc import ctc_loss
from rumus.nn.distance import cosine_similarity, pairwise_distance
from rumus.nn.dropout import Dropout, Dropout2d, DropPath
from rumus.nn.embedding import Embedding
from rumus.nn.feed_forward import FeedForward, SwiGLU
from rumus.nn.fitting import LoadReport, Place, WrongShape
from rumus.nn.focal import dice_loss, focal_loss, sigmoid_focal_loss
from rumus.nn.frozen_linear import FrozenLinear
from rumus.nn.group_norm import GroupNorm
from rumus.nn.instance_norm import InstanceNorm1d, InstanceNorm2d
from rumus.nn.layer_norm import LayerNorm
from rumus.nn.likelihood import gaussian_nll_loss, kl_div, nll_loss, poisson_nll_loss
from rumus.nn.linear import Linear
from rumus.nn.lora import Lora, LoraLinear, lora
from rumus.nn.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from rumus.nn.margin import (
    contrastive_loss,
    cosine_embedding_loss,
    hinge_embedding_loss,
    hinge_loss,
    margin_ranking_loss,
    multi_margin_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from rumus.nn.module import Module
from rumus.nn.onnx_export import export_onnx
from rumus.nn.onnx_graph import OnnxExportError
from rumus.nn.other_names import NN as _NN
from rumus.nn.peft_file import load_lora, save_lora
from rumus.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
)
from rumus.nn.recurrent import GRU, LSTM, RNN
from rumus.nn.rms_norm import RMSNorm
from rumus.nn.rotary import RotaryEmbedding
from rumus.nn.sequential import Sequential
from rumus.nn.shape import Flatten, Identity
from rumus.nn.transformer import TransformerBlock
from rumus.nn.upsampling import PixelShuffle, PixelUnshuffle, Upsample
from rumus.nn.weights_file import Weights, WeightsFileError, read_weights
from rumus.tensor import (
    celu,
    elu,
    gelu,
    gelu_tanh,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    interpolate,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    tanh,
)

__version__ = "0.1.0"

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool1d",
    "ConvTranspose1d",
    "Dropout2d",
    "DropPath",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "PixelShuffle",
    "PixelUnshuffle",
    "Upsample",
    "interpolate",
    "GRU",
    "LSTM",
    "RNN",
    "CELU",
    "GLU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU6",
    "SELU",
    "Softmax",
    "Softsign",
    "celu",
    "elu",
    "gelu",
    "gelu_tanh",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
    "binary_cross_entropy",
    "ctc_loss",
    "cosine_similarity",
    "pairwise_distance",
    "dice_loss",
    "focal_loss",
    "sigmoid_focal_loss",
    "gaussian_nll_loss",
    "kl_div",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "contrastive_loss",
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "Activation",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "ELU",
    "Embedding",
    "FeedForward",
    "Flatten",
    "FrozenLinear",
    "GELU",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LoadReport",
    "Lora",
    "LoraLinear",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "Place",
    "OnnxExportError",
    "RMSNorm",
    "ReLU",
    "RotaryEmbedding",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "SwiGLU",
    "Tanh",
    "TransformerBlock",
    "Weights",
    "WeightsFileError",
    "WrongShape",
    "binary_cross_entropy_with_logits",
    "checkpoint",
    "cross_entropy_loss",
    "export_onnx",
    "huber_loss",
    "initialization",
    "l1_loss",
    "load_lora",
    "lora",
    "mse_loss",
    "names",
    "read_weights",
    "save_lora",
]

if not TYPE_CHECKING:  # so that type checkers see every name

    def __getattr__(name: str) -> NoReturn:
        _NN.refuse(name)


def __dir__() -> list[str]:
    return sorted(__all__)
