"""Tensors, gradients and who owns them: the ground that the rest of rumus stands on.

>>> from rumus.tensor import Parameter, tensor
>>> weight = Parameter([[0.5, -1.0]], name="weight")
>>> loss = ((tensor([[1.0, 2.0]]) @ weight.T - 1.0) ** 2).mean()
>>> grads = loss.backward()
>>> grads[weight].tolist()
[[-5.0, -10.0]]
"""

from rumus.tensor.arena import Arena
from rumus.tensor.attention import attention_weights, scaled_dot_product_attention, weighted_values
from rumus.tensor.autograd import no_grad
from rumus.tensor.backend import Backend
from rumus.tensor.batch_norm import batch_norm
from rumus.tensor.convolution import convolution, convolution_transpose
from rumus.tensor.default_backend import cpu
from rumus.tensor.dtype import DType, bool_, float16, float32, float64, int32
from rumus.tensor.errors import (
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
from rumus.tensor.expr import Expr
from rumus.tensor.feed_forward import feed_forward
from rumus.tensor.functions import (
    clip,
    cos,
    elu,
    erf,
    exp,
    expm1,
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
from rumus.tensor.generator import Generator
from rumus.tensor.gpu import gpu_backend
from rumus.tensor.indexing import gather
from rumus.tensor.kernel import Kernel
from rumus.tensor.linear import linear
from rumus.tensor.linear_algebra import matmul
from rumus.tensor.norms import layer_norm, rms_norm
from rumus.tensor.numba_backend import NumbaBackend
from rumus.tensor.numpy_backend import NumpyBackend
from rumus.tensor.operators import elementwise
from rumus.tensor.parameter import Owner, Parameter, Parameters, ParamId, move_parameters
from rumus.tensor.pooling import avg_pool, max_pool
from rumus.tensor.selection import ROLES, Role
from rumus.tensor.shaping import concat, pad, split, stack
from rumus.tensor.softmaxes import cross_entropy, log_softmax, logsumexp, softmax
from rumus.tensor.store import GradientStore
from rumus.tensor.tensor import (
    Tensor,
    TensorLike,
    arange,
    from_dlpack,
    full,
    ones,
    tensor,
    zeros,
)

__version__ = "0.1.0"

__all__ = [
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
    "StateMismatchError",
    "Tensor",
    "TensorLike",
    "UnclaimedGradientError",
    "arange",
    "attention_weights",
    "avg_pool",
    "batch_norm",
    "bool_",
    "clip",
    "concat",
    "convolution",
    "convolution_transpose",
    "cos",
    "cpu",
    "cross_entropy",
    "elementwise",
    "elu",
    "erf",
    "exp",
    "expm1",
    "feed_forward",
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
    "no_grad",
    "ones",
    "pad",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
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
    "weighted_values",
    "where",
    "zeros",
]
