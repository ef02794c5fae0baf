"""`Tensor`: an array on a backend, with a record of how it was computed.

The operations are in other files, by family; the methods here only call them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    Never,
    NoReturn,
    Self,
    TypeAlias,
)

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rumus.tensor.backends.default_backend import cpu
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.arithmetic import Arithmetic
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.dtype import (
    DType,
    as_dtype,
    bool_,
    default_dtype,
    float32,
    float64,
    int32,
)
from rumus.tensor.expression.errors import BackendMismatchError, GraphError, PrecisionError
from rumus.tensor.expression.lengths import lengths_of
from rumus.tensor.expression.masked import unmasked
from rumus.tensor.expression.printable import abridged
from rumus.tensor.expression.real_number import check_limits
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.autograd import Node, Version, Vjp, is_recording
from rumus.tensor.graph.means import (
    is_noting,
    note_alike,
    note_computed,
    note_product,
    note_quotient,
    note_reciprocal,
    note_sum,
)
from rumus.tensor.graph.other_names import AXIS, BACKWARD, CREATION, TENSOR, TO
from rumus.tensor.memory.backend import Array, Backend, Shape
from rumus.tensor.memory.recording import ask_host, live

if TYPE_CHECKING:
    from rumus.tensor.graph.store import GradientStore

Axis: TypeAlias = "int | tuple[int, ...] | None"
Number: TypeAlias = "float | np.number[Any] | np.bool_"
TensorLike: TypeAlias = "Tensor | ArrayLike"


_TRUTH: Final = ": write x.any() or x.all(), and a & b, a | b of conditions"
_COPIED: Final = (
    "tensor() copies numbers, and the gradient of a result among them would be lost: stack([...]) "
    "and concat([...]) join tensors with it; write x.detach() if none is meant"
)


class _Copying(threading.local):
    """Whether this thread copies lists, in which results of operations may be."""

    is_on = False


_copying = _Copying()


class Tensor(Arithmetic["Tensor"]):
    """An n-dimensional array of one dtype on one backend.

    It is made by `tensor(...)`, by a `Generator`, or by operations on other tensors. A result of
    operations on parameters remembers how it was computed, for `backward`. There is no `.grad`:
    `loss.backward()` returns the gradients.

    array: of the backend.
    backend: that holds the elements, by default the CPU.
    """

    __slots__ = ("__weakref__", "_array", "_backend", "_node", "_version")

    _is_parameter: ClassVar[bool] = False
    __array_ufunc__ = None  # NumPy leaves `array + tensor` to the tensor

    def __init__(self, array: Array, backend: Backend) -> None:
        self._array = array
        self._backend = backend
        self._node: Node | None = None
        self._version = Version()

    if not TYPE_CHECKING:  # so that type checkers see every method

        def __getattr__(self, name: str) -> NoReturn:
            TENSOR.refuse(name)

    @property
    def shape(self) -> Shape:
        """The length of each axis."""
        shape: Shape = self._array.shape
        return shape

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        dtype: DType = self._array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._array.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    @property
    def backend(self) -> Backend:
        """The backend that holds the elements and computes on them."""
        return self._backend

    @property
    def requires_grad(self) -> bool:
        """Whether `backward` can pass through this tensor."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: Never) -> None:
        raise AttributeError(
            "requires_grad says whether a tensor has a graph: make Parameter(x.numpy()), whose "
            "gradient is grads[parameter]"
        )

    if not TYPE_CHECKING:  # nor do type checkers know these, which users of PyTorch assign

        def _assign_grad(self, value: object) -> NoReturn:
            raise AttributeError(
                "a tensor keeps no gradient: loss.backward() returns new ones each time, so there "
                "is none to reset; grads[parameter] = value changes one before the step"
            )

        def _assign_data(self, value: object) -> NoReturn:
            raise AttributeError("a tensor has no data apart from itself: x.assign(value)")

        grad = property(fset=_assign_grad, doc="Of no tensor: assigning it says what to write.")
        data = property(fset=_assign_data, doc="Of no tensor: assigning it says what to write.")

    @property
    def label(self) -> str:
        """The tensor's name in messages."""
        return f"a tensor of shape {self.shape}"

    def _edge(self) -> Node | Any | None:
        """The tensor's entry on the tape: its node, itself if a parameter, or None."""
        return self._node

    # Reading

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the elements as a NumPy array."""
        return self._backend.download(self._array)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a tensor gives NumPy a copy of its elements; drop copy=False")
        if self.requires_grad and is_recording():
            self._leave_graph()
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def _leave_graph(self) -> None:
        """Tell of a gradient that is lost because another library takes the elements."""
        if _copying.is_on and self._node is not None:
            raise GraphError(_COPIED)
        if is_noting():
            warn_user(
                "NumPy computes without a gradient, and a loss that depends on its result lacks "
                "one: use the functions of rumus.tensor, or x.numpy() if none is meant"
            )

    def item(self) -> float | int | bool:
        """Return the only element as a Python number; ValueError if there are several."""
        return self._only("item()")

    def _only(self, asked: str, hint: str = "") -> float | int | bool:
        """The only element; a ValueError says what was asked for."""
        if self.size != 1:
            raise ValueError(
                f"{asked} needs a tensor with one element; this one has shape {self.shape}{hint}"
            )
        value: float | int | bool = self.numpy().item()
        return value

    def tolist(self) -> Any:
        """Return the elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __float__(self) -> float:
        return float(self._only("float(x)"))

    def __int__(self) -> int:
        return int(self._only("int(x)"))

    def __bool__(self) -> bool:
        return bool(self._only("a truth value, as of if, and, or, in,", _TRUTH))

    def __round__(self, digits: int | None = None) -> float | int:
        return round(self._only("round(x)", ": (x + 0.5).floor() rounds each"), digits)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        body = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=100)
        return f"tensor({body}, dtype={self.dtype}, backend={self._backend.name})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "tensors cannot be pickled, because loading a pickle runs code: save the arrays of "
            "state_dict() with numpy.savez or safetensors, or send tensor.numpy()"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.detach().clone()

    def __dlpack__(self, **options: Any) -> Any:
        """Export the elements without a copy, for another library's `from_dlpack`.

        GraphError for a tensor that requires a gradient: the other library could change it
        unnoticed. BufferError for one that is not on the CPU.
        """
        if self.requires_grad:
            raise GraphError("a tensor that requires a gradient cannot be exported; use x.detach()")
        return self._shareable().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._shareable().__dlpack_device__()
        return device

    def _shareable(self) -> Array:
        if not hasattr(self._array, "__dlpack__"):
            raise BufferError(
                f"a tensor on {self._backend.name} has no memory that other libraries share: "
                "export x.to(cpu())"
            )
        return self._array

    # The graph

    @BACKWARD.as_keywords
    def backward(
        self, into: GradientStore | None = None, *, scale: Tensor | None = None
    ) -> GradientStore:
        """Return the gradient of this scalar with respect to every parameter it depends on.

        into: a store to add the gradients to, instead of a new one; it is returned.
        scale: a one-element tensor on the same backend that multiplies all gradients, as if it
            multiplied this scalar.

        GraphError if this is not a floating scalar, has no graph, or `backward` already ran;
        ModifiedTensorError if a tensor it needs was changed since. Nothing is written then.
        """
        return gradients_of(self, into, scale)

    def detach(self) -> Tensor:
        """Return the same elements without the graph, in shared memory."""
        result = Tensor(self._array, self._backend)
        result._version = self._version
        return result

    # Changing in place

    def assign(self, value: TensorLike | float) -> Self:
        """Write `value`, broadcast to this shape, into this tensor's memory and return this tensor.

        value: of the tensor's shape and dtype.

        GraphError for the result of an operation on parameters. ValueError if it does not fit;
        TypeError for True and False in a tensor of numbers.
        """
        if isinstance(value, (bool, np.bool_)) and self.dtype != bool_:
            raise TypeError(f"assign: value must be a number, not {value}")
        self[...] = value
        return self

    def __setitem__(self, key: Any, value: TensorLike | float) -> None:
        if self._node is not None:
            raise GraphError("the result of an operation cannot be changed in place; use where()")
        check_exact(value, self.dtype)
        source = as_tensor(value, self._backend, self.dtype)
        backend_of("assignment", (self, source))
        if source.requires_grad and is_recording():
            raise GraphError(
                "the gradient of the value would be lost, since assignment is not recorded: "
                "assign value.detach(), or do it under no_grad()"
            )
        running = assignment.running_pass()
        is_held_back = running is not None and running.write(self)
        target = indexing.basic(self._array, key, is_assigned=True)
        if not shaping.broadcasts(source.shape, target.shape):
            raise ValueError(f"a value of shape {source.shape} does not fit {target.shape}")
        self._backend.copy(source._array, target)
        if not is_held_back:
            live(self._version.written)

    # Elementwise

    def _apply(self, operation: str, *operands: Any) -> Tensor:
        return operators.apply(operation, operands)

    def __add__(self, other: Tensor | float) -> Tensor:
        return note_sum(self._apply("add", self, other), self, other)

    def __radd__(self, other: float) -> Tensor:
        return note_sum(self._apply("add", other, self), self, other)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return note_sum(self._apply("sub", self, other), self, other, -1)

    def __rsub__(self, other: float) -> Tensor:
        return note_sum(self._apply("sub", other, self), other, self, -1)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return note_product(self._apply("mul", self, other), self, other)

    def __rmul__(self, other: float) -> Tensor:
        return note_product(self._apply("mul", other, self), self, other)

    def __pow__(self, exponent: Tensor | float) -> Tensor:
        found = super().__pow__(exponent)
        is_inverse = isinstance(exponent, (int, float)) and exponent == -1
        return note_reciprocal(found, 1, self) if is_inverse else found

    def __rtruediv__(self, other: float) -> Tensor:
        return note_reciprocal(self._apply("div", other, self), other, self)

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return note_quotient(self._apply("div", self, other), self, other)

    def __neg__(self) -> Tensor:
        return note_alike(self._apply("mul", self, -1), self)

    def __and__(self, other: Tensor | float) -> Tensor:
        _check_truth("&", self, other)
        return self._apply("minimum", self, other)

    def __or__(self, other: Tensor | float) -> Tensor:
        _check_truth("|", self, other)
        return self._apply("maximum", self, other)

    def __invert__(self) -> Tensor:
        _check_truth("~", self)
        return self._apply("eq", self, 0)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._apply("eq", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return ~self._apply("eq", self, other)

    __hash__ = object.__hash__

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Return the elements in another dtype; gradients flow between floating dtypes.

        As in PyTorch, floating numbers beyond the dtype become infinite.

        dtype: of the result.
        """
        return operators.cast(self, as_dtype(dtype), by_name=True)

    @checked_arguments
    def clip(self, low: Tensor | float | None = None, high: Tensor | float | None = None) -> Tensor:
        """Limit each element to [low, high]; NaN stays NaN. None: no limit on that side.

        low: the smallest result, None for no limit.
        high: the largest result, None for no limit.

        ValueError for two numbers of which the first is larger.
        """
        check_limits("clip", low, high)
        above = self if low is None else self.maximum(low)
        return above if high is None else above.minimum(high)

    # Other families

    def __matmul__(self, other: Tensor) -> Tensor:
        return linear_algebra.matmul(self, other)

    if not TYPE_CHECKING:  # type checkers refuse an array @ a tensor, and so does this

        def __rmatmul__(self, other: object) -> NoReturn:
            linear_algebra.refuse_operand(other)

    def matmul(self, other: Tensor) -> Tensor:
        """The matrix product of the last two axes; leading axes are batches and broadcast.

        other: (..., k, n), where this tensor is (..., m, k); vectors as in NumPy.
        """
        return linear_algebra.matmul(self, other)

    def __getitem__(self, key: Any) -> Tensor:
        return indexing.getitem(self, key)

    @AXIS.as_keywords
    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The sum over `axis`; over everything by default.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.sum(self, axis, keepdims)

    @AXIS.as_keywords
    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The mean over `axis`; over everything by default.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.mean(self, axis, keepdims)

    @AXIS.as_keywords
    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The largest element over `axis`; ties share the gradient.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.extremum("max", self, axis, keepdims)

    @AXIS.as_keywords
    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The smallest element over `axis`; ties share the gradient.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.extremum("min", self, axis, keepdims)

    @AXIS.as_keywords
    def var(self, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """The variance over `axis`, divided by n - ddof as in NumPy.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        ddof: subtracted from the number of elements in the divisor.
        """
        return spread.var(self, axis, keepdims, ddof)

    @AXIS.as_keywords
    def std(self, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """The standard deviation over `axis`, with squares divided by n - ddof as in NumPy.

        If all elements are equal, it is 0, and so is the gradient.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        ddof: subtracted from the number of elements in the divisor.

        ValueError if n is not above ddof.
        """
        return spread.std(self, axis, keepdims, ddof)

    @AXIS.as_keywords
    def norm(
        self, order: float | Literal["fro"] = 2, axis: Axis = None, keepdims: bool = False
    ) -> Tensor:
        """(sum |x|^order)^(1 / order) over `axis`; over everything by default.

        order: at least 0; 2 or "fro" is the root of the sum of squares, inf the largest and -inf
            the smallest magnitude, 0 the number of nonzero elements. The gradient of a norm of
            zeros is 0.
        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.

        ValueError for any other order.

        >>> from rumus.tensor import tensor
        >>> tensor([[3.0, 4.0], [0.0, 0.0]]).norm(axis=1).tolist()
        [5.0, 0.0]
        """
        return spread.norm(self, order, axis, keepdims)

    @AXIS.as_keywords
    def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """The product over `axis`, 1 for no elements; over everything by default.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.

        OverflowError for integers whose product does not fit int32, on the CPU; a GPU wraps around.
        """
        return reduction.prod(self, axis, keepdims)

    @AXIS.as_keywords
    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Whether any element over `axis` is true or nonzero; False for no elements.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.holds("any", self, axis, keepdims)

    @AXIS.as_keywords
    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Whether all elements over `axis` are true or nonzero; True for no elements.

        axis: one or several axes; None for all.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.holds("all", self, axis, keepdims)

    @AXIS.as_keywords
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The int32 index of the first largest element, or NaN; flattened for None.

        axis: an axis; None for the index in the flattened tensor.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.position("argmax", self, axis, keepdims)

    @AXIS.as_keywords
    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The int32 index of the first smallest element, or NaN; flattened for None.

        axis: an axis; None for the index in the flattened tensor.
        keepdims: keep the reduced axes, with length 1.
        """
        return reduction.position("argmin", self, axis, keepdims)

    # In order

    @AXIS.as_keywords
    def cumsum(self, axis: int) -> Tensor:
        """The cumulative sum along `axis`; booleans are counted.

        axis: along which it is added up.

        OverflowError for integers whose sums do not fit int32, on the CPU; a GPU wraps around.

        >>> from rumus.tensor import tensor
        >>> tensor([1.0, 2.0, 3.0]).cumsum(0).tolist()
        [1.0, 3.0, 6.0]
        """
        return scan.cumsum(self, axis)

    @AXIS.as_keywords
    def sort(self, axis: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
        """The sorted elements along `axis`, and their int32 indices.

        The sort is stable. NaN counts as the largest. Gradients flow through the elements.

        axis: along which to sort.
        descending: largest first.

        >>> from rumus.tensor import tensor
        >>> values, indices = tensor([3.0, 1.0, 2.0]).sort()
        >>> values.tolist(), indices.tolist()
        ([1.0, 2.0, 3.0], [1, 2, 0])
        """
        return sorting.order(self, axis, descending, None, "sort")

    @AXIS.as_keywords
    def argsort(self, axis: int = -1, descending: bool = False) -> Tensor:
        """The int32 indices that sort the elements along `axis`; see `sort`.

        axis: along which to sort.
        descending: largest first.
        """
        return sorting.order(self.detach(), axis, descending, None, "argsort")[1]

    @AXIS.as_keywords
    def topk(self, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The k largest elements along `axis`, the largest first, and their int32 indices.

        k: the number of elements, at most the length of the axis.
        axis: along which to search.
        largest: False for the k smallest, smallest first. Equal elements keep their order. NaN
            counts as the largest.

        ValueError for a negative k, or one above the length of the axis.

        >>> from rumus.tensor import tensor
        >>> tensor([3.0, 1.0, 2.0]).topk(2)[0].tolist()
        [3.0, 2.0]
        """
        return sorting.order(self, axis, largest, k, "topk")

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements in another shape; one length may be -1.

        shape: with the same number of elements; one length may be -1.
        """
        return shaping.reshape(self, shaping.as_shape("reshape", shape))

    @checked_arguments
    def flatten(self, start: int = 0) -> Tensor:
        """Join the axes from `start` on into one; IndexError if there is no such axis.

        start: the first axis to join.
        """
        if self.ndim or start not in (0, -1):  # a scalar becomes a vector
            start = reduction.normalize_axis(start, self.ndim, "flatten")
        return shaping.reshape(self, (*self.shape[:start], math.prod(self.shape[start:])))

    def permute(self, *axes: int | Sequence[int]) -> Tensor:
        """The axes in another order.

        axes: all axes, in the new order.
        """
        return shaping.permute(self, shaping.as_shape("permute", axes, "an axis"))

    @checked_arguments
    def transpose(self, first: int = -2, second: int = -1) -> Tensor:
        """Swap two axes; by default the last two.

        first: an axis.
        second: the axis to swap it with.
        """
        return shaping.transpose(self, first, second)

    @property
    def T(self) -> Tensor:
        """The tensor with its last two axes swapped; unchanged with fewer than two axes."""
        return (
            shaping.transpose(self, -2, -1) if self.ndim > 1 else shaping.reshape(self, self.shape)
        )

    @checked_arguments
    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        """Repeat along axes of length 1, and along new leading ones, as NumPy does.

        shape: to which the tensor's shape must broadcast.
        """
        return shaping.broadcast_to(self, lengths_of("broadcast_to", shape))

    @AXIS.as_keywords
    def unsqueeze(self, axis: int) -> Tensor:
        """Insert an axis of length 1.

        axis: the position of the new axis.
        """
        return shaping.unsqueeze(self, axis)

    @AXIS.as_keywords
    def squeeze(self, axis: int | None = None) -> Tensor:
        """Remove an axis of length 1, or all of them.

        axis: of length 1; None for all such axes.
        """
        return shaping.squeeze(self, axis)

    @AXIS.as_keywords
    def softmax(self, axis: int = -1) -> Tensor:
        """exp(x) / sum(exp(x)) along `axis`.

        axis: along which the results add up to 1.
        """
        return softmaxes.softmax(self, axis)

    @AXIS.as_keywords
    def log_softmax(self, axis: int = -1) -> Tensor:
        """The logarithm of the softmax along `axis`.

        axis: along which the probabilities add up to 1.
        """
        return softmaxes.log_softmax(self, axis)

    @AXIS.as_keywords
    def logsumexp(self, axis: int = -1, keepdims: bool = False) -> Tensor:
        """log(sum(exp(x))) along `axis`, without overflow.

        axis: along which it sums.
        keepdims: keep the reduced axes, with length 1.
        """
        return softmaxes.logsumexp(self, axis, keepdims)

    # Moving

    def clone(self) -> Tensor:
        """Return a copy in new memory; gradients flow through it."""
        return shaping.copy(self)

    @TO.before_call
    def to(self, backend: Backend) -> Tensor:
        """Return the elements on another backend; gradients flow back to this one.

        backend: the destination.

        TypeError for anything but a backend, such as the name of a device.
        """
        return shaping.to_backend(self, backend)

    def to_gpu(self) -> Tensor:
        """Return the elements on the GPU. ImportError says what to install without rumus-gpu."""
        from rumus.tensor.gpu import gpu_backend

        return self.to(gpu_backend())


def _check_truth(operator: str, *operands: Any) -> None:
    for operand in operands:
        if isinstance(operand, Tensor) and operand.dtype != bool_:
            raise TypeError(f"{operator}: expected truth values, got {operand.dtype}")


def result_of(
    name: str,
    array: Array,
    backend: Backend,
    inputs: Sequence[Tensor],
    vjp: Vjp,
    saved: Sequence[Tensor] = (),
    reads_result: bool = False,
    adding: tuple[int, ...] = (),
    takes: tuple[type, ...] = (),
    fills_places: bool = False,
    of: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return the result of an operation as a tensor, on the tape if it may need a gradient.

    inputs: the tensors that `vjp` returns gradients for, in its order.
    saved: tensors that `vjp` reads; changing one in place before backward is an error.
    reads_result: whether `vjp` also reads the result itself.
    adding: the indices of inputs for which `vjp` accepts a `SoFar` as destination.
    takes: which of `Product` and `Spread` `vjp` accepts as gradient.
    fills_places: whether `vjp` can write gradients to any view, such as those of `split`.
    of: what it was computed from, if not from `inputs` alone.
    """
    result = note_computed(Tensor(array, backend), inputs if of is None else of)
    if not is_recording() or array.dtype.kind != "f":
        return result
    edges = tuple([t._edge() for t in inputs])
    if all(edge is None for edge in edges):
        return result
    # A parameter is checked even if its value is not needed: changed between forward and backward,
    # it would get the gradient of a value that it no longer has.
    watched = [edge for edge in edges if isinstance(edge, Tensor)]
    watched += [result.detach()] if reads_result else []  # not itself, which would be a cycle
    stamps = tuple([(t, t._version.current) for t in (*watched, *saved)])
    result._node = Node(name, backend, edges, vjp, stamps, adding, takes, fills_places)
    return result


def backend_of(operation: str, tensors: Sequence[Tensor]) -> Backend:
    """Return the backend that all `tensors` share; BackendMismatchError names two that differ."""
    backend = tensors[0]._backend
    for t in tensors:
        if t._backend is not backend:
            other = t._backend.name
            if other == backend.name:
                other = "another backend of that name: make one, and use it for all"
            raise BackendMismatchError(
                f"{operation}: {tensors[0].label} is on {backend.name}, {t.label} is on "
                f"{other}; move one with .to(backend)"
            )
    return backend


@CREATION.as_keywords
def tensor(
    data: TensorLike, *, dtype: DTypeLike | None = None, backend: Backend | None = None
) -> Tensor:
    """Return a tensor with a copy of `data`: numbers, nested lists, a NumPy array, a tensor.

    data: a number, an array, nested sequences of numbers, or a tensor.
    dtype: by default float32 for floating data except float16, int32 for integers, bool for
        booleans.
    backend: by default the CPU.

    TypeError for data that is not numeric, OverflowError for numbers beyond the dtype, GraphError
    for results of operations on parameters, whose gradient a copy would lose. A
    UserWarning tells of float64 data that are whole numbers, such as identifiers, and that float32
    would round.

    >>> from rumus.tensor import tensor
    >>> tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=0).tolist()
    [4.0, 6.0]
    """
    if isinstance(data, Tensor):
        if data._node is not None and is_recording():
            raise GraphError(_COPIED)
        moved = data.detach().to(data.backend if backend is None else backend)
        return moved.clone() if dtype is None else moved.clone().astype(dtype)
    backend = cpu() if backend is None else backend
    return Tensor(backend.upload(as_host(data, dtype)), backend)


def as_host(data: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return `data` as a NumPy array with the dtype of its tensor; see `tensor`."""
    _copying.is_on = isinstance(data, (list, tuple))
    try:
        host = unmasked(data)
    finally:
        _copying.is_on = False
    if host.dtype == object and host.size and all(type(n) in (int, float) for n in host.flat):
        host, usual = _as_float64(host), int32  # integers beyond those of NumPy
    else:
        usual = default_dtype(host)  # refuses text, which NumPy would read as numbers, None and 1j
    wanted = usual if dtype is None else as_dtype(dtype)
    if dtype is None and host.ndim and host.dtype == float64 and _rounds_whole_numbers(host):
        warn_user(
            "float64 data becomes float32, which rounds these whole numbers beyond 2**24: if they "
            "are identifiers, convert them to integers, or keep them with dtype=float64",
        )
    if wanted == int32 and host.dtype != int32 and host.size:
        low, high = host.min(), host.max()
        if not (low >= -(2**31) and high < 2**31):  # NaN does not fit
            raise OverflowError(f"numbers from {low} to {high} do not fit int32")
    try:
        with np.errstate(over="raise"):
            return host.astype(wanted, copy=False)
    except FloatingPointError:
        largest = np.abs(host[np.isfinite(host)]).max()
        raise OverflowError(f"a number of magnitude {largest} does not fit {wanted}") from None


def _as_float64(integers: NDArray[Any]) -> NDArray[Any]:
    try:
        return integers.astype(np.float64)
    except OverflowError:
        largest = abridged(max(integers.flat, key=abs))
        raise OverflowError(f"the number {largest} does not fit float64") from None


def _rounds_whole_numbers(host: NDArray[Any]) -> bool:
    """Whether all elements of a column are whole, as of identifiers, and float32 rounds one.

    Columns are along the last axis of several. Beyond 2**53 every float64 is whole, so that this
    tells nothing. Missing ones may be NaN.
    """
    if not host.size:
        return False
    table = host.reshape(-1, host.shape[-1] if host.ndim > 1 else 1)
    few = _are_whole(table[: 1 + 64 // table.shape[1]])  # some rows tell most data apart
    if not few.any():
        return False
    table = table if few.all() else table[:, few]
    low = np.fmin.reduce(table, 0, initial=0)
    far = np.maximum(-low, np.fmax.reduce(table, 0, initial=0))
    table = table[:, (far > 2**24) & (far <= 2**53)]
    rounded = (table != table.astype(np.float32)) & ~np.isnan(table)
    return bool((_are_whole(table) & rounded.any(0)).any())


def _are_whole(table: NDArray[Any]) -> NDArray[Any]:
    """Whether each column has whole numbers only, but for NaN."""
    found: NDArray[Any] = ((table == np.trunc(table)) | np.isnan(table)).all(0)
    return found


def refuse_rounded(dtype: DType, array: NDArray[Any]) -> None:
    """Raise PrecisionError for an integer that a floating dtype has not."""
    most = 2 ** (np.finfo(dtype).nmant + 1)  # up to which it has all of them
    if not array.size or (array.max() <= most and array.min() >= -most):
        return
    with np.errstate(over="ignore"):
        found = array.astype(dtype)
    rounded = np.flatnonzero(found.astype(np.float64) != array)
    if rounded.size:
        value = array.reshape(-1)[rounded[0]]
        raise PrecisionError(
            f"integers become {dtype} here, which has no {value}: x.astype({dtype}) rounds them, "
            "and x.astype(float64) keeps them, on the CPU"
        )


def check_exact(value: TensorLike | Number, dtype: DType) -> None:
    """Raise for numbers that a tensor of integers or truth values would cut off.

    PrecisionError for integers that floating numbers would round.
    """
    if dtype.kind == "f":
        if isinstance(value, Tensor):
            if value.dtype == int32 and not value._backend.runs_ahead:  # there, nobody looks
                ask_host(partial(refuse_rounded, dtype), (value._array,))
        elif (host := unmasked(value)).dtype.kind in "iu":
            beyond = np.abs(host) > np.finfo(dtype).max  # which is an error anyway
            refuse_rounded(dtype, host[~beyond] if beyond.any() else host)
        return
    if isinstance(value, Tensor):
        kinds = "bif"  # each holds those before it
        if kinds.index(value.dtype.kind) > kinds.index(dtype.kind):
            raise TypeError(
                f"assignment would cut off {value.dtype} to {dtype}: assign "
                f"value.astype({'bool_' if dtype.kind == 'b' else dtype}) if that is meant"
            )
        return
    host = unmasked(value)
    if host.dtype.kind in "iuf":
        if dtype.kind == "i":  # what is beyond it, or NaN, is an error anyway
            cut = (np.trunc(host) != host) & (host == host)
        else:
            cut = (host != 0) & (host != 1)
        if cut.any():
            raise ValueError(f"{host[cut].flat[0]} does not fit a tensor of {dtype}: astype() cuts")


def as_tensor(data: TensorLike | Number, backend: Backend, dtype: DType | None = None) -> Tensor:
    """Return `data` itself if it is a tensor, else a new tensor on `backend`."""
    return data if isinstance(data, Tensor) else tensor(data, dtype=dtype, backend=backend)


@CREATION.as_keywords
def full(
    shape: int | Sequence[int],
    value: float | bool,
    *,
    dtype: DTypeLike = float32,
    backend: Backend | None = None,
) -> Tensor:
    """Return a tensor with every element `value`.

    shape: a length or a sequence of lengths.
    value: of every element.
    dtype: of the elements.
    backend: that holds the elements, by default the CPU.

    Raises ValueError for a value that integers or truth values would cut off, such as 0.5, and
    PrecisionError for an integer that the dtype would round.
    """
    backend, wanted = cpu() if backend is None else backend, as_dtype(dtype)
    number = as_host(value, wanted)
    if number.ndim:
        raise TypeError(f"full: value must be a number, not of shape {number.shape}")
    check_exact(value, wanted)
    array = backend.allocate(lengths_of("full", shape), wanted)
    backend.fill(number.item(), array)
    return Tensor(array, backend)


@CREATION.as_keywords
def zeros(
    shape: int | Sequence[int], *, dtype: DTypeLike = float32, backend: Backend | None = None
) -> Tensor:
    """Return a tensor of zeros.

    shape: a length or a sequence of lengths.
    dtype: of the elements.
    backend: that holds the elements, by default the CPU.
    """
    return full(shape, 0, dtype=dtype, backend=backend)


@CREATION.as_keywords
def ones(
    shape: int | Sequence[int], *, dtype: DTypeLike = float32, backend: Backend | None = None
) -> Tensor:
    """Return a tensor of ones.

    shape: a length or a sequence of lengths.
    dtype: of the elements.
    backend: that holds the elements, by default the CPU.
    """
    return full(shape, 1, dtype=dtype, backend=backend)


@CREATION.as_keywords
def arange(
    start: int, stop: int | None = None, step: int = 1, *, backend: Backend | None = None
) -> Tensor:
    """Return the int32 numbers from `start` (0 if only one argument is given) below `stop`.

    start: the first number.
    stop: the exclusive end.
    step: between consecutive numbers, not 0.
    backend: that holds the elements, by default the CPU.

    TypeError for fractions, ValueError for a step of 0.
    """
    start, step = whole_number("arange: start", start), whole_number("arange: step", step)
    stop = None if stop is None else whole_number("arange: stop", stop)
    if step == 0:
        raise ValueError("arange: step must not be 0, which never reaches stop")
    first, last = (0, start) if stop is None else (start, stop)
    return tensor(np.arange(first, last, step), backend=backend)


def from_dlpack(source: Any) -> Tensor:
    """Return a CPU tensor over the memory of another library's array, without a copy.

    source: an object with `__dlpack__`, on the CPU.

    TypeError for anything else, and for a dtype that is not one of the five.
    """
    told = "tensor(x) copies arrays and lists of numbers"
    if not hasattr(source, "__dlpack__"):
        if type(source).__name__ == "PyCapsule":
            told = "give the array itself, not what its __dlpack__() returned"
        raise TypeError(
            f"from_dlpack: source must be an object with __dlpack__, not {shown(source)}: {told}"
        )
    try:
        array = np.from_dlpack(source)
    except RuntimeError as error:  # NumPy lacks the dtype or the device
        kind, device = (getattr(source, name, "?") for name in ("dtype", "device"))
        raise TypeError(
            f"from_dlpack: NumPy shares no array of {kind} on {device}; convert it first, as "
            "x.float().cpu() does in PyTorch"
        ) from error
    try:
        as_dtype(array.dtype)
    except TypeError as error:
        raise TypeError(f"{error}: tensor(x) converts a copy") from None
    return Tensor(array, cpu())


# The families are functions over Tensor, and Tensor's methods call them: hence at the end.
from rumus.tensor.graph import (  # noqa: E402
    assignment,
    indexing,
    linear_algebra,
    operators,
    reduction,
    scan,
    shaping,
    softmaxes,
    sorting,
    spread,
)
from rumus.tensor.graph.store import gradients_of  # noqa: E402
