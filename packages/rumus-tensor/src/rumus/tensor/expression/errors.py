"""What goes wrong, as types. Every error of gradients and ownership is an `AutogradError`."""

from __future__ import annotations

from rumus.tensor.expression.printable import PrintableError


class AutogradError(PrintableError, RuntimeError):
    """A gradient or a parameter was used in a way that the laws of ownership forbid."""


class GraphError(AutogradError):
    """`backward` was asked of something that it cannot be asked of: no graph, no scalar, twice."""


class ModifiedTensorError(AutogradError):
    """A tensor that backward needs was changed in place after the forward pass read it."""


class OwnershipError(AutogradError):
    """A parameter already has an owner, or is given twice to one owner."""


class MissingGradientError(AutogradError):
    """A parameter that an optimizer owns has no gradient in the store."""


class DrainedGradientError(MissingGradientError):
    """The gradient was there, and an optimizer has already drained it from this store."""


class UnclaimedGradientError(AutogradError):
    """A loop was declared finished with gradients left over that nobody drained."""


class GradientMismatchError(AutogradError):
    """A gradient has another shape, dtype or backend than its parameter."""


class NonFiniteGradientError(AutogradError):
    """A gradient holds NaN or infinity, and the optimizer was told to raise."""


class BackendMismatchError(AutogradError):
    """Tensors of two backends met in one operation or in one parameter group."""


class PrecisionError(AutogradError):
    """A parameter of low precision without a float32 master copy cannot be trained."""


class CaptureError(PrintableError, RuntimeError):
    """A training step does something that cannot be recorded and repeated."""


class ClosureNeededError(AutogradError):
    """An optimizer that computes the loss several times in a step was given gradients alone."""


class StateMismatchError(PrintableError, ValueError):
    """A saved state does not fit what it is loaded into; the message lists every difference."""
