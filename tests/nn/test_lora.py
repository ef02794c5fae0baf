"""Adapters for frozen matrices: computed, trained, merged, saved and refused."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rumus import nn
from rumus.nn.frozen_linear import Storage
from rumus.tensor import Backend, Generator, OwnershipError, Tensor, tensor

STORAGES: tuple[Storage, ...] = ("same", "float16", "8bit")


class Model(nn.Module):
    """Linear layers in each kind of container, one of them shared."""

    def __init__(self, backend: Backend | None = None) -> None:
        random = Generator(0)

        def layer(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, generator=random, backend=backend)

        self.first = layer(6, 8)
        self.body = nn.Sequential(layer(8, 8), nn.Tanh(), layer(8, 8))
        self.heads = nn.ModuleDict({"a": layer(8, 3)})
        self.more = nn.ModuleList([layer(3, 8), self.first])
        self.norm = nn.LayerNorm(8, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.body(self.first(x, activation=Tensor.tanh)))
        x = self.more[0](self.heads["a"](x), residual=x)
        return self.more[1](x[..., :6])


def batch(backend: Backend | None = None, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).normal(size=(2, 5, 6))
    return tensor(values.astype(np.float32), backend=backend)


def trained(adapters: nn.Lora) -> None:
    """Give the adapters nonzero values."""
    for number, parameter in enumerate(adapters.parameters()):
        nn.initialization.normal(parameter, generator=Generator(3, number), std=0.3)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.state_dict().items()}


@pytest.mark.parametrize("storage", STORAGES)
def test_at_first_nothing_changes(backend: Backend, storage: Storage) -> None:
    model = Model(backend)
    before = model(batch(backend)).numpy()
    nn.lora(model, 2, storage=storage)
    tolerance = {"same": 1e-6, "float16": 2e-3, "8bit": 5e-2}[storage]
    np.testing.assert_allclose(model(batch(backend)).numpy(), before, atol=tolerance)


@pytest.mark.parametrize("storage", STORAGES)
def test_formula_and_gradients(backend: Backend, storage: Storage) -> None:
    """Against a plain layer with the whole matrix, including the adapter's part."""
    base = nn.Linear(40, 30, generator=Generator(0), backend=backend)
    layer = nn.LoraLinear(base, 3, scale=0.7, storage=storage, generator=Generator(1))
    nn.initialization.normal(layer.lora_B, generator=Generator(2), std=0.2)
    values = np.random.default_rng(0).normal(size=(4, 40)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(4, 30)).astype(np.float32)
    before = nn.Linear(40, 40, bias=False, generator=Generator(5), backend=backend)
    x = before(tensor(values, backend=backend))
    y = layer(x)
    grads = (y * tensor(weights, backend=backend)).sum().backward()

    a, b = (p.numpy().astype(np.float64) for p in (layer.lora_A, layer.lora_B))
    full = layer.full_weight().numpy().astype(np.float64)
    given = values @ before.weight.numpy().astype(np.float64).T
    assert base.bias is not None
    total = full + 0.7 * b @ a
    np.testing.assert_allclose(y.numpy(), given @ total.T + base.bias.numpy(), atol=2e-5)
    wanted = {
        layer.lora_A: 0.7 * b.T @ weights.T @ given,
        layer.lora_B: 0.7 * weights.T @ given @ a.T,
        before.weight: (weights @ total).T @ values,
    }
    assert set(grads) == set(wanted)
    for parameter, gradient in wanted.items():
        np.testing.assert_allclose(grads[parameter].numpy(), gradient, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("storage", "bound"), [("same", 0.0), ("float16", 5e-4), ("8bit", 2e-2)])
def test_how_exact_a_frozen_matrix_is(storage: Storage, bound: float) -> None:
    base = nn.Linear(300, 7, generator=Generator(0))
    before = base.weight.numpy()
    found = nn.FrozenLinear(base, storage=storage).full_weight().numpy()
    assert np.abs(found - before).max() <= bound * np.abs(before).max()


@pytest.mark.parametrize(("storage", "share"), [("float16", 0.52), ("8bit", 0.28)])
def test_how_much_a_frozen_matrix_takes(storage: Storage, share: float) -> None:
    layer = nn.FrozenLinear(
        nn.Linear(512, 300, bias=False, generator=Generator(0)), storage=storage
    )
    assert sum(a.nbytes for a in layer.state_dict().values()) <= share * 4 * 512 * 300


