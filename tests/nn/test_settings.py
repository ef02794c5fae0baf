"""Attributes of layers that are assigned after construction: checked, or refused where unread."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.tensor import Generator, Parameter, float32, ones, tensor, zeros

# What the constructor reads, and nothing after it.
DECIDED: Final[list[tuple[Callable[[], Any], str, Any]]] = [
    (lambda: nn.Linear(2, 3), "inputs", 5),
    (lambda: nn.Linear(2, 3), "outputs", 3),
    (lambda: nn.Conv2d(2, 2, 3), "kernel", (5, 5)),
    (lambda: nn.Conv1d(2, 2, 3), "groups", 2),
    (lambda: nn.Conv1d(2, 2, 3), "padding", "same"),
    (lambda: nn.Conv1d(2, 2, 3), "axes", 2),
    (lambda: nn.ConvTranspose1d(2, 2, 3), "inputs", 4),
    (lambda: nn.LSTM(2, 3), "hidden", 5),
    (lambda: nn.LSTM(2, 3), "layers", 2),
    (lambda: nn.GRU(2, 3), "bidirectional", True),
    (lambda: nn.RNN(2, 3), "kind", "rnn_relu"),
    (lambda: nn.GRU(2, 3), "has_bias", False),
    (lambda: nn.Embedding(4, 2), "count", 8),
    (lambda: nn.Embedding(4, 2), "size", 8),
    (lambda: nn.MultiHeadAttention(8, 2), "heads", 4),
    (lambda: nn.MultiHeadAttention(8, 2), "kv_heads", 1),
    (lambda: nn.RotaryEmbedding(4), "base", 500_000.0),
    (lambda: nn.LayerNorm(3), "normalized_shape", (4,)),
    (lambda: nn.RMSNorm(3), "normalized_shape", (4,)),
    (lambda: nn.GroupNorm(1, 4), "groups", 2),
    (lambda: nn.BatchNorm1d(3), "channels", 4),
    (lambda: nn.BatchNorm1d(3), "momentum", None),
    (lambda: nn.PReLU(3), "count", 1),
    (lambda: nn.LayerNorm(3, bias=False), "bias", True),
    (lambda: nn.FrozenLinear(nn.Linear(2, 2)), "storage", "8bit"),
    (lambda: nn.LoraLinear(nn.Linear(2, 2), 1), "rank", 2),
]


@pytest.mark.parametrize(("make", "name", "value"), DECIDED, ids=[row[1] for row in DECIDED])
def test_what_nothing_reads_is_refused(make: Callable[[], Any], name: str, value: Any) -> None:
    layer = make()
    before = repr(layer)
    kind = type(layer).__name__
    with pytest.raises(
        AttributeError, match=rf"^{kind}\.{name} is decided when .* make another {kind}$"
    ):
        setattr(layer, name, value)
    assert repr(layer) == before


# What is read at each call, with values that the constructor takes or refuses.
READ: Final[list[tuple[Callable[[], Any], str, Any, Any, str]]] = [
    (nn.Dropout, "p", 0.25, 2.0, r"Dropout: p must be in \[0, 1\], not 2.0"),
    (nn.Dropout2d, "p", 1, float("nan"), r"Dropout2d: p must be in \[0, 1\], not nan"),
    (nn.DropPath, "p", np.float32(0.5), "no", "DropPath: p must be a number, not 'no'"),
    (nn.Dropout, "generator", Generator(1), 3, "Dropout: generator must be a Generator.*, not 3"),
    (lambda: nn.LayerNorm(3), "eps", 1e-6, 0.0, "LayerNorm: eps must be finite and positive"),
    (lambda: nn.RMSNorm(3), "eps", 1e-6, float("inf"), "RMSNorm: eps must be finite and positive"),
    (lambda: nn.GroupNorm(1, 3), "eps", 1e-6, -1, "GroupNorm: eps must be finite and positive"),
    (lambda: nn.BatchNorm1d(3), "eps", 1e-6, "1", "BatchNorm1d: eps must be a number, not '1'"),
    (lambda: nn.BatchNorm2d(3), "momentum", 0.5, 1.5, r"momentum must be in \[0, 1\], or None"),
    (lambda: nn.Conv2d(2, 2, 3), "stride", 2, 0, "Conv2d: stride needs 2 sizes of at least 1"),
    (lambda: nn.Conv2d(2, 2, 3), "padding", (1, 0), (1,), "Conv2d: padding needs 2 sizes"),
    (lambda: nn.Conv2d(2, 2, 3), "dilation", 2, 1.5, "Conv2d: dilation must be whole numbers"),
    (lambda: nn.ConvTranspose1d(2, 2, 3), "output_padding", 1, -1, "sizes of at least 0"),
    (lambda: nn.MaxPool2d(2), "kernel", 3, 0, "MaxPool2d: kernel needs one or two sizes"),
    (lambda: nn.MaxPool2d(4, padding=2), "kernel", 5, 2, "more than half of the kernel"),
    (lambda: nn.AvgPool1d(2), "padding", 1, 2, "more than half of the kernel"),
    (lambda: nn.AvgPool1d(2), "stride", 1, "2", "AvgPool1d: stride must be .*whole number"),
    (lambda: nn.MaxPool1d(2), "ceil_mode", True, "no", "ceil_mode must be True or False"),
    (lambda: nn.AdaptiveAvgPool2d(2), "size", None, -1, "size needs one or two sizes"),
    (lambda: nn.AdaptiveMaxPool1d(2), "size", 3, (3, 3), "size needs one size"),
    (nn.GlobalAvgPool, "keepdims", True, 1, "keepdims must be True or False, not 1"),
    (lambda: nn.Upsample(2), "mode", "linear", "cubic", "Upsample: mode must be 'nearest'"),
    (lambda: nn.Upsample(2), "size", 3, -1, "Upsample: size must be positive and finite"),
    (lambda: nn.Upsample(2), "scale_factor", None, 2.0, "give size or scale_factor, one of"),
    (lambda: nn.PixelShuffle(2), "factor", 3, 0, "PixelShuffle: the factor must be at least 1"),
    (lambda: nn.PixelUnshuffle(2), "factor", 1, 1.5, "factor must be a whole number, not 1.5"),
    (lambda: nn.Embedding(4, 2), "padding_idx", -1, 4, r"padding_idx 4 is outside \[-4, 4\)"),
    (lambda: nn.MultiHeadAttention(8, 2), "causal", True, "no", "causal must be True or False"),
    (
        lambda: nn.MultiHeadAttention(8, 2),
        "rotary",
        nn.RotaryEmbedding(4),
        nn.RotaryEmbedding(8),
        "rotary of size 8 for heads of 4",
    ),
    (
        lambda: nn.MultiHeadAttention(8, 2),
        "rotary",
        None,
        nn.RotaryEmbedding,
        r"rotary must be RotaryEmbedding\(4\) or None",
    ),
    (nn.LeakyReLU, "slope", 0.2, float("nan"), "LeakyReLU: slope must be finite, not nan"),
    (nn.ELU, "alpha", 2, float("inf"), "ELU: alpha must be finite, not inf"),
    (nn.CELU, "alpha", 2, 0, "CELU: alpha must be finite and positive, not 0"),
    (nn.Hardtanh, "low", -float("inf"), 1.0, "low must be below high, not 1.0 and 1.0"),
    (nn.Hardtanh, "high", 2, float("nan"), "Hardtanh: high must be a limit, not nan"),
    (nn.GELU, "approximate", "tanh", "erf", "approximate must be 'none' or 'tanh', not 'erf'"),
    (nn.Softmax, "axis", 0, 0.5, "Softmax: axis must be a whole number, not 0.5"),
    (nn.LogSoftmax, "axis", np.int64(0), "1", "LogSoftmax: axis must be a whole number"),
    (nn.GLU, "axis", 0, None, "GLU: axis must be a whole number, not None"),
    (nn.Flatten, "start", 2, "1", "Flatten: start must be a whole number, not '1'"),
    (lambda: nn.LoraLinear(nn.Linear(2, 2), 1), "scale", 2, float("nan"), "must be finite"),
]


@pytest.mark.parametrize(
    ("make", "name", "right", "wrong", "message"), READ, ids=[row[4] for row in READ]
)
def test_what_each_call_reads_is_checked(
    make: Callable[[], Any], name: str, right: Any, wrong: Any, message: str
) -> None:
    layer = make()
    setattr(layer, name, right)
    before = getattr(layer, name)
    with pytest.raises((TypeError, ValueError), match=message):
        setattr(layer, name, wrong)
    assert getattr(layer, name) is before
    assert getattr(copy.deepcopy(layer), name) == before or not isinstance(before, (int, float))


def test_a_setting_is_kept_as_the_constructor_keeps_it() -> None:
    layer = nn.Conv2d(1, 1, 3)
    setattr(layer, "stride", 2)  # noqa: B010  # for type checkers it is always a tuple
    assert layer.stride == (2, 2)
    assert layer(ones((1, 1, 7, 7))).shape == (1, 1, 3, 3)
    pool = nn.MaxPool2d(2)
    setattr(pool, "kernel", 3)  # noqa: B010
    assert pool(ones((1, 1, 7, 7))).shape == (1, 1, 3, 3)
    table = nn.Embedding(4, 2)
    table.padding_idx = -1
    assert table.padding_idx == 3


@pytest.mark.parametrize("value", ["no", int, [1.0], nn.Linear])
def test_a_parameter_is_replaced_by_no_other_thing(value: Any) -> None:
    layer: Any = nn.Linear(2, 3)
    with pytest.raises(TypeError, match=r"Linear\.weight is a parameter, which"):
        layer.weight = value


def test_a_parameter_of_another_shape_is_refused() -> None:
    """The sizes of the layer would be those of its old one."""
    layer = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"the shape \(3, 2\), .* and not \(7, 2\): make another"):
        layer.weight = Parameter(np.zeros((7, 2)))
    layer.weight = Parameter(np.zeros((3, 2)), dtype=float32)
    assert layer(ones((1, 2))).shape == (1, 3)


def test_statistics_are_tensors() -> None:
    layer: Any = nn.BatchNorm1d(2)
    with pytest.raises(TypeError, match=r"BatchNorm1d\.running_mean is a tensor, not 0\.0"):
        layer.running_mean = 0.0
    layer.running_mean = zeros((2,))
    layer.running_var = None
    layer(tensor([[1.0, 2.0], [3.0, 5.0]]))


def test_a_module_is_replaced_by_no_class() -> None:
    layer: Any = nn.TransformerBlock(4, 2)
    with pytest.raises(
        TypeError, match=r"is a module, and ReLU a class: make one, as ReLU\(\.\.\."
    ):
        layer.feed_forward = nn.ReLU
    with pytest.raises(TypeError, match="is a module, FeedForward, and no text"):
        layer.feed_forward = "relu"


def test_layers_of_users_have_attributes_of_their_own() -> None:
    class Wide(nn.Linear):
        def __init__(self, inputs: int) -> None:
            super().__init__(2, 3)
            self.inputs = inputs
            self.settings = {"p": 2.0}

    class Model(nn.Module):
        def __init__(self) -> None:
            self.p, self.inputs = 2.0, 3

    assert Wide(7).inputs == 7
    model = Model()
    model.p, model.inputs = 3.0, 4
    assert (model.p, model.inputs) == (3.0, 4)

    class Masked(nn.Dropout):
        pass

    with pytest.raises(ValueError, match=r"Masked: p must be in \[0, 1\], not 2.0"):
        Masked().p = 2.0


ANY: Any = nn
WRONG: Final[list[tuple[Callable[[], object], str]]] = [
    (
        lambda: ANY.Sequential(nn.ReLU()).replace_child("0", nn.GELU),
        r"module must be a Module, .*\(",
    ),
    (lambda: ANY.ModuleList(3), "ModuleList takes a list of modules, not int"),
    (lambda: ANY.ModuleList(nn.ReLU()), "ModuleList takes a list of modules, not ReLU"),
    (lambda: ANY.ModuleDict([nn.ReLU()]), "ModuleDict takes modules by name, not list"),
    (
        lambda: ANY.FeedForward(2, 4, activation=nn.GELU),
        "activation must be a function such as nn.",
    ),
    (lambda: ANY.FeedForward(2, 4, activation="gelu"), "activation must be a function such as nn."),
    (
        lambda: ANY.Linear(2, 2).load_state_dict([1]),
        "load_state_dict takes arrays by name, as of s",
    ),
    (lambda: ANY.Linear(2, 2).load_weights("a.bin"), r"by name, .* not 'a.bin' \(load_file reads"),
    (
        lambda: ANY.Dropout()(ones((4,)).astype(np.int32)),
        "Dropout: the input must be floating, not",
    ),
    (
        lambda: ANY.Dropout()([1.0]),
        r"Dropout: x must be a tensor, not list: call it with tensor\(x",
    ),
    (lambda: ANY.Flatten()([[1.0]]), "Flatten: x must be a tensor, not list"),
    (lambda: ANY.Identity()(None), "Identity: x must be a tensor, not None"),
    (lambda: ANY.PReLU(1, np.nan), "PReLU: start must be finite, not nan"),
    (
        lambda: ANY.hinge_loss(ones((2,)), ones((2,)), margin=np.nan),
        "hinge_loss: margin must be fin",
    ),
    (
        lambda: ANY.triplet_margin_loss(*[ones((2, 3))] * 3, margin=np.inf),
        "triplet_margin_loss: margin must be finite and at least 0, not inf",
    ),
    # What no input fits is refused before there is one.
    (lambda: nn.Upsample(2, align_corners=True), "Upsample: align_corners needs a linear mode"),
    (
        lambda: nn.Upsample((2, 2), mode="linear"),
        r"Upsample: size \(2, 2\) needs 1 numbers for mode 'linear'",
    ),
    (
        lambda: nn.Upsample(scale_factor=(2.0, 2.0), mode="trilinear"),
        r"Upsample: scale_factor \(2.0, 2.0\) needs 3 numbers",
    ),
    (lambda: nn.Upsample(()), r"Upsample: size \(\) needs at least 1 numbers"),
    (
        lambda: nn.ConvTranspose2d(2, 2, 3, stride=(2, 1), output_padding=1),
        r"ConvTranspose2d: output_padding 1 must be in \[0, 1\), below the stride",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[row[1] for row in WRONG])
def test_what_a_layer_cannot_use_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_settings_that_need_each_other_are_assigned_in_any_order() -> None:
    layer = nn.Upsample(2)
    layer.align_corners = True
    layer.mode = "bilinear"
    assert layer(ones((1, 1, 3, 3))).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("make", "name", "meant"),
    [
        (lambda: nn.MultiHeadAttention(4, 2), "droput", "dropout"),
        (lambda: nn.LayerNorm(3), "esp", "eps"),
        (lambda: nn.Conv2d(1, 1, 3), "strid", "stride"),
        (lambda: nn.BatchNorm1d(2), "momentun", "momentum"),
        (nn.GELU, "aproximate", "approximate"),
        (lambda: nn.Linear(2, 2), "trainng", "training"),
        (lambda: nn.Linear(2, 2), "wieght", "weight"),
        (nn.Softmax, "axs", "axis"),
        (lambda: nn.Sequential(nn.ReLU()), "trainig", "training"),
    ],
)
def test_a_misspelled_setting_is_told(make: Callable[[], Any], name: str, meant: str) -> None:
    layer = make()
    with pytest.warns(UserWarning, match=f"does not read '{name}'; did you mean '{meant}'?"):
        setattr(layer, name, 0.1)


def test_a_misspelled_weight_is_told() -> None:
    """It would be a parameter more, and the layer would go on with its own."""
    layer: Any = nn.Embedding(3, 2)
    with pytest.warns(UserWarning, match="does not read 'weigth'; did you mean 'weight'?"):
        layer.weigth = Parameter(np.ones((3, 2), np.float32))


def test_attributes_of_the_users_are_theirs() -> None:
    class Own(nn.Linear):
        pass

    layers: list[Any] = [nn.Linear(2, 2), Own(2, 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in layers:
            layer.foo = layer.label = 3
            layer.output = ones((2,))  # kept by a hook
            layer.names, layer._bais, layer.depth = "a", 1, 2
        layers[1].bais = 0.5


@pytest.mark.parametrize("value", [3, "encoder", 0.5, None, [1], np.ones(2), {"a": 1}])
def test_the_users_attributes_may_change(value: object) -> None:
    layers: list[Any] = [nn.Linear(2, 2), nn.Sequential(nn.ReLU()), nn.GRU(2, 3), nn.ReLU()]
    for layer in layers:
        layer.label = 0  # as a counter, or the name in a log
        layer.label = value
        assert layer.label is value


def test_names_that_a_number_or_another_word_tells_apart_are_no_misspellings() -> None:
    layer: Any = nn.Conv2d(1, 1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.rank1, layer.rank2, layer.kernel2 = 1, 2, 3
        layer.scale_x, layer.scale_y = 1.0, 2.0
        upsample: Any = nn.Upsample(2)
        upsample.side, upsample.node = "left", 3


def test_a_misspelled_mode_of_a_users_model_is_told() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            self.hidden = nn.Linear(2, 2)

    model: Any = Own()
    with pytest.warns(UserWarning, match="Own does not read 'trainig'; did you mean 'training'?"):
        model.trainig = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.is_training = model.pretraining = model.training_ = True


def test_another_librarys_name_is_refused_where_there_is_one_here() -> None:
    layers: list[Any] = [nn.Softmax(), nn.GlobalAvgPool(), nn.Linear(2, 2)]
    with pytest.raises(AttributeError, match=r"'Softmax' .* no attribute 'dim'; here it is axis"):
        layers[0].dim = 1
    with pytest.raises(AttributeError, match="'keepdim'; here it is keepdims"):
        layers[1].keepdim = True
    layers[2].dim = layers[2].rate = 3  # no setting of a Linear by another name
