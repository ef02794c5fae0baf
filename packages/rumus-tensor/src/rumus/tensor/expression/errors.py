"""The error types. Every error about gradients and ownership is an `AutogradError`."""

from __future__ import annotations

from rumus.tensor.expression.printable import PrintableError


class AutogradError(PrintableError, RuntimeError):
    """A gradient or a parameter was used in a way that the ownership laws forbid."""


class GraphError(AutogradError):
    """`backward` cannot run: there is no graph, it is not a scalar, or it has already run."""


class ModifiedTensorError(AutogradError):
    """A tensor that backward needs was changed in place after the forward pass read it."""


class OwnershipError(AutogradError):
    """A parameter already has an owner, or is given twice to one owner."""


class MissingGradientError(AutogradError):
    """A parameter that an optimizer owns has no gradient in the store."""


class DrainedGradientError(MissingGradientError):
    """An optimizer has already drained this gradient from the store."""


class UnclaimedGradientError(AutogradError):
    """A block ended with gradients that no optimizer drained."""


class GradientMismatchError(AutogradError):
    """A gradient has another shape, dtype or backend than its parameter."""


class NonFiniteGradientError(AutogradError):
    """A gradient contains NaN or infinity, and the optimizer is set to raise."""


class BackendMismatchError(AutogradError):
    """Tensors of two backends met in one operation or in one parameter group."""


class PrecisionError(AutogradError):
    """A dtype would lose what is computed in it, or trained without a float32 master copy."""


class CaptureError(PrintableError, RuntimeError):
    """A training step does something that cannot be recorded and replayed."""


class ClosureNeededError(AutogradError):
    """An optimizer that computes the loss several times per step was given only gradients."""


class StateMismatchError(PrintableError, ValueError):
    """A saved state does not fit what it is loaded into; the message lists every difference."""