def test_what_is_trained() -> None:
    model = Model()
    adapters = nn.lora(model, 2, targets=["body.*", "a"])
    assert set(adapters.layers) == {"body.0", "body.2", "heads.a"}
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable == list(adapters.parameters().names)
    grads = model(batch()).sum().backward()
    assert {p.name for p in grads} == set(trainable)
    assert isinstance(model.heads["a"], nn.LoraLinear)
    assert isinstance(model.first, nn.Linear)


def test_adapters_say_what_they_are() -> None:
    adapters = nn.lora(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), rank=2)
    assert repr(adapters) == "Lora(2 layers, 24 trained parameters)"
    adapters.merge()
    assert repr(adapters) == "Lora(2 layers, 24 trained parameters, merged)"


def test_a_layer_that_is_held_twice_stays_one() -> None:
    model = Model()
    adapters = nn.lora(model, 2, targets="first")
    found: list[object] = [model.first, model.more[1], adapters.layers["first"]]
    assert found[0] is found[1] is found[2]
    adapters.merge()
    assert model.first is model.more[1]


@pytest.mark.parametrize("storage", STORAGES)
def test_merged_and_back(backend: Backend, storage: Storage) -> None:
    model = Model(backend)
    names = list(model.state_dict())
    adapters = nn.lora(model, 2, targets=["body.0", "a"], alpha=3.0, storage=storage)
    trained(adapters)
    before, state = model(batch(backend)).numpy(), bits(model)
    adapters.merge()
    assert adapters.is_merged
    assert not any(isinstance(module, nn.FrozenLinear) for module in model.modules())
    assert list(model.state_dict()) == names
    np.testing.assert_allclose(model(batch(backend)).numpy(), before, atol=2e-5)
    with pytest.raises(ValueError, match="already merged"):
        adapters.merge()
    adapters.unmerge()
    assert bits(model) == state
    assert model(batch(backend)).numpy().tobytes() == before.tobytes()
    with pytest.raises(ValueError, match="not merged"):
        adapters.unmerge()


def test_attention_with_a_context_of_its_own() -> None:
    """The joint product is split there, whatever its source."""
    attention = nn.MultiHeadAttention(8, 2, generator=Generator(0))
    model = nn.ModuleDict({"attention": attention})
    x, context = (tensor(np.random.default_rng(i).normal(size=(2, 3 + i, 8))) for i in (0, 1))
    before = attention(x, context).numpy()
    adapters = nn.lora(model, 2)
    np.testing.assert_allclose(attention(x, context).numpy(), before, atol=1e-6)
    trained(adapters)
    found = attention(x, context).numpy()
    assert np.abs(found - before).max() > 0.01
    adapters.merge()
    np.testing.assert_allclose(attention(x, context).numpy(), found, atol=2e-5)


def test_half_models_stay_half() -> None:
    model = nn.Sequential(nn.Linear(4, 4, generator=Generator(0))).half()
    before = model(tensor(np.ones((1, 4)), dtype=np.float16))
    nn.lora(model, 2)
    after = model(tensor(np.ones((1, 4)), dtype=np.float16))
    assert after.dtype == np.float16
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=2e-3)


def test_dropout_is_of_the_adapters_alone() -> None:
    model = nn.Sequential(nn.Linear(50, 4, generator=Generator(0)))
    x = tensor(np.ones((1, 50), np.float32))
    before = model(x).numpy()
    adapters = nn.lora(model, 2, dropout=0.5, generator=Generator(1))
    np.testing.assert_allclose(model(x).numpy(), before, atol=1e-6)
    trained(adapters)
    assert (model(x).numpy() != model(x).numpy()).any()
    model.eval()
    assert (model(x).numpy() == model(x).numpy()).all()


# Refused input, before anything has changed


def refused(call: Callable[[nn.Module], object], error: type[Exception], match: str) -> None:
    model = Model()
    state, trainable = bits(model), [p.requires_grad for p in model.parameters()]
    with pytest.raises(error, match=match):
        call(model)
    assert bits(model) == state
    assert [p.requires_grad for p in model.parameters()] == trainable


