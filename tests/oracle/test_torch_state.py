"""A run is moved from PyTorch to rumus and back halfway, and continues as if it had stayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from optimizer_table import IN_TORCH

from rumus.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Muon,
    NAdam,
    ParameterGroup,
    RAdam,
    RMSprop,
    Rprop,
    load_torch_state,
    torch_state,
)
from rumus.tensor import Backend, Parameter, StateMismatchError, tensor

STEPS: Final = 20
SHAPES: Final = ((7,), (3, 5), (2, 1, 3), (4, 4))
NAMES: Final = [f"p{number}" for number in range(len(SHAPES))]
OPTIONS: Final[list[tuple[type[Any], dict[str, Any]]]] = [
    (SGD, {"lr": 0.05}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.5}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (Adam, {"weight_decay": 0.1}),
    (Adam, {"amsgrad": True, "maximize": True}),
    (AdamW, {}),
    (AdamW, {"lr": 0.01, "amsgrad": True, "betas": (0.5, 0.9)}),
    (Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.5, "lr_decay": 0.01}),
    (RMSprop, {"weight_decay": 0.1}),
    (RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.5}),
    (Adadelta, {}),
    (Adamax, {}),
    (NAdam, {}),
    (NAdam, {"momentum_decay": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (RAdam, {}),
    (RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (Rprop, {"step_sizes": (1e-3, 0.0625)}),
    (ASGD, {}),
    (Adafactor, {"lr": 0.1, "weight_decay": 0.1}),
    (Adafactor, {"lr": 0.1, "eps": (1e-20, 1e-2), "d": 2.0, "beta2_decay": -0.5}),
    (ASGD, {"lr": 0.02, "lambd": 0.01, "alpha": 0.6, "t0": 5, "weight_decay": 0.1}),
]


def normal(seed: int) -> list[NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    return [draw.normal(size=shape).astype(np.float32) for shape in SHAPES]


def our_step(optimizer: Any, parameters: list[Parameter], seed: int) -> None:
    pairs = zip(parameters, normal(seed), strict=True)
    parts = [((p - tensor(a, backend=p.backend)) ** 2).sum() for p, a in pairs]
    optimizer.step(sum(parts[1:], parts[0]).backward())


def their_step(optimizer: Any, parameters: list[Any], seed: int) -> None:
    optimizer.zero_grad()
    pairs = zip(parameters, normal(seed), strict=True)
    torch.stack([((p - torch.from_numpy(a)) ** 2).sum() for p, a in pairs]).sum().backward()
    optimizer.step()


def ours(arrays: list[Any], backend: Backend | None = None) -> list[Parameter]:
    chosen = backend or Parameter(0.0).backend
    named = zip(NAMES, arrays, strict=True)
    return [Parameter(np.asarray(a), name=name, backend=chosen) for name, a in named]


def theirs(kind: type[Any], options: Mapping[str, Any]) -> tuple[list[Any], Any]:
    parameters = [torch.nn.Parameter(torch.from_numpy(a)) for a in normal(0)]
    return parameters, getattr(torch.optim, kind.__name__)(parameters, **options)


def agree(mine: list[Parameter], other: list[Any], rtol: float) -> None:
    for p, q in zip(mine, other, strict=True):
        wanted = q.detach().numpy()
        error = float(np.linalg.norm(p.numpy() - wanted))
        assert error <= rtol * float(np.linalg.norm(wanted))


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_from_pytorch(kind: type[Any], options: dict[str, Any]) -> None:
    from_pytorch(kind, options, Parameter(0.0).backend)


def test_on_every_backend(backend: Backend) -> None:
    from_pytorch(*OPTIONS[6], backend)
    to_pytorch(*OPTIONS[6], backend)


def from_pytorch(kind: type[Any], options: dict[str, Any], backend: Backend) -> None:
    other, there = theirs(kind, options)
    for seed in range(STEPS):
        their_step(there, other, seed)
    mine = ours([q.detach().numpy().copy() for q in other], backend)
    here = kind(mine, **options)
    steps = STEPS if kind is SGD else None
    load_torch_state(here, there.state_dict(), NAMES, steps=steps)
    assert here.steps == STEPS
    for seed in range(STEPS, 2 * STEPS):
        their_step(there, other, seed)
        our_step(here, mine, seed)
    agree(mine, other, 2e-6)


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_to_pytorch(kind: type[Any], options: dict[str, Any]) -> None:
    to_pytorch(kind, options, Parameter(0.0).backend)


def to_pytorch(kind: type[Any], options: dict[str, Any], backend: Backend) -> None:
    mine = ours(list(normal(0)), backend)
    here = kind(mine, **options)
    for seed in range(STEPS):
        our_step(here, mine, seed)
    other, there = theirs(kind, options)
    for p, q in zip(mine, other, strict=True):
        q.data.copy_(torch.from_numpy(p.numpy()))
    there.load_state_dict(torch_state(here, NAMES, tensor=torch.from_numpy))
    for seed in range(STEPS, 2 * STEPS):
        their_step(there, other, seed)
        our_step(here, mine, seed)
    agree(mine, other, 2e-6)


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_before_the_first_step(kind: type[Any], options: dict[str, Any]) -> None:
    other, there = theirs(kind, options)
    mine = ours(list(normal(0)))
    here = kind(mine, **options)
    load_torch_state(here, there.state_dict(), NAMES, steps=0 if kind is SGD else None)
    there.load_state_dict(torch_state(here, NAMES, tensor=torch.from_numpy))
    for seed in range(3):
        their_step(there, other, seed)
        our_step(here, mine, seed)
    agree(mine, other, 1e-6)


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_there_and_back_changes_no_bit(kind: type[Any], options: dict[str, Any]) -> None:
    mine = ours(list(normal(0)))
    here = kind(mine, **options)
    for seed in range(3):
        our_step(here, mine, seed)
    again = kind(ours(list(normal(0))), **options)
    load_torch_state(again, torch_state(here, NAMES), NAMES, steps=3 if kind is SGD else None)
    first, second = (o.state_dict()["parameters"] for o in (here, again))
    for name in NAMES:
        assert first[name]["steps"] == second[name]["steps"] == 3
        for part, array in first[name]["state"].items():
            np.testing.assert_array_equal(array, second[name]["state"][part])
            assert not np.shares_memory(array, second[name]["state"][part])


def test_groups_schedules_and_names_of_pytorch() -> None:
    parameters = [torch.nn.Parameter(torch.from_numpy(a)) for a in normal(0)]
    pairs = list(zip(NAMES, parameters, strict=True))
    groups = [{"params": pairs[2:], "weight_decay": 0.0}, {"params": pairs[:2]}]
    there = torch.optim.AdamW(groups, lr=0.125, weight_decay=0.25)
    decay = torch.optim.lr_scheduler.ExponentialLR(there, 0.5)
    for seed in range(3):
        their_step(there, parameters, seed)
        decay.step()
    mine = ours([q.detach().numpy().copy() for q in parameters])
    split = [ParameterGroup(mine[:2]), ParameterGroup(mine[2:], weight_decay=0.0)]
    here = AdamW(split, lambda t: 0.125 * 0.5 ** (t - 1), weight_decay=0.25)
    load_torch_state(here, there.state_dict())
    order = [*NAMES[2:], *NAMES[:2]]
    written = torch_state(here, order, tensor=torch.from_numpy)
    assert [group["params"] for group in written["param_groups"]] == [[0, 1], [2, 3]]
    assert [group["lr"] for group in written["param_groups"]] == [0.015625] * 2
    there.load_state_dict(written)
    our_step(here, mine, 4)
    their_step(there, parameters, 4)
    agree(mine, parameters, 1e-6)


def changed(**groups: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["param_groups"][0].update(groups)


def part(number: int, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["state"][number].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(lr=0.5), "'p0': lr saved 0.5, here 0.01"),
        (changed(betas=(0.9, 0.99)), "'p3': betas saved"),
        (changed(amsgrad=True), "amsgrad saved True, here False"),
        (changed(decoupled_weight_decay=True), "decoupled_weight_decay saved True"),
        (changed(maximize=True), "maximize saved True"),
        (changed(eps=None), "eps saved None"),
        (lambda saved: saved["param_groups"][0].pop("betas"), "no 'betas': is it of another"),
        (changed(params=[0, 1, 2]), "parameters: saved 3, but 4 names"),
        (lambda saved: saved.pop("state"), "is it an optimizer's state_dict"),
        (part(1, "step", 2.5), "'p1': step 2.5 is not a count"),
        (part(1, "step", -1), "'p1': step -1 is not a count"),
        (part(1, "step", 7), "these parameters step together"),
        (part(1, "exp_avg", torch.zeros(5, 3)), r"'p1': state 'm' is float32 of shape \(5, 3\)"),
        (part(1, "exp_avg", torch.zeros(3, 5).double()), "'p1': state 'm' is float64"),
        (
            part(1, "exp_avg", torch.zeros(3, 5).bfloat16()),
            "'p1': 'exp_avg' cannot be read as a NumPy array",
        ),
        (part(1, "max_exp_avg_sq", torch.zeros(3, 5)), "'p1': saved 'max_exp_avg_sq', not here"),
        (lambda saved: saved["state"][2].pop("exp_avg_sq"), "'p2': 'exp_avg_sq' here, not saved"),
        (lambda saved: saved["state"].update({2: [1]}), "'p2': its state is not a mapping"),
        (lambda saved: saved.update(param_groups=[3]), "is it an optimizer's state_dict"),
        (lambda saved: saved["state"].update({9: {}}), "parameter 9: saved, but in no group"),
    ],
)
def test_a_state_that_does_not_fit(change: Callable[[dict[str, Any]], None], message: str) -> None:
    other, there = theirs(Adam, {"lr": 0.01})
    their_step(there, other, 0)
    saved = there.state_dict()
    change(saved)
    here = Adam(ours(list(normal(0))), lr=0.01)
    with pytest.raises(StateMismatchError, match=message):
        load_torch_state(here, saved, NAMES)
    assert here.steps == 0
    assert not here.state_dict()["parameters"]["p0"]["state"]["m"].any()


def test_every_difference_is_in_one_error() -> None:
    other, there = theirs(AdamW, {"lr": 0.01})
    their_step(there, other, 0)
    saved = there.state_dict()
    part(1, "exp_avg", torch.zeros(2))(saved)
    with pytest.raises(StateMismatchError) as caught:
        load_torch_state(AdamW(ours(list(normal(0))), lr=0.5), saved, NAMES)
    for text in ("'p0': lr", "'p3': lr", "'p1': state 'm'"):
        assert text in str(caught.value)


def test_swapped_names_of_other_shapes_and_wrong_names() -> None:
    other, there = theirs(AdamW, {})
    their_step(there, other, 0)
    here = AdamW(ours(list(normal(0))))
    with pytest.raises(StateMismatchError, match="'p1': state 'm'"):
        load_torch_state(here, there.state_dict(), ["p1", "p0", "p2", "p3"])
    with pytest.raises(StateMismatchError, match=r"'x': named, not here\n.*'p3': here, not named"):
        load_torch_state(here, there.state_dict(), ["p0", "p1", "p2", "x"])
    with pytest.raises(StateMismatchError, match="'p0': named twice"):
        load_torch_state(here, there.state_dict(), ["p0", "p1", "p2", "p0"])
    with pytest.raises(StateMismatchError, match="give the names in PyTorch's order"):
        load_torch_state(here, there.state_dict())
    with pytest.raises(ValueError, match="'p3': here, not named"):
        torch_state(here, NAMES[:3])


def test_a_learning_rate_that_is_a_tensor_and_keys_that_went_through_json() -> None:
    other, there = theirs(Adam, {"lr": torch.tensor(0.01)})
    their_step(there, other, 0)
    saved = there.state_dict()
    saved["state"] = {str(number): entry for number, entry in saved["state"].items()}
    here = Adam(ours(list(normal(0))), lr=0.01)
    load_torch_state(here, saved, NAMES)
    assert here.steps == 1


def test_hyperparameters_of_ours() -> None:
    other, there = theirs(AdamW, {"lr": 0.01})
    their_step(there, other, 0)
    here = AdamW(ours(list(normal(0))), lr=0.5)
    load_torch_state(here, there.state_dict(), NAMES, hyper="ours")
    assert (here.steps, here.hyper["lr"]) == (1, 0.5)


def test_stored_numbers_of_pytorch_must_match_the_formula() -> None:
    for kind, key in ((NAdam, "mu_product"), (ASGD, "eta")):
        other, there = theirs(kind, {"lr": 0.01})
        their_step(there, other, 0)
        saved = there.state_dict()
        saved["state"][0][key] = torch.tensor(0.75)
        with pytest.raises(StateMismatchError, match=f"'p0': {key} saved"):
            load_torch_state(kind(ours(list(normal(0))), lr=0.01), saved, NAMES)


def test_optimizers_that_pytorch_lacks_and_steps_where_they_do_not_belong() -> None:
    with pytest.raises(TypeError, match="PyTorch has no Lion; it has SGD, Adam"):
        load_torch_state(Lion(ours(list(normal(0)))), {}, NAMES)
    with pytest.raises(TypeError, match="PyTorch has no Lion"):
        torch_state(Lion(ours(list(normal(0)))), NAMES)
    with pytest.raises(TypeError, match="steps"):
        load_torch_state(AdamW(ours(list(normal(0)))), {}, NAMES, steps=3)
    with pytest.raises(TypeError, match="steps"):
        load_torch_state(SGD(ours(list(normal(0)))), {}, NAMES)


def test_names_of_a_group_stand_together() -> None:
    mine = ours(list(normal(0)))
    here = SGD([ParameterGroup(mine[::2], lr=0.5), ParameterGroup(mine[1::2])])
    with pytest.raises(ValueError, match="next to each other"):
        torch_state(here, NAMES)


def test_there_is_every_optimizer_of_both() -> None:
    assert {kind for kind, _ in OPTIONS} == set(IN_TORCH) - {Muon}  # which has its own test


def test_muon() -> None:
    """PyTorch's step uses bfloat16, so the momentum is compared, with equal gradients."""
    shapes = ((3, 5), (4, 4))
    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.2}
    draw = np.random.default_rng(3)
    gradients = [[draw.normal(size=s).astype(np.float32) for s in shapes] for _ in range(8)]
    other = [torch.nn.Parameter(torch.ones(s)) for s in shapes]
    mine = [Parameter(np.ones(s), name=name) for s, name in zip(shapes, NAMES, strict=False)]
    there, here = torch.optim.Muon(other, **options), Muon(mine, **options)

    def both(of_steps: list[list[Any]]) -> None:
        for of_step in of_steps:
            for q, g in zip(other, of_step, strict=True):
                q.grad = torch.from_numpy(g)
            there.step()
            pairs = zip(mine, of_step, strict=True)
            parts = [(p * tensor(g)).sum() for p, g in pairs]
            here.step(sum(parts[1:], parts[0]).backward())

    for of_step in gradients[:3]:
        for q, g in zip(other, of_step, strict=True):
            q.grad = torch.from_numpy(g)
        there.step()
    load_torch_state(here, there.state_dict(), NAMES[:2], steps=3)
    assert here.steps == 3
    both(gradients[3:6])
    there.load_state_dict(torch_state(here, NAMES[:2], tensor=torch.from_numpy))
    both(gradients[6:])
    for number, name in enumerate(NAMES[:2]):
        buffer = there.state_dict()["state"][number]["momentum_buffer"].numpy()
        own = here.state_dict()["parameters"][name]["state"]["b"]
        np.testing.assert_allclose(own, buffer, rtol=1e-5, atol=1e-6)
    saved = there.state_dict()
    saved["param_groups"][0] |= {"ns_steps": 4, "adjust_lr_fn": "match_rms_adamw"}
    with pytest.raises(StateMismatchError, match=r"ns_steps saved 4, here 5") as raised:
        load_torch_state(here, saved, NAMES[:2], steps=3)
    assert "adjust_lr_fn saved match_rms_adamw, here original" in str(raised.value)


def test_a_muon_that_steps_more_than_matrices_is_refused() -> None:
    optimizer = Muon([Parameter(np.ones((2, 2)), name="w"), Parameter(np.ones(2), name="b")])
    with pytest.raises(TypeError, match=r"takes only matrices.*a separate AdamW"):
        torch_state(optimizer, ["w", "b"])
