"""`Dropout`: zeroes random elements in training."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from rumus.nn.module import Module, check_tensor
from rumus.nn.setting import Settings, as_declared, probability
from rumus.tensor import Expr, Generator, Tensor, elementwise, next_generator
from rumus.tensor.memory.recording import depends_on

T = TypeVar("T", Tensor, Expr)


@elementwise
def _kept(x: T, mask: T, *, scale: float) -> T:
    return mask.where(scale * x, 0.0)


class Dropout(Module):
    """In training, each element becomes zero with probability p, and x / (1 - p) otherwise.

    Srivastava et al., "Dropout", 2014, scaled in training so that evaluation is the identity.

    p: in [0, 1], ValueError outside.
    generator: of the masks; it advances with each call, and its masks are the same on every
        backend. By default a stream of the program's `seed`.

    >>> from rumus.nn import Dropout
    >>> from rumus.tensor import Generator, ones
    >>> layer = Dropout(0.5, generator=Generator(3))
    >>> sorted(set(layer(ones((100,))).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(ones((2,))).tolist()
    [1.0, 1.0]
    """

    _settings: ClassVar[Settings] = {"p": probability, "generator": as_declared}

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        self.p = p
        self.generator = next_generator() if generator is None else generator

    def is_active(self) -> bool:
        """Whether anything is dropped: in training, unless p is 0."""
        depends_on(self, "p")
        depends_on(self, "training")
        return self.training and self.p != 0

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of the mask, which broadcasts to x: elements that share an entry drop together.

        x: the input.
        """
        return x.shape

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training; otherwise, or if p is 0, return `x` itself.

        x: floating, of any shape.
        """
        check_tensor(type(self).__name__, x)
        if x.dtype.kind != "f":
            raise TypeError(f"{type(self).__name__}: the input must be floating, not {x.dtype}")
        if not self.is_active():
            return x
        mask = self.generator.keep(1 - self.p, self.mask_shape(x), backend=x.backend)
        return _kept(x, mask, scale=1 / (1 - self.p) if self.p < 1 else 0.0)


class Dropout2d(Dropout):
    """`Dropout` of whole channels: each of (batch, channels, ...) is zero with probability p.

    Tompson et al.: arXiv:1411.4280. Neighboring elements are similar, so dropping single ones has
    little effect.

    p, generator: as in `Dropout`.

    ValueError as for `Dropout`, and for fewer than two axes.

    >>> from rumus.nn import Dropout2d
    >>> from rumus.tensor import Generator, ones
    >>> Dropout2d(0.5, generator=Generator(3))(ones((2, 3, 4, 4))).sum((2, 3)).shape
    (2, 3)
    """

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """One number per channel of each example.

        x: the input, (batch, channels, ...).
        """
        if x.ndim < 2:
            raise ValueError(f"Dropout2d: expected (batch, channels, ...), got {x.shape}")
        return (*x.shape[:2], *[1] * (x.ndim - 2))


class DropPath(Dropout):
    """`Dropout` of whole examples, for a residual branch: x + drop_path(f(x)).

    Huang et al., "Deep networks with stochastic depth": arXiv:1603.09382.

    p, generator: as in `Dropout`.

    ValueError as for `Dropout`, and for a tensor without axes.

    >>> from rumus.nn import DropPath
    >>> from rumus.tensor import Generator, ones
    >>> sorted(set(DropPath(0.5, generator=Generator(3))(ones((9, 2))).sum(1).tolist()))
    [0.0, 4.0]
    """

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """One number per example.

        x: the input, with the batch as its first axis.
        """
        if x.ndim < 1:
            raise ValueError("DropPath: expected (batch, ...), got a number")
        return (len(x), *[1] * (x.ndim - 1))
