"""PyTorch and Keras habits: refused at once, with what to write instead."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pytest

import rumus.nn.other_names as of_nn
import rumus.optim
import rumus.tensor
import rumus.train
import rumus.train.metrics
from rumus import nn
from rumus.nn.other_names import LAYER, MODULE, NN
from rumus.optim import (
    EMA,
    LBFGS,
    SAM,
    SGD,
    Accumulation,
    AdamW,
    LossScale,
    ParameterGroup,
    Plateau,
    clip_grad_norm,
    cosine,
    one_cycle,
    step_decay,
)
from rumus.optim.options import other_names as of_optim
from rumus.optim.options.other_names import GROUP, OPTIMIZER, SCHEDULE
from rumus.tensor import (
    Generator,
    GradientMismatchError,
    GradientStore,
    OwnershipError,
    Parameter,
    Tensor,
    no_grad,
    tensor,
)
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.other_names import OtherNames
from rumus.tensor.graph import other_names as of_tensor
from rumus.tensor.graph.evaluation import evaluating
from rumus.tensor.graph.other_names import AXIS, TENSOR
from rumus.train import (
    ArrayDataset,
    Callback,
    Checkpoints,
    DataLoader,
    EarlyStopping,
    Every,
    LengthBuckets,
    StreamLoader,
    Subset,
    Trainer,
    Training,
    WeightedSampler,
)
from rumus.train.base import other_names as of_train


def _optimizer() -> Any:
    return AdamW([Parameter([1.0], name="w")])


@pytest.mark.parametrize("name", OPTIMIZER.rows)
def test_names_of_an_optimizer(name: str) -> None:
    optimizer = _optimizer()
    for act in (lambda: getattr(optimizer, name), lambda: setattr(optimizer, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            act()


@pytest.mark.parametrize("name", GROUP.rows)
def test_names_of_a_group(name: str) -> None:
    group: Any = ParameterGroup([Parameter([1.0], name="w")])
    for act in (lambda: getattr(group, name), lambda: setattr(group, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            act()


@pytest.mark.parametrize("name", TENSOR.rows)
def test_names_of_a_tensor(name: str) -> None:
    for value in (tensor([1.0]), Parameter([1.0])):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            getattr(value, name)


@pytest.mark.parametrize("name", NN.rows)
def test_names_of_layers(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
        getattr(nn, name)


@pytest.mark.parametrize("name", MODULE.rows)
def test_names_of_a_module(name: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    models: tuple[nn.Module, ...] = (Net(), nn.Sequential(nn.Linear(2, 2)), nn.ModuleList())
    for model in models:
        with pytest.raises(AttributeError, match=rf"object has no attribute '{name}'; here it is "):
            getattr(model, name)
        assert not hasattr(model, name)


TABLES: Final = [
    value
    for module in (of_tensor, of_optim, of_train, of_nn)
    for value in vars(module).values()
    if isinstance(value, OtherNames)
]
PLACES: Final = {
    "nn": nn, "rumus.tensor": rumus.tensor, "rumus.optim": rumus.optim, "rumus.train": rumus.train,
    "images": rumus.train.images, "model": nn.Linear(2, 2), "x": tensor([[1.0]]),
    "trainer": Trainer(AdamW([Parameter([1.0])])),
}  # fmt: skip
WORD: Final = re.compile(
    r"(?<![\w.])(nn|rumus\.tensor|rumus\.optim|rumus\.train|images|model|x|trainer)\.(\w+)"
)


@pytest.mark.parametrize(
    ("place", "name"),
    sorted({found for t in TABLES for advice in t.rows.values() for found in WORD.findall(advice)}),
)
def test_the_advice_names_existing_things(place: str, name: str) -> None:
    if (place, name) != ("model", "name"):
        is_module = place.startswith("rumus.") and find_spec(f"{place}.{name}") is not None
        assert hasattr(PLACES[place], name) or is_module


def test_a_name_of_a_module_that_is_nearly_right() -> None:
    layer: Any = nn.Linear(2, 2)
    with pytest.raises(
        AttributeError, match=r"^'Linear' object has no attribute 'wieght'$"
    ) as said:
        layer.wieght  # noqa: B018
    assert (said.value.name, said.value.obj) == ("wieght", layer)


def test_an_unknown_name_is_reported() -> None:
    with pytest.raises(AttributeError, match=r"'color'$"):
        _optimizer().color  # noqa: B018


@pytest.mark.parametrize("make", [np.ones, lambda shape: tensor(np.ones(shape))])
def test_a_parameter_is_not_replaced(make: Callable[[Any], Any]) -> None:
    layer: Any = nn.Linear(4, 2)
    before = layer.weight
    with pytest.raises(TypeError, match=r"weight\.assign\(value\)"):
        layer.weight = make((2, 4))
    assert layer.weight is before
    layer.weight = Parameter(np.zeros((2, 4)))  # tied or new: that is intended
    assert len(layer.parameters()) == 2


LAYERS: Final[dict[str, tuple[Callable[[], Any], tuple[int, ...]]]] = {
    "linear": (lambda: nn.Linear(4, 3), (8, 4)),
    "sequential": (lambda: nn.Sequential(nn.Linear(4, 3)), (8, 4)),
    "conv": (lambda: nn.Conv2d(1, 2, 3), (2, 1, 5, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_says_that_it_takes_tensors(name: str) -> None:
    make, shape = LAYERS[name]
    with pytest.raises(TypeError, match=r"NumPy array: call it with tensor\(x\)"):
        make()(np.ones(shape, np.float32))


@pytest.mark.parametrize("thing", [nn.Linear(4, 3), tensor([1.0])])
@pytest.mark.parametrize("wrong", ["cuda", rumus.tensor.float16])
def test_devices_are_no_strings(thing: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"to_gpu\(\) .*dtype is changed by astype\(\)"):
        thing.to(wrong)


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_a_shape_is_one_tuple(name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"^{name} takes the shape as one tuple: {name}\(\(2, 3\)\)"
    ):
        getattr(rumus.tensor, name)(2, 3)


def test_groups_are_no_dicts() -> None:
    groups: Any = [{"params": [Parameter([1.0])], "lr": 0.1}]
    with pytest.raises(TypeError, match=r"item 0 is a dict: write it as ParameterGroup\("):
        SGD(groups, 0.1)


def test_rerunning_a_cell_shows_the_line_to_write() -> None:
    model = nn.Linear(2, 2)
    first = SGD(model.parameters(), 0.1)
    with pytest.raises(OwnershipError, match=r"parameters\.release\(\)"):
        SGD(model.parameters(), 0.1)
    model.parameters().release()
    second = SGD(model.parameters(), 0.1)
    assert (len(first.parameters), len(second.parameters)) == (0, 2)


def test_freezing_an_owned_parameter_says_what_to_do() -> None:
    model = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), 0.1)
    loss = (model.weight * 1.0).sum()
    model.freeze()
    with pytest.raises(Exception, match="optional=True"):
        optimizer.step(loss.backward())


def test_a_trainer_takes_an_optimizer() -> None:
    model: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="Trainer takes an optimizer, not Linear"):
        Trainer(model)


def test_two_parameters_of_one_name_are_refused_before_the_first_step(tmp_path: Path) -> None:
    encoder, decoder = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(3, 4))
    optimizer = AdamW([*encoder.parameters(), *decoder.parameters()])
    calls = []

    def loss(x: Tensor) -> Tensor:
        calls.append(1)
        return nn.mse_loss(decoder(encoder(x)), x)

    trainer = Trainer(optimizer, state={"encoder": encoder, "decoder": decoder})
    with pytest.raises(ValueError, match=r"several parameters are named '0\.weight'"):
        trainer.fit([(np.ones((8, 4), np.float32),)], loss, epochs=1, checkpoints=tmp_path)
    assert not calls


# Module names, keywords, and attributes that nothing reads

MODULES: Final = [
    (module, name)
    for module, table in (
        (rumus.tensor, of_tensor.MODULE),
        (rumus.optim, of_optim.MODULE),
        (rumus.train, of_train.MODULE),
        (rumus.train.images, of_train.IMAGES),
        (rumus.train.metrics, of_train.METRICS),
    )
    for name in table.rows
]


@pytest.mark.parametrize(("module", "name"), MODULES)
def test_names_of_modules(module: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
        getattr(module, name)
    assert name not in module.__all__


OBJECTS: Final[dict[str, tuple[Callable[[], Any], OtherNames]]] = {
    "dataset": (lambda: ArrayDataset(np.ones((4, 2))), of_train.DATASET),
    "subset": (lambda: Subset(ArrayDataset(np.ones((4, 2))), [0]), of_train.DATASET),
    "sampler": (lambda: WeightedSampler([1.0, 1.0]), of_train.SAMPLER),
    "buckets": (lambda: LengthBuckets([1, 2]), of_train.SAMPLER),
    "loader": (lambda: _loader(), of_train.LOADER),
    "stream": (lambda: StreamLoader([1.0], 1), of_train.LOADER),
    "trainer": (lambda: _trainer(), of_train.TRAINER),
    "training": (
        lambda: Training(_trainer(), _loader(), lambda x: x.sum(), epochs=1),
        of_train.TRAINING,
    ),
    "stopping": (EarlyStopping, of_train.CALLBACK),
    "generator": (lambda: Generator(0), of_tensor.GENERATOR),
    "parameters": (lambda: nn.Linear(2, 2).parameters(), of_tensor.PARAMETERS),
    "average": (EMA, of_optim.AVERAGE),
    "plateau": (lambda: Plateau(0.1), of_optim.PLATEAU),
    "accumulation": (Accumulation, of_optim.ACCUMULATION),
}


@pytest.mark.parametrize(
    ("thing", "name"), [(thing, name) for thing, (_, t) in OBJECTS.items() for name in t.rows]
)
def test_names_of_objects(thing: str, name: str) -> None:
    made = OBJECTS[thing][0]()
    for act in (lambda: getattr(made, name), lambda: setattr(made, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            act()


RESULT: Final = rumus.train.Result("epochs", 1, 1, 0.0, [{"loss": 1.0}], {}, None, None, None)


@pytest.mark.parametrize("name", of_train.RESULT.rows)
def test_names_of_a_result(name: str) -> None:
    for act in (lambda: getattr(RESULT, name), lambda: setattr(RESULT, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'"):
            act()
    with pytest.raises(AttributeError, match="; here it is "):
        getattr(RESULT, name)


X: Final[Any] = tensor([[1.0, 2.0]])
HABITS: Final[list[tuple[Callable[[], Any], type[Exception], str]]] = [
    (lambda: setattr(X, "requires_grad", True), AttributeError, r"make Parameter\(x\.numpy\(\)\)"),
    (lambda: np.sum(X), TypeError, r"takes no 'out'; here it is a method: x\.sum\(\)"),
    (lambda: _optimizer().groups.append(1), AttributeError, "'tuple' object has no attribute"),
    (
        lambda: DataLoader(any_of({"x": np.ones(2)}), 1),
        TypeError,
        r"not a dict of arrays: ArrayDataset\(\*data\.values\(\)\)",
    ),
    (
        lambda: DataLoader(any_of((np.ones((2, 1)), np.ones((2, 1)))), 1),
        TypeError,
        r"not a tuple of arrays: ArrayDataset\(\*arrays\)",
    ),
]


def any_of(value: Any) -> Any:
    return value


@pytest.mark.parametrize(("act", "error", "message"), HABITS, ids=[row[2] for row in HABITS])
def test_habits(act: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        act()


def test_parameters_are_found_by_name_and_position() -> None:
    model = nn.Linear(2, 2)
    found = model.parameters()
    assert found[0] is found["weight"] is model.weight
    assert found[-1] is model.bias
    with pytest.raises(KeyError):
        found["wieght"]
    with pytest.raises(IndexError):
        found[2]


@pytest.mark.parametrize("ask", ["evaluate", "predict"])
def test_a_function_of_other_arguments_than_a_batch_says_what_it_was_given(ask: str) -> None:
    data = [(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))]
    act = getattr(_trainer(), ask)
    with pytest.raises(TypeError, match="positional argument") as told:
        act(data, lambda batch: batch[0])
    assert "is called with the 2 fields of a batch, one by one" in told.value.__notes__[0]
    inner: Any = lambda batch: batch
    with pytest.raises(TypeError, match="positional argument") as told:
        act(data, lambda x, y: inner(x, y))
    assert not hasattr(told.value, "__notes__")


@pytest.mark.parametrize("name", of_train.OF_METRIC.rows)
def test_keywords_of_a_metric(name: str) -> None:
    metrics: Any = rumus.train.metrics
    for act in (metrics.accuracy, metrics.f1, metrics.confusion_matrix):
        with pytest.raises(TypeError, match=rf"a metric takes no '{name}'; here it is "):
            act(np.ones((2, 2)), np.array([0, 1]), **{name: 1})


@pytest.mark.parametrize("name", of_tensor.DRAW.rows)
def test_keywords_of_a_draw(name: str) -> None:
    generator: Any = Generator(0)
    for act in (generator.normal, generator.uniform, generator.words):
        with pytest.raises(TypeError, match=rf"a draw takes no '{name}'; here it is "):
            act((2,), **{name: 1})
    assert generator.position == 0


@pytest.mark.parametrize("name", of_train.METRIC.rows)
def test_names_of_a_metric(name: str) -> None:
    found = rumus.train.metrics.accuracy(np.ones((2, 2)), np.array([0, 1]))
    for act in (lambda: getattr(found, name), lambda: setattr(found, name, 0.0)):
        with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
            act()


def test_a_gradient_is_written_before_the_step() -> None:
    """As p.grad *= 0.5, and p.grad[0] = 0."""
    model: Any = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), 1.0)  # whose memory the gradients are in
    before = model.weight.numpy().copy(), model.bias.numpy().copy()
    grads = (model.weight.sum() * 2 + model.bias.sum() * 4).backward()
    grads[model.weight] *= 0.5
    grads[model.bias] = tensor([3.0, 0.0])
    optimizer.step(grads)
    np.testing.assert_allclose(model.weight.numpy(), before[0] - 1)
    np.testing.assert_allclose(model.bias.numpy(), before[1] - [3, 0])
    grads = (model.weight.sum() * 2).backward()
    grads[model.bias] = tensor([1.0, 1.0])
    assert grads[model.bias].tolist() == [1, 1]
    wrong: Any = grads
    for value, told in ((0.5, "a gradient is a tensor, not 0.5"), (np.ones(2), "not ndarray")):
        with pytest.raises(TypeError, match=told):
            wrong[model.bias] = value
    with pytest.raises(TypeError, match="by parameter, as grads"):
        wrong["bias"] = tensor([1.0, 1.0])
    with pytest.raises(GradientMismatchError, match="has shape"):
        grads[model.bias] = tensor([1.0])


@pytest.mark.parametrize("name", of_tensor.STORE.rows)
def test_names_of_a_store(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
        getattr(GradientStore(), name)


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_has_no_attribute_that_nothing_reads(name: str) -> None:
    made = OBJECTS[name][0]()
    with pytest.raises(AttributeError, match=r"has no attribute 'color'$"):
        made.color = 1
    assert not hasattr(made, "color")
    made._color = 1  # a name that begins so is anybody's


def test_users_classes_have_any_attributes() -> None:
    class Pictures(ArrayDataset):
        def __init__(self) -> None:
            super().__init__(np.ones((4, 2)))
            self.transform = None

    class Stopping(EarlyStopping):
        pass

    class Noisy(SGD[Any]):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, 0.1)
            self.params, self.decay = list(parameters), 0.5

    pictures: Any = Pictures()
    pictures.transform, pictures.classes = len, ["a"]
    stopping: Any = Stopping()
    stopping.order, stopping.trainer = 7, "mine"
    assert (pictures.classes, stopping.order, stopping.trainer) == (["a"], 7, "mine")
    assert Noisy([Parameter([1.0])]).decay == 0.5
    assert copy.copy(pictures).classes == ["a"]
    for each in (ArrayDataset([1.0]), LengthBuckets([1]), Generator(3)):
        assert vars(pickle.loads(pickle.dumps(each))).keys() == vars(each).keys()


def test_every_public_class_is_closed() -> None:
    """All but protocols, errors, parts of backends and what `fit` makes."""
    open_ones = set()
    for module in (rumus.tensor, rumus.optim, rumus.train):
        for name in module.__all__:
            kind = getattr(module, name)
            if not isinstance(kind, type) or issubclass(kind, BaseException):
                continue
            is_closed = kind.__setattr__ is not object.__setattr__ or "__slots__" in vars(kind)
            if not is_closed and not getattr(kind, "_is_protocol", False):
                open_ones.add(name)
    assert open_ones <= {
        "Arena", "Kernel", "LocalFileSystem", "NumbaBackend", "NumpyBackend",  # parts of backends
        "Options", "PresetOptions",  # of type checkers
        "Run", "Running", "Scaling",  # made by what they belong to
    }  # fmt: skip


def test_a_step_without_gradients_says_what_to_pass() -> None:
    w = Parameter([1.0], name="w")
    optimizer: Any = AdamW([w])
    needs = r"needs 'grads': what loss\.backward\(\) returned"
    made: Any
    for made in (optimizer, SAM(optimizer), LBFGS([Parameter([1.0])])):
        with pytest.raises(TypeError, match=needs):
            made.step()
    with pytest.raises(TypeError, match=r"no 'closure'; here it is minimize_step\(closure\)"):
        optimizer.step(closure=lambda: None)
    with pytest.raises(TypeError, match="needs 'closure': a function without arguments"):
        SAM(optimizer).minimize_step()  # type: ignore[call-arg]


def test_gradients_are_found_by_parameter() -> None:
    w = Parameter([1.0], name="w")
    grads: Any = w.sum().backward()
    with pytest.raises(TypeError, match=r"by parameter, as grads\[model\.weight\], not by str"):
        grads["w"]
    clip: Any = clip_grad_norm
    for given in (([w], 1.0), (grads, 1.0)):
        with pytest.raises(TypeError, match=r"clip_grad_norm\(grads, optimizer, max_norm\)"):
            clip(*given)


@pytest.mark.parametrize("name", [*of_train.HEARD.rows, "on_setp_end", "on_epoch_ends"])
def test_a_callback_with_a_method_that_no_event_calls(name: str) -> None:
    kind = type("Own", (Callback,), {name: lambda self, event: None, "on_disk": lambda self: None})
    w = Parameter([1.0])
    with pytest.raises(TypeError, match=rf"Own\.{name} is called by no event; here it is on_"):
        Trainer(SGD([w], 0.1)).fit([()], lambda: w.sum(), epochs=1, callbacks=[kind()])


def test_a_callback_with_a_method_of_its_own() -> None:
    class Own(Callback):
        def on_step_end(self, event: Any) -> None:
            self.on_third(event)

        def on_third(self, event: Any) -> None:
            """Called above."""

        def on_disk(self) -> None:
            """Takes no event."""

    class Never(Own):
        def on_checkpoint_saved(self, event: Any) -> None:
            """Is named like the event's class."""

    w = Parameter([1.0])
    trainer = Trainer(SGD([w], 0.1))
    trainer.fit([()], lambda: w.sum(), epochs=1, callbacks=[Own()])
    told = r"Never\.on_checkpoint_saved is called by no event, .* on_checkpoint,"
    with pytest.warns(UserWarning, match=told):
        trainer.fit([()], lambda: w.sum(), epochs=1, callbacks=[Never()])


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (rumus.optim.cosine, r"'steps'.*write lr=cosine\(\.\.\.\)"),
        (lambda: 0.1, "cannot be called with a step"),
        (Plateau, r"make it, as lr=Plateau\(\.\.\.\)"),
    ],
)
def test_a_rate_that_is_no_function_of_the_step(rate: Any, told: str) -> None:
    optimizer = _optimizer()
    for act in (lambda: AdamW([Parameter([1.0])], rate), lambda: optimizer.set(lr=rate)):
        with pytest.raises(TypeError, match=told):
            act()
    optimizer.set(lr=np.reciprocal)  # written in C, without a signature
    optimizer.set(lr=lambda step, scale=0.1: scale / step)


