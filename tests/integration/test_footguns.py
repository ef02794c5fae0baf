"""Training mistakes that go unnoticed elsewhere, and rumus's answer to each.

The first line of each docstring says what may happen in other libraries.
"""

from __future__ import annotations

import gc
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD, Adam, AdamW, FusedOptimizer, ParameterGroup, clip_grad_norm
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    DrainedGradientError,
    Expr,
    Generator,
    GradientStore,
    MissingGradientError,
    NonFiniteGradientError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    Parameters,
    PrecisionError,
    StateMismatchError,
    Tensor,
    UnclaimedGradientError,
    gather,
    tensor,
)
from rumus.train import Callback, EpochEnd, EpochStart, Trainer


def parameters(backend: Backend, names: str = "ab") -> list[Parameter]:
    return [Parameter([1.0, 2.0], name=name, backend=backend) for name in names]


def bits(optimizer: FusedOptimizer[Any], *extra: Parameter) -> list[object]:
    """The bits of everything that an optimizer owns and keeps, and its counters."""
    state = optimizer.state_dict()
    arrays = [p.numpy() for p in (*optimizer.parameters, *extra)]
    for entry in state.pop("parameters").values():
        arrays += entry.pop("state").values()
        state[str(entry)] = entry
    return [state, *(a.tobytes() for a in arrays)]


# The table, row by row


def test_one_gradient_missing(backend: Backend) -> None:
    """The parameter is skipped silently, or earlier ones were updated before the error."""
    a, b = parameters(backend)
    optimizer = AdamW([a, b], 0.1)
    optimizer.step((a * b).sum().backward())
    before = bits(optimizer)
    store = (a * a).sum().backward()
    with pytest.raises(MissingGradientError, match="parameter 'b' has no gradient"):
        optimizer.step(store)
    assert bits(optimizer) == before
    assert list(store) == [a]


def test_all_gradients_missing(backend: Backend) -> None:
    """A step without any gradients does nothing and reports nothing."""
    a, b = parameters(backend)
    optimizer = SGD([a, b], 0.1)
    before = bits(optimizer)
    with pytest.raises(MissingGradientError, match="'a'"):
        optimizer.step(GradientStore())
    assert bits(optimizer) == before


def test_a_gradient_that_nobody_owns(backend: Backend) -> None:
    """It is dropped, and part of the model is never trained."""
    a, b = parameters(backend)
    optimizer = SGD([a], 0.1)
    with (
        pytest.raises(UnclaimedGradientError, match="'b'"),
        (a * b).sum().backward() as grads,
    ):
        optimizer.step(grads)
    before = bits(optimizer, b)
    with pytest.raises(UnclaimedGradientError, match="'b'"):
        Trainer(optimizer).train_step(lambda: (a * b).sum())
    assert bits(optimizer, b) == before


def test_a_gradient_that_is_nan(backend: Backend) -> None:
    """Parameters and state are NaN from then on; clipping first spreads it to all others."""
    a, b = parameters(backend)
    optimizer = AdamW([a, b], 0.1)
    optimizer.step((a * b).sum().backward())
    before = bits(optimizer)
    poison = tensor([1.0, np.nan], backend=backend)
    store = (a * poison + b).sum().backward()
    if not backend.runs_ahead:  # a device reports it when the step's outcome is read
        with pytest.raises(NonFiniteGradientError, match="'a'"):
            clip_grad_norm(store, optimizer, 1.0)
    else:
        assert np.isnan(clip_grad_norm(store, optimizer, 1.0).numpy())
    assert store[b].tolist() == [1.0, 1.0]

    def step() -> None:
        optimizer.step(store)
        optimizer.poll(wait=True)

    with pytest.raises(NonFiniteGradientError, match="'a'"):
        step()
    assert bits(optimizer) == before
    optimizer.step((a * b).sum().backward())
    assert all(np.isfinite(p.numpy()).all() for p in (a, b))


