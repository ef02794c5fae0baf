"""The cosine of the angle between vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rumus.tensor.expression.dtype import float16, float32, is_floating, promote
from rumus.tensor.expression.kernel import trace
from rumus.tensor.graph.operators import broadcast_shape, cast, compute, sum_to
from rumus.tensor.graph.reduction import normalize_axis
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array


def _part(x: Any, y: Any, a: Any, b: Any) -> Any:
    """x y / (a b), without either product, which may leave the dtype."""
    return x / a * (y / b)


def _of_rows(
    first: Any, second: Any, a: Any, b: Any, cosine: Any, gradient: Any, *, eps: Any
) -> dict[str, Any]:
    """What `_slope` needs of each pair; a norm below eps is a constant."""
    p, q = gradient / a, gradient / b
    return {
        "p": p,
        "q": q,
        "s": (first < eps).where(0.0, p * cosine),
        "t": (second < eps).where(0.0, q * cosine),
    }


def _slope(x: Any, y: Any, a: Any, b: Any, p: Any, q: Any, s: Any, t: Any) -> dict[str, Any]:
    """The derivative by x, (y / b - cosine x / a) / a, and by y, times the gradient."""
    u, v = x / a, y / b
    return {"of_x": p * v - s * u, "of_y": q * u - t * v}


_BOUNDED: Final = trace(lambda norm, *, eps: norm.maximum(eps), "bounded")
_PART: Final = trace(_part, "cosine")
_OF_ROWS: Final = trace(_of_rows, "cosine_rows")
_SLOPE: Final = trace(_slope, "cosine_gradient")


def cosine(x: Tensor, y: Tensor, axis: int, eps: float) -> Tensor:
    """The sum over `axis` of x / max(|x|, eps) times y / max(|y|, eps).

    x: floating.
    y: of a shape that broadcasts with that of `x`.
    axis: of the components.
    eps: the lower bound of the norms.
    """
    dtype = promote(x.dtype, y.dtype)
    dtype = dtype if is_floating(dtype) else float32
    if dtype == float16:
        return cast(cosine(cast(x, float32), cast(y, float32), axis, eps), float16)
    shape = broadcast_shape("cosine", [x.shape, y.shape])
    axis = normalize_axis(axis, len(shape), "cosine")
    x, y = (_of_length(cast(each, dtype), shape, axis) for each in (x, y))
    backend = backend_of("cosine", (x, y))
    kept = tuple(1 if i == axis else n for i, n in enumerate(shape))
    norms: list[Array] = []
    for each in (x, y):
        norm = backend.allocate((*each.shape[:axis], *each.shape[axis + 1 :]), dtype)
        backend.reduce("norm", each._array, (axis,), norm)
        norms.append(norm.reshape((*each.shape[:axis], 1, *each.shape[axis + 1 :])))
    bounds = [compute(backend, _BOUNDED, (norm,), _BOUNDED.bind({"eps": eps})) for norm in norms]
    arrays = (x._array, y._array, *bounds)
    out = backend.allocate((*shape[:axis], *shape[axis + 1 :]), dtype)
    backend.reduce("sum", compute(backend, _PART, arrays), (axis,), out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        rows = [backend.allocate(kept, dtype) for _ in _OF_ROWS.outputs]
        given = (*norms, *bounds, out.reshape(kept), gradient.reshape(kept))
        backend.elementwise(_OF_ROWS, given, _OF_ROWS.bind({"eps": eps}), rows)
        slopes = [backend.allocate(shape, dtype) for _ in range(2)]
        backend.elementwise(_SLOPE, (*arrays, *rows), (), slopes)
        pairs = zip(slopes, (x, y), strict=True)
        return [sum_to(backend, slope, each.shape) for slope, each in pairs]

    return result_of("cosine", out, backend, (x, y), vjp, saved=(x, y), reads_result=True)


def _of_length(x: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """View `x` with as many axes as `shape`, and of its length along `axis`."""
    x = x.reshape(*(1,) * (len(shape) - x.ndim), *x.shape)
    return x.broadcast_to((*x.shape[:axis], shape[axis], *x.shape[axis + 1 :]))