@pytest.mark.parametrize("average", [EMA, 0.99])
def test_an_average_is_made(average: Any) -> None:
    with pytest.raises(TypeError, match=r"average must be EMA\(\.\.\.\), SWA"):
        AdamW([Parameter([1.0])], average=average)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda model: model, r"not Linear: pass model\.parameters\(\)"),
        (lambda model: model.parameters, r"call it: model\.parameters\(\)"),
        (lambda model: model.named_parameters(), r"item 0 is a tuple: pass model\.parameters\(\)"),
    ],
)
def test_an_optimizer_takes_parameters(given: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        AdamW(given(nn.Linear(2, 2)))


def test_a_loss_function_returns_no_tuple() -> None:
    w = Parameter([1.0])
    wrong: Any = lambda: (w.sum(), 1)
    with pytest.raises(TypeError, match=r"not tuple: in a Trainer, \{'loss': loss"):
        Trainer(SGD([w], 0.1)).train_step(wrong)


class OfTorch:
    """An array of another library."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.ones((2, 2), np.float32)


@pytest.mark.parametrize("x", [OfTorch(), [[1.0, 2.0]], ((1.0, 2.0),)])
@pytest.mark.parametrize("is_dict", [False, True])
def test_a_batch_of_another_library_is_named(x: Any, *, is_dict: bool) -> None:
    model = nn.Linear(2, 1)
    trainer = Trainer(SGD(model.parameters(), 0.1))
    batch = {"x": x, "y": np.ones(2)} if is_dict else (x, np.ones(2))
    for loss in (lambda x, y: model(x).mean(), lambda x, y: x.mean() * model.weight.sum()):
        with pytest.raises((TypeError, AttributeError)) as raised:
            trainer.fit([batch], loss, epochs=1)
        told = "".join(raised.value.__notes__)
        assert f"the batch holds {shown(x)}, which the loss function gets as it is" in told
        assert "let the loader yield numpy.asarray(x)" in told


def test_a_mode_is_true_or_false() -> None:
    layer: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="training must be True or False, not 'no'"):
        layer.training = "no"
    layer.training = False


@pytest.mark.parametrize("is_evaluating", [False, True])
def test_a_mode_that_is_set_is_that_of_all_modules_within(*, is_evaluating: bool) -> None:
    """In PyTorch layers stay as they are, so that `model.training = before` leaves them so."""
    model = nn.Sequential(nn.Sequential(nn.Dropout()), nn.BatchNorm1d(2))
    model[1].eval()
    with evaluating() if is_evaluating else nullcontext():
        model.training = is_evaluating
        assert {module.training for module in model.modules()} == {is_evaluating}
    model.training = True
    model[1].training = False
    assert [module.training for module in model.modules()] == [True, True, True, False]

    class Own(nn.Sequential):
        def train(self, mode: bool = True) -> Self:
            self.training = mode
            self[1].eval()
            return self

    own = Own(nn.Dropout(), nn.BatchNorm1d(2)).train()
    assert [module.training for module in own.modules()] == [True, True, False]


def test_a_sampler_is_made() -> None:
    with pytest.raises(TypeError, match="not a class"):
        _loader(sampler=WeightedSampler)


@pytest.mark.parametrize("given", [1.0, "w", _optimizer()])
def test_backward_adds_to_a_store(given: Any) -> None:
    w = Parameter([1.0], name="w")
    with pytest.raises(TypeError, match="backward adds to a GradientStore, given as into="):
        w.sum().backward(given)


def test_a_second_sam_has_its_own_radius() -> None:
    """It has no state, so there may be several; a second Lookahead would have the state twice."""

    def stepped(*radii: float) -> Any:
        w = Parameter([1.0, -2.0], name="w")
        base = SGD([w], 0.1, momentum=0.9)
        several = {radius: SAM(base, radius) for radius in radii}
        for radius in (0.5, 0.05, 0.5):
            one = several.get(radius) or SAM(base, radius)
            one.minimize_step(lambda: (w * w * w).sum())
        return w.numpy().tobytes()

    assert stepped(0.5, 0.05) == stepped()


def _loader(**options: Any) -> Any:
    return DataLoader(ArrayDataset(np.ones((4, 2), np.float32)), 2, **options)


def _trainer(**options: Any) -> Any:
    return Trainer(_optimizer(), **options)


def _fit(**options: Any) -> Any:
    return _trainer().fit([], lambda: None, **options)


def _method(name: str) -> Callable[..., Any]:
    return lambda **options: getattr(tensor([1.0]), name)(**options)


def _maker(name: str) -> Callable[..., Any]:
    return lambda **options: getattr(rumus.tensor, name)([1], **options)


REDUCTIONS: Final = (
    "sum", "mean", "max", "min", "var", "argmax", "squeeze", "unsqueeze", "softmax", "log_softmax",
    "logsumexp", "std", "norm", "prod", "any", "all", "argmin", "cumsum", "sort", "argsort",
    "topk",
)  # fmt: skip
CALLS: Final[dict[str, tuple[Callable[..., Any], OtherNames]]] = {
    "loader": (_loader, of_train.LOADER_OPTIONS),
    "trainer": (_trainer, of_train.TRAINER_OPTIONS),
    "fit": (_fit, of_train.FIT),
    "stopping": (EarlyStopping, of_train.STOPPING),
    **{name: (_maker(name), of_tensor.CREATION) for name in ("tensor", "zeros", "ones", "arange")},
    **{name: (_maker(name), of_tensor.JOINING) for name in ("stack", "concat")},
    "checkpoints": (lambda **given: Checkpoints("folder", **given), of_train.CHECKPOINTS_OPTIONS),
    "backward": (lambda **given: Parameter([1.0]).sum().backward(**given), of_tensor.BACKWARD),
    "clip": (
        lambda **given: clip_grad_norm(GradientStore(), _optimizer(), 1.0, **given),
        of_optim.CLIPPING,
    ),
    "layer": (lambda **given: nn.Linear(2, 2, **given), LAYER),
    "optimizer": (lambda **given: SGD([Parameter([1.0])], 0.1, **given), of_optim.OPTIONS),
    "model": (lambda **given: nn.Linear(2, 2).load_state_dict({}, **given), of_optim.STATE),
    "state": (lambda **given: _optimizer().load_state_dict({}, **given), of_optim.STATE),
    **{name: (_method(name), AXIS) for name in REDUCTIONS},
}


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, (_, table) in CALLS.items() for name in table.rows]
)
def test_keywords(call: str, name: str) -> None:
    with pytest.raises(TypeError, match=rf"takes no '{name}'; here it is "):
        CALLS[call][0](**{name: None})


def test_a_name_of_the_table_that_an_optimizer_has_itself_is_its_own() -> None:
    assert len(AdamW([Parameter([1.0])], decay="matrices").groups) == 1
    with pytest.raises(TypeError, match=r"decay must be 'all' or 'matrices', not 0\.5"):
        AdamW([Parameter([1.0])], decay=0.5)  # type: ignore[arg-type]


def test_custom_subclasses_may_name_their_options_freely() -> None:
    class Layer(nn.Module):
        def __init__(self, in_features: int) -> None:
            self.in_features = in_features

    class Own(AdamW[Any]):
        def __init__(self, params: Any) -> None:
            super().__init__(params)
            self.color = "red"

    assert Layer(in_features=3).in_features == 3
    assert Own(params=[Parameter([1.0])]).color == "red"


@pytest.mark.parametrize(
    "make",
    [
        _optimizer,
        lambda: ParameterGroup([Parameter([1.0])]),
        _trainer,
        _loader,
        lambda: Checkpoints("folder"),
    ],
)
def test_an_attribute_that_nothing_reads(make: Callable[[], Any]) -> None:
    thing = make()
    with pytest.raises(AttributeError, match=r"has no attribute 'color'$"):
        thing.color = 1
    assert not hasattr(thing, "color")


@pytest.mark.parametrize("make", [nn.Identity, nn.Flatten, nn.ReLU, nn.GELU])
def test_functions_without_parameters_take_tensors_too(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"call it with tensor\(x\)"):
        make()(np.ones((2, 3), np.float32))


def test_fit_of_arrays_says_what_to_write() -> None:
    trainer: Any = _trainer()
    with pytest.raises(TypeError, match=r"loss_fn must be a function.*DataLoader\(ArrayDataset"):
        trainer.fit(np.ones((4, 2)), np.ones(4), epochs=1)


@pytest.mark.parametrize("validate", [_loader(), (_loader(),), 3])
def test_a_validation_needs_a_function(validate: Any) -> None:
    trainer: Any = _trainer()
    with pytest.raises(TypeError, match=r"validate must be a function or \(loader, function"):
        trainer.fit(_loader(), lambda x: x.sum(), epochs=1, validate=validate)


@pytest.mark.parametrize("name", of_train.RUN.rows)
def test_names_of_a_run(name: str) -> None:
    """A callback that set run.should_stop stopped nothing."""

    class Stop(Callback):
        def on_epoch_end(self, event: Any) -> None:
            for act in (lambda: getattr(event.run, name), lambda: setattr(event.run, name, True)):
                with pytest.raises(AttributeError, match=rf"'{name}'; here it is event\."):
                    act()
            heard.append(name)

    heard: list[str] = []
    weight = Parameter([1.0], name="weight")
    trainer = Trainer(SGD([weight], 0.1))
    trainer.fit([()], lambda: weight.sum(), epochs=1, callbacks=[Stop()])
    assert heard == [name]


def _trained(**options: Any) -> Any:
    weight = Parameter([1.0], name="weight")
    return Trainer(SGD([weight], 0.1)).fit([()], lambda: weight.sum(), epochs=1, **options)


class _Epochs(Callback):
    def on_epoch_end(self, epoch: Any, logs: Any = None) -> None: ...


class _End(Callback):
    def on_train_end(self, logs: Any = None) -> None: ...


@pytest.mark.parametrize("kind", [_Epochs, _End])
def test_a_callback_with_the_arguments_of_keras(kind: Any) -> None:
    """It got the event as its epoch, or as its logs."""
    with pytest.raises(TypeError, match=r"with the event alone, so write def on_\w+\(self, event"):
        _trained(callbacks=[kind()])


def test_names_of_a_callbacks_arguments_are_free() -> None:
    class Heard(Callback):
        def on_epoch_start(self, epoch: Any) -> None:
            heard.append(epoch.epoch)

        def on_epoch_end(self, logs: Any) -> None:
            heard.append(logs.epoch)

        def on_train_end(self, event: Any, logs: Any = None) -> None:
            heard.append(event.epoch)

    heard: list[int] = []
    _trained(callbacks=[Heard()])
    assert heard == [0, 0, 1]


class _Duck:
    order = 0

    def on_step_end(self, event: Any) -> None: ...


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (EarlyStopping, r"make it first, EarlyStopping\(\)"),
        (Checkpoints("folder"), r"it is an argument of fit, checkpoints=\.\.\."),
        (_Duck(), "derive a class from Callback"),
        (print, "derive a class from Callback"),
    ],
)
def test_what_is_no_callback(callback: Any, told: str) -> None:
    with pytest.raises(TypeError, match=rf"^callbacks: .* is not a Callback: {told}$"):
        _trained(callbacks=[callback])


def test_a_callback_whose_methods_nothing_calls() -> None:
    class Lightning(Callback):
        def epoch_end(self, event: Any) -> None:
            pass

    class OnlyState(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    class OfItsOwn(Lightning):
        def on_epoch_end(self, event: Any) -> None:
            self.epoch_end(event)

    class Empty(Callback):
        pass

    batch = (np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
    loss: Any = lambda x, y: (_WEIGHT * x - y).mean()
    in_place: Any = Empty()
    in_place.on_epoch_end = lambda event: None
    trainer = Trainer(SGD([_WEIGHT], 0.1))
    with pytest.raises(TypeError, match="Lightning hears no event, as none calls its epoch_end:"):
        trainer.fit([batch], loss, epochs=1, callbacks=[Lightning()])
    trainer.fit([batch], loss, epochs=1, callbacks=[OnlyState(), OfItsOwn(), Empty(), in_place])


_WEIGHT: Final = Parameter([1.0], name="w")


def test_a_callback_that_ends_a_training_as_in_keras() -> None:
    model: Any = nn.Linear(1, 1)
    with pytest.raises(AttributeError, match=r"'stop_training'; here it is event\.run\.stop"):
        model.stop_training = True


class _OwnTrainer(Trainer[Any]):
    def __init__(self, model: nn.Module, lr: float, epochs: int) -> None:
        super().__init__(AdamW(model.parameters(), lr), state={"model": model})


class _OwnLoader(DataLoader):
    def __init__(self, x: Any, y: Any, bs: int, device: str) -> None:
        super().__init__(ArrayDataset(x, y), bs)


class _OwnCheckpoints(Checkpoints):
    def __init__(self, filepath: str, monitor: str) -> None:
        super().__init__(filepath)


def test_a_derived_class_has_arguments_of_its_own() -> None:
    """Its names were refused as those of other libraries."""
    trainer = _OwnTrainer(model=nn.Linear(1, 1), lr=0.1, epochs=3)
    assert "model" in trainer.state
    assert len(_OwnLoader(x=np.ones((4, 2)), y=np.ones(4), bs=2, device="cpu")) == 2
    assert _OwnCheckpoints(filepath="folder", monitor="loss").folder == Path("folder")


@pytest.mark.parametrize("name", sorted(set(inspect.signature(Trainer.fit).parameters) - {"self"}))
def test_arguments_of_fit_are_not_of_the_trainer(name: str) -> None:
    make: Any = Trainer
    with pytest.raises(TypeError, match=rf"^Trainer takes no '{name}'; here it is .*trainer\.fit"):
        make(_optimizer(), **{name: 1})


@pytest.mark.parametrize(
    ("function", "args", "given", "told"),
    [
        (lambda: _optimizer().set, (1e-4,), {}, r"by name, not 0\.0001: as lr="),
        (lambda: SAM(_optimizer()).set, (1e-4,), {}, r"by name, not 0\.0001: as lr="),
        (lambda: nn.Linear(1, 1).to, (), {"device": "cuda"}, r"no 'device'; here it is to_gpu\(\)"),
        (lambda: tensor([1.0]).to, (), {"device": "cuda"}, r"no 'device'; here it is to_gpu\(\)"),
        (lambda: tensor([1.0]).to, (), {"dtype": "f"}, r"no 'dtype'; here it is astype\(dtype\)"),
        (lambda: cosine, (1e-3,), {"T_max": 9}, r"a schedule takes no 'T_max'; here it is steps$"),
        (lambda: step_decay, (1e-3,), {"step_size": 3}, r"no 'step_size'; here it is every$"),
        (lambda: one_cycle, (1e-3, 9), {"pct_start": 0.1}, r"no 'pct_start'; here it is rise$"),
        (
            lambda: LossScale,
            (),
            {"init_scale": 2.0},
            r"^LossScale takes no .*; here it is initial$",
        ),
        (lambda: Every, (), {"minutes": 5}, r"^Every takes no 'minutes'; here it is seconds$"),
        (lambda: Every, (), {"step": 5}, r"^Every takes no 'step'; here it is steps$"),
    ],
)
def test_arguments_of_other_libraries(
    function: Callable[[], Any], args: Any, given: Any, told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        function()(*args, **given)


@pytest.mark.parametrize("name", SCHEDULE.rows)
def test_names_of_a_schedule(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'; here it is "):
        getattr(cosine(1e-3, 9), name)


def test_a_block_without_parentheses() -> None:
    block: Any = no_grad
    message = r"^no_grad is called first: write with no_grad\(\):$"
    with pytest.raises(TypeError, match=message), block:
        pass


@pytest.mark.parametrize("thing", [tensor([1.0]), Parameter([1.0])])
@pytest.mark.parametrize(
    ("name", "said"), [("grad", "there is none to reset"), ("data", r"x\.assign\(value\)")]
)
def test_assigned_to_a_tensor(thing: Tensor, name: str, said: str) -> None:
    """As `p.grad = None` and `p.data = x`, which said only that there is no such attribute."""
    with pytest.raises(AttributeError, match=said):
        setattr(thing, name, None)
    with pytest.raises(AttributeError, match="here it is"):
        getattr(thing, name)
    assert not hasattr(thing, name)


def _norm_of_numpy(weight: Parameter) -> Any:
    return float(np.linalg.norm(any_of(weight)))


@pytest.mark.parametrize(
    "penalty", [_norm_of_numpy, lambda w: np.stack([w * 2.0]).sum(), lambda w: np.array(w).max()]
)
def test_numpy_in_a_loss_is_told_of(penalty: Callable[[Parameter], Any]) -> None:
    """What it computes has no gradient, as a penalty of weights should."""
    model = nn.Linear(2, 2)
    trainer = Trainer(SGD(model.parameters(), 0.1))
    with pytest.warns(UserWarning, match="NumPy computes without a gradient") as told:
        trainer.train_step(
            lambda x: model(x).mean() + float(penalty(model.weight)), np.ones((3, 2), np.float32)
        )
    assert {Path(each.filename).name for each in told} == {"test_habits.py"}


def test_numpy_where_no_gradient_is_meant() -> None:
    model = nn.Linear(2, 2)
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
    x = np.ones((3, 2), np.float32)

    def loss(x: Tensor) -> Any:
        y = model(x)
        noted = {
            "weight": float(np.linalg.norm(model.weight.numpy())),
            "largest": float(np.max(y.detach().numpy())),
            "input": float(np.mean(np.asarray(x))),
            "loss": y.mean(),
        }
        return noted

    trainer.fit([(x,)], loss, epochs=3, validate=([(x,)], lambda x: np.asarray(model(x)).mean()))
    np.testing.assert_allclose(model(tensor(x)), np.asarray(model(tensor(x))))