def test_nan_steps_that_never_end_are_all_skipped(backend: Backend) -> None:
    """A limit on consecutive skipped steps lets the next bad one through."""
    a, b = parameters(backend)
    optimizer = AdamW([a, b], 0.1, nonfinite="skip")
    values = [p.numpy() for p in (a, b)]
    for _ in range(50):
        optimizer.step((a * float("inf") + b).sum().backward())
    assert (optimizer.steps, optimizer.skipped, optimizer.blamed) == (0, 50, ("a",))
    assert all((p.numpy() == v).all() for p, v in zip((a, b), values, strict=True))


def test_one_parameter_twice_in_one_optimizer(backend: Backend) -> None:
    """Only a warning, and the parameter is updated twice, or with mixed-up state."""
    a, b = parameters(backend)
    for given in ([a, b, a], [ParameterGroup([a]), ParameterGroup([b, a])]):
        with pytest.raises(OwnershipError, match="'a' is given twice"):
            SGD(given, 0.1)
    assert a.owner is None


def test_tied_weights_are_one_parameter(backend: Backend) -> None:
    """Shared weights reach the optimizer once for each of their names."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            self.first = nn.Linear(2, 2, generator=Generator(0))
            self.second = nn.Linear(2, 2, generator=Generator(1))
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = Tied()
    model.to(backend)
    optimizer = SGD(model.parameters(), 0.1)
    assert len(optimizer.parameters) == 3
    with model(tensor([[1.0, 2.0]], backend=backend)).sum().backward() as grads:
        optimizer.step(grads)


def test_two_optimizers_share_a_parameter(backend: Backend) -> None:
    """Both update it, at every step."""
    a, b = parameters(backend)
    first = SGD([a, b], 0.1)
    with pytest.raises(OwnershipError, match=r"'b'.*SGD \(made at test_footguns.py:\d+\)"):
        AdamW([b], 0.1)
    assert b.owner is first
    first.release()
    assert AdamW([b], 0.1).parameters == (b,)


def test_a_frozen_parameter(backend: Backend) -> None:
    """It still moves: by an old gradient, by momentum, or by weight decay."""
    a, b = parameters(backend)
    optimizer = AdamW([a, b], 0.1, weight_decay=0.5)
    optimizer.step((a * b).sum().backward())
    b.requires_grad = False
    before = bits(optimizer)
    with pytest.raises(MissingGradientError, match=r"'b'.*requires_grad is False"):
        optimizer.step((a * b).sum().backward())
    assert bits(optimizer) == before
    value = b.numpy()
    optimizer.release()
    second = AdamW([a, b], 0.1, weight_decay=0.5)
    second.step((a * b).sum().backward())
    assert second.parameters == (a,)
    assert (b.numpy() == value).all()


def test_a_parameter_replaced_after_construction(backend: Backend) -> None:
    """The optimizer keeps the old object, and the model is not trained."""
    model = nn.Linear(2, 1, generator=Generator(0)).to(backend)
    optimizer = SGD(model.parameters(), 0.1)
    model.weight = Parameter(np.ones((1, 2)), name="weight", backend=backend)
    x = tensor([[1.0, 2.0]], backend=backend)
    with pytest.raises(
        MissingGradientError,
        match=r"but on parameter 'weight' \(1, 2\), which no optimizer has.*release\(\), and make",
    ):
        optimizer.step(model(x).sum().backward())
    with pytest.raises((MissingGradientError, UnclaimedGradientError), match="'weight'"):
        Trainer(optimizer).train_step(lambda: model(x).sum())
    assert model.weight.tolist() == [[1.0, 1.0]]
    assert optimizer.steps == 0


def test_step_twice_without_backward(backend: Backend) -> None:
    """The same gradient is applied again."""
    a, b = parameters(backend)
    optimizer = SGD([a, b], 0.1, momentum=0.9)
    store = (a * b).sum().backward()
    optimizer.step(store)
    before = bits(optimizer)
    with pytest.raises(DrainedGradientError, match=r"'a'.*drained.*SGD"):
        optimizer.step(store)
    assert bits(optimizer) == before


def test_saved_state_is_matched_by_name(backend: Backend) -> None:
    """State is matched by position: two parameters of the same shape swap their moments."""
    a, b = parameters(backend)
    first = Adam([a, b], 0.1)
    first.step((a * 3.0 + b * b).sum().backward())
    state = first.state_dict()
    first.release()
    swapped = Adam([b, a], 0.1)
    swapped.load_state_dict(state)
    again = swapped.state_dict()["parameters"]
    for name in "ab":
        for key in ("m", "v"):
            saved = state["parameters"][name]["state"][key]
            assert (again[name]["state"][key] == saved).all()
    renamed = Parameter([1.0, 2.0], name="c", backend=backend)
    other = Adam([renamed, Parameter([1.0, 2.0], name="d", backend=backend)], 0.1)
    with pytest.raises(StateMismatchError, match=r"(?s)'a'.*'b'.*'c'.*'d'"):
        other.load_state_dict(state)


def test_saved_state_of_another_shape_or_kind(backend: Backend) -> None:
    """It is accepted, fails at a later step, or turns one optimizer into another."""
    a, b = parameters(backend)
    state = AdamW([a, b], 0.1).state_dict()
    gc.collect()
    wide = [Parameter(np.ones(3), name=n, backend=backend) for n in "ab"]
    optimizer = Adam(wide, 0.2)
    before = bits(optimizer)
    with pytest.raises(StateMismatchError, match=r"(?s)AdamW.*\(2,\).*\(3,\)"):
        optimizer.load_state_dict(state)
    assert bits(optimizer) == before


def test_saved_state_leaves_hyperparameters_alone(backend: Backend) -> None:
    """The learning rate of the file replaces the one in the program."""
    a, _ = parameters(backend)
    state = SGD([a], 0.1, momentum=0.9).state_dict()
    gc.collect()
    optimizer = SGD([a], 0.5, momentum=0.8)
    optimizer.load_state_dict(state)
    assert optimizer.hyper["lr"] == 0.5
    assert optimizer.hyper["momentum"] == 0.8


def test_saved_state_is_a_copy(backend: Backend) -> None:
    """The saved state changes with later training, or the training with what was loaded."""
    a, b = parameters(backend)
    optimizer = Adam([a, b], 0.1)
    optimizer.step((a * b).sum().backward())
    state = optimizer.state_dict()
    kept = state["parameters"]["a"]["state"]["m"].copy()
    optimizer.step((a * b).sum().backward())
    assert (state["parameters"]["a"]["state"]["m"] == kept).all()
    optimizer.load_state_dict(state)
    before = bits(optimizer)
    state["parameters"]["a"]["state"]["m"][...] = 99.0
    assert bits(optimizer) == before


def test_saved_state_runs_no_code(backend: Backend) -> None:
    """A checkpoint is a pickle, and reading one may run arbitrary code."""
    a, _ = parameters(backend)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(a)
    state = Adam([a], 0.1).state_dict()
    leaves = [state["format"], state["kind"], state["steps"], state["skipped"]]
    entry = state["parameters"]["a"]
    leaves += [*entry["shape"], entry["dtype"], entry["steps"], *entry["state"].values()]
    assert {type(leaf) for leaf in leaves} <= {int, str, np.ndarray}


def test_sparse_gradients_are_dense(backend: Backend) -> None:
    """Sparse gradients need a special optimizer, or are treated differently.

    Here an embedding is a gather: its gradient has the table's shape, repeated rows add up, and
    Adam decays the moments of unused rows as its formula says. A dense gradient that is 0 in these
    rows gives the same bits.
    """
    start = np.arange(12.0).reshape(4, 3)
    table, dense = (Parameter(start, name="table", backend=backend) for _ in range(2))
    lookup, plain = Adam([table], 0.1), Adam([dense], 0.1)
    for rows in ([0, 2, 2], [1], [2, 0]):
        index = tensor(rows, backend=backend)
        counts = np.bincount(rows, minlength=4).astype(np.float32)[:, None]
        store = gather(table, index).sum().backward()
        assert store[table].tolist() == (counts * np.ones((4, 3))).tolist()
        lookup.step(store)
        plain.step((dense * tensor(counts, backend=backend)).sum().backward())
    assert table.numpy().tobytes() == dense.numpy().tobytes()
    assert table.numpy()[3].tolist() == start[3].tolist()
    assert (table.numpy()[1] != start[1]).all()


def test_checked_against_independent_numbers(backend: Backend) -> None:
    """An optimizer is compared with itself, or with golden numbers to two digits.

    tests/optim/test_formulas.py and tests/oracle/test_optim_torch.py compare every option with
    NumPy and PyTorch over 200 steps. Here the first two steps of AdamW are worked out by hand.
    """
    w = Parameter([1.0], name="w", backend=backend)
    optimizer = AdamW([w], 0.5, betas=(0.5, 0.75), eps=0.0, weight_decay=0.5)
    optimizer.step((w * 4.0).sum().backward())
    assert w.tolist() == [0.25]  # 1 (1 - 1/4) - 1/2 (2 / (1/2)) / sqrt(4 / (1/4))
    optimizer.step((w * -4.0).sum().backward())
    m_hat, v_hat = -1 / (1 - 0.25), 7 / (1 - 0.5625)  # m = 2/2 - 4/2, v = 3/4 4 + 1/4 16
    assert w.item() == pytest.approx(0.25 * 0.75 - 0.5 * m_hat / v_hat**0.5, rel=1e-6)


# Problems that users report


def test_the_optimizer_made_before_the_model_moves(backend: Backend) -> None:
    """The optimizer keeps the tensors of the old device, and nothing is trained."""
    early, late = (nn.Linear(3, 2, generator=Generator(0)) for _ in range(2))
    for model in (early, late):
        model.to(NumpyBackend())
    first = AdamW(early.parameters(), 0.1)
    early.to(backend)
    late.to(backend)
    second = AdamW(late.parameters(), 0.1)
    x = tensor([[1.0, 2.0, 3.0]], backend=backend)
    for _ in range(3):
        first.step(early(x).sum().backward())
        second.step(late(x).sum().backward())
    assert bits(first) == bits(second)


def test_a_model_moved_in_part(backend: Backend) -> None:
    """Half of a step runs on one device and half on another, or it fails halfway."""
    a, b = parameters(backend)
    optimizer = SGD([a, b], 0.1)
    a.move(NumpyBackend())
    store = GradientStore()
    for p in (a, b):
        store.accumulate(p, tensor([1.0, 1.0], backend=p.backend))
    before = bits(optimizer)
    with pytest.raises(BackendMismatchError, match=r"'a'.*'b'"):
        optimizer.step(store)
    assert bits(optimizer) == before


def test_two_optimizers_of_a_gan(backend: Backend) -> None:
    """Gradients of the generator's step are left over and enter the discriminator's next one."""
    generator, discriminator = (nn.Linear(2, 2, generator=Generator(i)) for i in (0, 1))
    generator.to(backend)
    discriminator.to(backend)
    both = [SGD(generator.parameters(), 0.1), SGD(discriminator.parameters(), 0.1)]
    x = tensor([[1.0, -1.0]], backend=backend)
    store = discriminator(generator(x)).sum().backward()
    kept = discriminator.weight.numpy()
    both[0].step(store)
    assert (discriminator.weight.numpy() == kept).all()
    fresh = discriminator(generator(x).detach()).sum().backward()
    wanted = fresh[discriminator.weight].numpy()
    del store
    assert (fresh[discriminator.weight].numpy() == wanted).all()
    both[1].step(fresh)
    assert len(fresh) == 0


def test_steps_are_counted_on_the_host(backend: Backend) -> None:
    """The counter is a tensor, and is on the wrong device after loading."""
    a, b = parameters(backend)
    optimizer = Adam([a, b], 0.1)
    optimizer.step((a * b).sum().backward())
    state = optimizer.state_dict()
    assert type(state["steps"]) is int
    optimizer.load_state_dict(state)
    assert optimizer.steps == 1


def test_a_schedule_is_a_function_of_the_applied_steps(backend: Backend) -> None:
    """Skipped steps advance the schedule, or it must be called at the right place in the loop."""
    seen: list[int] = []

    def schedule(step: int) -> float:
        seen.append(step)
        return 0.1 / step

    a, _ = parameters(backend)
    optimizer = SGD([a], schedule, nonfinite="skip")
    before = a.numpy()
    for factor in (1.0, float("nan"), 1.0, 1.0):
        optimizer.step((a * factor).sum().backward())
    assert optimizer.steps == 3
    np.testing.assert_allclose(a.numpy(), before - (0.1 + 0.1 / 2 + 0.1 / 3), rtol=1e-6)
    if backend.runs_ahead:  # it is evaluated in advance, but not for steps that cannot come
        assert set(seen) >= {1, 2, 3}
        assert min(seen) == 1
    else:
        assert seen == [1, 2, 2, 3]


def test_weight_decay_only_where_requested(backend: Backend) -> None:
    """Decay is also applied to biases and scales."""
    weight, bias = parameters(backend)
    optimizer = AdamW(
        [ParameterGroup([weight]), ParameterGroup([bias], weight_decay=0.0)], 0.1, weight_decay=0.5
    )
    optimizer.step(((weight + bias) * 0.0).sum().backward())
    assert bias.tolist() == [1.0, 2.0]
    assert weight.numpy() == pytest.approx(np.array([0.95, 1.9]))


def test_unowned_parameters_are_never_written(backend: Backend) -> None:
    """A masked update passes raw gradients to the masked parameters."""
    a, b = parameters(backend)
    optimizer = SGD([a], 0.1)
    optimizer.step((a * b).sum().backward())
    assert b.tolist() == [1.0, 2.0]


def test_the_norm_covers_owned_parameters_only(backend: Backend) -> None:
    """Gradients of frozen or foreign parameters count in the norm and shrink all others."""
    a, b = parameters(backend)
    optimizer = SGD([a], 0.1)
    store = (a * 3.0 + b * 1e6).sum().backward()
    assert float(clip_grad_norm(store, optimizer, 100.0)) == pytest.approx(18.0**0.5)
    assert store[a].tolist() == [3.0, 3.0]


def test_adam_corrects_its_bias(backend: Backend) -> None:
    """Without the correction the first step is three times as long."""
    for kind in (Adam, AdamW):
        w = Parameter([1.0, 1.0], name="w", backend=backend)
        kind([w], 0.125, weight_decay=0.0).step(
            (w * tensor([1e-3, -1e3], backend=backend)).sum().backward()
        )
        assert w.numpy() == pytest.approx(np.array([0.875, 1.125]), rel=1e-5)


def test_low_precision_weights_are_refused(backend: Backend) -> None:
    """Updates smaller than the rounding error vanish, and the weights do not move."""
    half = Parameter(np.ones(2, np.float16), name="half", backend=backend)
    with pytest.raises(PrecisionError, match=r"'half'.*float16.*float32"):
        AdamW([half], 1e-3)


def test_gradients_accumulate_only_explicitly(backend: Backend) -> None:
    """Gradients add up because zeroing them was forgotten, or batches are weighted wrongly."""
    a, _ = parameters(backend)
    optimizer = SGD([a], 0.1)
    first = (a * 1.0).sum().backward()
    second = (a * 2.0).sum().backward()
    assert (first[a].tolist(), second[a].tolist()) == ([1.0, 1.0], [2.0, 2.0])
    total = GradientStore()
    for size in (3, 1):
        ((a * float(size)).sum() * size / 4).backward(into=total)
    assert total[a].tolist() == [2.5, 2.5]
    optimizer.step(total)


def test_an_exhausted_generator(backend: Backend) -> None:
    """An iterator used to print the model's size leaves the optimizer nothing to train."""
    walked = iter(parameters(backend))
    assert len(list(walked)) == 2
    used: Any = walked
    with pytest.raises(ValueError, match="used up"):
        SGD(used, 0.1)
    model = nn.Linear(2, 2, generator=Generator(0))
    given = model.parameters()
    assert isinstance(given, Parameters)
    assert len(list(given)) == len(SGD(given, 0.1).parameters) == 2