def test_targets_that_fit_nothing() -> None:
    for target, named in (("bdy.0", "body.0"), ("norm", "more.0"), ("xyz", "first")):
        refused(
            lambda model, target=target: nn.lora(model, 2, targets=["first", target]),  # type: ignore[misc]
            ValueError,
            f"no linear layer matches the target '{target}'; there are .*{named}",
        )
    refused(lambda model: nn.lora(model, 2, targets=[]), ValueError, "targets is empty")


def test_numbers_that_make_no_sense() -> None:
    refused(lambda model: nn.lora(model, 0), ValueError, "rank must be at least 1, not 0")
    refused(lambda model: nn.lora(model, 2, alpha=-1), ValueError, "alpha must be positive")
    refused(lambda model: nn.lora(model, 2, dropout=2), ValueError, "p must be in")
    refused(
        lambda model: nn.lora(model, 2, storage="4bit"),  # type: ignore[arg-type]
        ValueError,
        "storage must be 'same', 'float16' or '8bit', not '4bit'",
    )


def test_matrices_that_are_too_large_for_float16() -> None:
    def large(model: nn.Module) -> None:
        model.body[2].weight.assign(1e6)  # type: ignore[attr-defined]
        nn.lora(model, 2, storage="float16")

    model = Model()
    with pytest.raises(OverflowError, match=r"weight.*: a number is too large for float16"):
        large(model)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(module, nn.FrozenLinear) for module in model.modules())


def test_models_that_cannot_get_adapters() -> None:
    with pytest.raises(ValueError, match="is itself a Linear"):
        nn.lora(nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match=r"no linear layer matches the target .*none at all"):
        nn.lora(nn.Sequential(nn.ReLU()), 1)
    model = Model()
    nn.lora(model, 2)
    with pytest.raises(ValueError, match="already has adapters or frozen layers"):
        nn.lora(model, 2)


class Owner:
    """Claims a parameter, as an optimizer does."""

    def __str__(self) -> str:
        return "Owner()"


def test_parameters_that_are_owned() -> None:
    owner: Any = Owner()

    def owned(model: nn.Module) -> None:
        model.norm.weight._owner = weakref.ref(owner)  # type: ignore[attr-defined]
        nn.lora(model, 2)

    refused(owned, OwnershipError, r"norm.weight is owned by Owner\(\)")


# Files


@pytest.mark.parametrize("storage", STORAGES)
def test_saved_and_loaded(storage: Storage, tmp_path: Path) -> None:
    model, again = Model(), Model()
    adapters = nn.lora(model, 3, targets=["body.0", "a"], alpha=5.0, dropout=0.25, storage=storage)
    trained(adapters)
    nn.save_lora(adapters, tmp_path / "new" / "folder")
    loaded = nn.load_lora(again, tmp_path / "new" / "folder", storage=storage)
    assert loaded.layers.keys() == adapters.layers.keys()
    assert bits(again) == bits(model)
    for path, layer in loaded.layers.items():
        assert layer.scale == pytest.approx(adapters.layers[path].scale)
        assert layer.dropout.p == 0.25
    assert again.eval()(batch()).numpy().tobytes() == model.eval()(batch()).numpy().tobytes()


