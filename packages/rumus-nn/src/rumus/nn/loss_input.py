"""`check_input`: what a loss is given comes from the activation that it expects, or from none."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from rumus.tensor import Tensor
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.autograd import Node

Expected: TypeAlias = Literal[
    "logits of classes", "logits", "probabilities", "logarithms of probabilities"
]

OF_LOGITS: Final = "give it what the activation is applied to"
OF_LOGARITHMS: Final = "give it x.log_softmax(axis)"

# Operations after which an element is still what it was.
_MOVES: Final = frozenset(
    ("reshape", "permute", "getitem", "part", "split", "astype", "clone", "to", "gather")
)
_LOGARITHMS: Final = ("log_softmax", "log_sigmoid")
_LAYERS: Final = ("linear", "convolution", "convolution_transpose")
# What trains badly and without an error. The logarithm of a softmax is its own log-softmax.
_UNFIT: Final[dict[Expected, tuple[str, ...]]] = {
    "logits of classes": ("softmax", "sigmoid"),
    "logits": ("softmax", "sigmoid", *_LOGARITHMS),
    "probabilities": (*_LAYERS, *_LOGARITHMS),
    "logarithms of probabilities": ("softmax", "sigmoid", *_LAYERS),
}


def check_input(loss: str, x: Tensor, expected: Expected, instead: str) -> None:
    """Warn of an input that comes from what gives no such numbers.

    The tape knows where it comes from, so that evaluations and replayed steps ask nothing.

    loss: the name of the loss.
    x: its input.
    expected: what it is to be.
    instead: what to give; in the message.
    """
    node = x._node
    while node is not None and node.name in _MOVES:
        before = node.inputs[0]
        node = before if isinstance(before, Node) else None
    name = "" if node is None else node.name.rpartition(" ")[2]  # of "linear and sigmoid"
    if name == "softmax" and x.ndim == 2 and x.shape[1] == 1 < len(x):
        warn_user(
            f"{loss} is given a softmax of one output, which is 1 whatever the model computes: a "
            "sigmoid gives one probability"
        )
    if name in _UNFIT[expected]:
        warn_user(
            f"{loss} expects {expected}, and is given the result of {name}, with which it "
            f"trains badly: {instead}"
        )


def check_classes(loss: str, x: Tensor, axis: int) -> None:
    """Warn of a single class while something is to learn from several samples.

    One sample has one class where classes are the others of its batch.

    loss: the name of the loss.
    x: its input.
    axis: of the classes.
    """
    if x.requires_grad and x.shape[axis] == 1 < x.size:
        warn_user(
            f"{loss} of one class is the same whatever the model computes: give an output to each "
            "class, or use binary_cross_entropy_with_logits for a single output"
        )