def test_a_plain_list_of_modules(backend: Backend) -> None:
    """Its modules are not found, and not trained."""

    class Stack(nn.Module):
        def __init__(self) -> None:
            self.layers = [nn.Linear(2, 2, generator=Generator(0))]

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[0](x)

    with pytest.raises(TypeError, match="layers"):
        SGD(Stack().to(backend).parameters(), 0.1)


def test_a_custom_rule_cannot_forget_its_state(backend: Backend) -> None:
    """A momentum that is computed but not stored stays 0 forever."""
    a, _ = parameters(backend)

    def forgetful(p: Expr, g: Expr, m: Expr, *, lr: Expr) -> dict[str, Expr]:
        m = 0.9 * m + g
        return {"p": p - lr * m}

    with pytest.raises(TypeError, match=r"forgetful.*m"):
        FusedOptimizer([a], forgetful, 0.1)
    assert a.owner is None


def trained_in(mode: bool, part: bool, *, is_named: bool) -> list[str]:
    """Train a model with these modes of it and of its dropout; return the warnings."""
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model.train(mode)[1].train(part)
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model} if is_named else {})
    batch = (np.ones((4, 2), np.float32),)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trainer.fit([batch], lambda x: (model(x) ** 2).mean(), epochs=1)
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("is_named", [True, False])
def test_training_in_evaluation_mode(*, is_named: bool) -> None:
    """After `model.eval()` for a look at predictions, dropout and running statistics are off."""
    (told,) = trained_in(False, False, is_named=is_named)
    assert told.startswith("model is trained in evaluation mode")
    assert "model.train()" in told
    assert trained_in(True, True, is_named=is_named) == []
    assert trained_in(True, False, is_named=is_named) == []  # one layer, on purpose