def saved(folder: Path) -> None:
    adapters = nn.lora(Model(), 3, targets=["body.0", "a"])
    trained(adapters)
    nn.save_lora(adapters, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"lora_alpha": None}, "is not a LoRA configuration"),
        ({"lora_alpha": 0}, "alpha must be positive"),
        ({"alpha_pattern": {"(a|b)*": 3}}, "is not a plain layer name"),
    ],
)
def test_configurations_of_something_else(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(lambda model: nn.load_lora(model, tmp_path), nn.WeightsFileError, message)
    path.write_text("{")
    refused(
        lambda model: nn.load_lora(model, tmp_path), nn.WeightsFileError, "not a LoRA configuration"
    )
    path.unlink()
    refused(lambda model: nn.load_lora(model, tmp_path), FileNotFoundError, "adapter_config")


def test_adapters_that_do_not_fit(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    arrays = load_file(path)
    prefix = "base_model.model."

    def changed(values: dict[str, Any], error: type[Exception], message: str) -> None:
        save_file({k: v for k, v in {**arrays, **values}.items() if v is not None}, path)
        refused(lambda model: nn.load_lora(model, tmp_path), error, message)

    mismatch, damaged = ValueError, nn.WeightsFileError
    changed({f"{prefix}body.0.lora_A.weight": None}, damaged, "body.0 has one of lora_A and lora_B")
    changed(
        {f"{prefix}body.0.lora_embedding_A": np.ones(3)}, damaged, "is neither lora_A.weight nor"
    )
    changed(
        {f"{prefix}body.0.lora_B.weight": np.ones((9, 3), np.float32)}, mismatch,
        r"lora_A \(3, 8\) and lora_B \(9, 3\) of body.0 do not fit a matrix of shape \(8, 8\)",
    )  # fmt: skip
    other = {f"{prefix}tail.lora_{x}.weight": np.ones((3, 3), np.float32) for x in "AB"}
    changed(other, mismatch, "has no linear layer 'tail'; it has first, body.0")
    save_file(arrays, path)
    names = {"heads.a.weight": "body.0.weight"}
    refused(
        lambda model: nn.load_lora(model, tmp_path, rename=lambda n: names.get(n, n)), mismatch,
        "two adapters for body.0: body.0, heads.a",
    )  # fmt: skip
    path.write_bytes(path.read_bytes()[:-1])
    refused(lambda model: nn.load_lora(model, tmp_path), damaged, "cannot be read as safetensors")


def test_two_adapters_of_one_base_are_told_of() -> None:
    """They share its matrix: in one model by mistake, in two perhaps to have it in memory once."""
    base = nn.Linear(4, 3, generator=Generator(0))
    first = nn.LoraLinear(base, 1, generator=Generator(1))
    told = "LoraLinear: its base is that of another LoraLinear, and they share one frozen matrix"
    with pytest.warns(UserWarning, match=told) as heard:
        second = nn.LoraLinear(base, 1, generator=Generator(2))
    assert heard[0].filename == __file__
    assert second.weight is first.weight
    with pytest.warns(UserWarning, match=r"^FrozenLinear: .* another LoraLinear"):
        nn.FrozenLinear(base)
    one, two = (nn.Sequential(nn.Linear(2, 2, generator=Generator(0))) for _ in range(2))
    two.replace_child("0", one[0])
    adapters = nn.lora(one, 1)
    with pytest.warns(UserWarning, match=told):
        nn.lora(two, 1)
    assert len(adapters.layers) == 1
    nn.FrozenLinear(base, storage="8bit")  # a matrix of its own
    nn.FrozenLinear(copy.deepcopy(base))
    del first, second
    nn.FrozenLinear(base)  # the others are gone


def test_the_base_of_an_adapter_is_a_linear_layer() -> None:
    adapter: Any = nn.LoraLinear(nn.Linear(4, 3), 1)
    with pytest.raises(
        TypeError, match="LoraLinear: base must be a Linear, not LoraLinear, whose "
    ):
        nn.LoraLinear(adapter, 1)
    other: Any = nn.ReLU()
    with pytest.raises(TypeError, match="FrozenLinear: base must be a Linear, not ReLU"):
        nn.FrozenLinear(other)


@pytest.mark.parametrize("storage", ["same", "float16", "8bit"])
def test_what_an_optimizer_trains_is_not_frozen_unsaid(storage: Storage) -> None:
    base, plain = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
    owner: Any = Owner()
    for parameter in (*base.parameters(), *plain.parameters()):
        parameter._owner = weakref.ref(owner)
    said = r"Linear: parameter '.*' of its base is owned by Owner\(\), whose training"
    made: list[Callable[[], object]] = [
        lambda: nn.FrozenLinear(base, storage=storage),
        lambda: nn.LoraLinear(base, 2, storage=storage),
    ]
    for make in made:
        with pytest.raises(OwnershipError, match=said):
            make()
        assert all(parameter.requires_grad for parameter in base.parameters())
    if storage != "same":
        nn.FrozenLinear(plain, storage=storage)  # a copy, of whatever is trained
        assert plain.weight.requires_grad
    base.freeze()
    nn.FrozenLinear(base, storage=storage)  # nothing ends that has not ended
    nn.FrozenLinear(nn.Linear(4, 3), storage=storage)
