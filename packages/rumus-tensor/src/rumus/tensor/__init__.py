"""Tensors, gradients and their ownership: the foundation of rumus.

>>> from rumus.tensor import Parameter, tensor
>>> weight = Parameter([[0.5, -1.0]], name="weight")
>>> loss = ((tensor([[1.0, 2.0]]) @ weight.T - 1.0) ** 2).mean()
>>> grads = loss.backward()
>>> grads[weight].tolist()
[[-5.0, -10.0]]
"""

from typing import TYPE_CHECKING, NoReturn

from rumus.tensor.backends.default_backend import cpu
from rumus.tensor.backends.numba_backend import NumbaBackend
from rumus.tensor.backends.numpy_backend import NumpyBackend
from rumus.tensor.expression.dtype import DType, bool_, float16, float32, float64, int32
from rumus.tensor.expression.errors import (
    AutogradError,
    BackendMismatchError,
    CaptureError,
    ClosureNeededError,
    DrainedGradientError,
    GradientMismatchError,
    GraphError,
    MissingGradientError,
    ModifiedTensorError,
    NonFiniteGradientError,
    OwnershipError,
    PrecisionError,
    StateMismatchError,
    UnclaimedGradientError,
)
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.gpu import gpu_backend
from rumus.tensor.graph.arena import Arena
from rumus.tensor.graph.assignment import SideEffectWarning
from rumus.tensor.graph.autograd import no_grad
from rumus.tensor.graph.indexing import gather
from rumus.tensor.graph.linear_algebra import matmul
from rumus.tensor.graph.operators import elementwise
from rumus.tensor.graph.other_names import MODULE
from rumus.tensor.graph.parameter import Owner, Parameter, Parameters, ParamId, move_parameters
from rumus.tensor.graph.selection import ROLES, Role
from rumus.tensor.graph.shaping import concat, pad, split, stack
from rumus.tensor.graph.softmaxes import log_softmax, logsumexp, softmax
from rumus.tensor.graph.store import GradientStore
from rumus.tensor.graph.tensor import (
    Tensor,
    TensorLike,
    arange,
    from_dlpack,
    full,
    ones,
    tensor,
    zeros,
)
from rumus.tensor.memory.backend import Backend
from rumus.tensor.operations.activations import (
    celu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    log_sigmoid,
    mish,
    prelu,
    relu6,
    selu,
    softsign,
)
from rumus.tensor.operations.attention import (
    attention_weights,
    scaled_dot_product_attention,
    weighted_values,
)
from rumus.tensor.operations.batch_norm import batch_norm
from rumus.tensor.operations.convolution import convolution, convolution_transpose
from rumus.tensor.operations.cross_entropy import cross_entropy
from rumus.tensor.operations.einsum import einsum, outer
from rumus.tensor.operations.feed_forward import feed_forward
from rumus.tensor.operations.functions import (
    ceil,
    clip,
    cos,
    elu,
    erf,
    exp,
    expm1,
    floor,
    gelu,
    gelu_tanh,
    leaky_relu,
    log,
    log1p,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    sqrt,
    tanh,
    where,
)
from rumus.tensor.operations.generator import Generator
from rumus.tensor.operations.interpolation import interpolate
from rumus.tensor.operations.linear import linear
from rumus.tensor.operations.norms import layer_norm, rms_norm
from rumus.tensor.operations.padding import pad_edges
from rumus.tensor.operations.pooling import avg_pool, max_pool
from rumus.tensor.operations.seeding import is_seeded, next_generator, run_seed, seed
from rumus.tensor.operations.triangles import tril, triu

__version__ = "0.1.0"

__all__ = [
    "interpolate",
    "pad_edges",
    "celu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "log_sigmoid",
    "mish",
    "prelu",
    "relu6",
    "selu",
    "softsign",
    "Arena",
    "AutogradError",
    "Backend",
    "BackendMismatchError",
    "CaptureError",
    "ClosureNeededError",
    "DType",
    "DrainedGradientError",
    "Expr",
    "Generator",
    "GradientMismatchError",
    "GradientStore",
    "GraphError",
    "Kernel",
    "MissingGradientError",
    "ModifiedTensorError",
    "NonFiniteGradientError",
    "NumbaBackend",
    "NumpyBackend",
    "Owner",
    "OwnershipError",
    "ParamId",
    "Parameter",
    "Parameters",
    "PrecisionError",
    "ROLES",
    "Role",
    "SideEffectWarning",
    "StateMismatchError",
    "Tensor",
    "TensorLike",
    "UnclaimedGradientError",
    "arange",
    "attention_weights",
    "avg_pool",
    "batch_norm",
    "bool_",
    "ceil",
    "clip",
    "concat",
    "convolution",
    "convolution_transpose",
    "cos",
    "cpu",
    "cross_entropy",
    "einsum",
    "elementwise",
    "elu",
    "erf",
    "exp",
    "expm1",
    "feed_forward",
    "floor",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "full",
    "gather",
    "gelu",
    "gelu_tanh",
    "gpu_backend",
    "int32",
    "is_seeded",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max_pool",
    "maximum",
    "minimum",
    "move_parameters",
    "next_generator",
    "no_grad",
    "ones",
    "outer",
    "pad",
    "relu",
    "rms_norm",
    "run_seed",
    "scaled_dot_product_attention",
    "seed",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "stack",
    "tanh",
    "tensor",
    "tril",
    "triu",
    "weighted_values",
    "where",
    "zeros",
]

if not TYPE_CHECKING:  # so that type checkers see every name

    def __getattr__(name: str) -> NoReturn:
        MODULE.refuse(name)


def __dir__() -> list[str]:
    return sorted(__all__)