def test_training_in_evaluation_mode_where_it_changes_nothing() -> None:
    model, teacher = nn.Linear(2, 1).eval(), nn.Dropout(0.5).eval()
    trainer = Trainer(SGD(model.parameters(), 0.1), state={"teacher": teacher, "model": model})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = (np.ones((4, 2), np.float32),)
        trainer.fit([batch], lambda x: (model(teacher(x)) ** 2).mean(), epochs=1)


@pytest.mark.parametrize(
    ("is_left", "is_put_back", "told"), [(True, False, 1), (True, True, 0), (False, False, 0)]
)
def test_a_callback_that_leaves_the_model_in_evaluation_mode(
    told: int, *, is_left: bool, is_put_back: bool
) -> None:
    """As after a look at predictions: the epochs that follow train without dropout."""
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))

    class Look(Callback):
        def on_epoch_start(self, event: EpochStart) -> None:
            if is_put_back:
                model.train()

        def on_epoch_end(self, event: EpochEnd) -> None:
            model.train(mode=not is_left)[1].eval()  # one layer, on purpose

    trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        batch = (np.ones((4, 2), np.float32),)
        trainer.fit([batch], lambda x: (model(x) ** 2).mean(), epochs=4, callbacks=[Look()])
    messages = [str(warning.message) for warning in found]
    assert len(messages) == told
    assert all("in evaluation mode from epoch 1 on: it drops nothing" in each for each in messages)
