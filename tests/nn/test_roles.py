"""Layers declare the role of each parameter, and parameters can be selected by it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from rumus.nn import Embedding, LayerNorm, Linear, Sequential
from rumus.tensor import Parameter, Parameters, tensor


def model() -> Sequential:
    return Sequential(Embedding(5, 4), LayerNorm(4), Linear(4, 3))


ROLES = {
    "0.weight": "embedding",
    "1.weight": "norm",
    "1.bias": "norm",
    "2.weight": "weight",
    "2.bias": "bias",
}


def test_roles_of_the_layers() -> None:
    found = model().parameters()
    assert {name: p.role for name, p in found.items()} == ROLES
    assert Parameter([1.0]).role == "weight"


def test_a_role_survives_copies_and_changes_of_the_value() -> None:
    copied = deepcopy(model())
    assert {name: p.role for name, p in copied.parameters().items()} == ROLES
    norm = Parameter([1.0], role="norm")
    norm[...] = tensor([2.0])
    assert (norm.role, norm.tolist()) == ("norm", [2.0])


def test_an_unknown_role_is_refused() -> None:
    wrong: Any = "gain"
    with pytest.raises(ValueError, match="'norm' or 'embedding', not 'gain'"):
        Parameter([1.0], role=wrong)
    with pytest.raises(ValueError, match="not 'gain'"):
        model().parameters().where(role=wrong)


def test_where_and_without_part_the_parameters() -> None:
    whole = model().parameters()
    criteria: list[tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]] = [
        ((), {"role": "norm"}, ("1.weight", "1.bias")),
        (("*.bias",), {}, ("1.bias", "2.bias")),
        (("[02].*",), {}, ("0.weight", "2.weight", "2.bias")),
        (("*.bias",), {"role": "norm"}, ("1.bias",)),
        ((lambda name, p: p.ndim < 2,), {}, ("1.weight", "1.bias", "2.bias")),
        ((lambda name, p: name[0] == "0",), {}, ("0.weight",)),
    ]
    for given, options, names in criteria:
        chosen, rest = whole.where(*given, **options), whole.without(*given, **options)
        assert chosen.names == names
        assert rest.names == tuple(name for name in whole.names if name not in names)
        assert whole.without(chosen).names == rest.names
        assert all(a is dict(whole.items())[name] for name, a in chosen.items())
    assert whole.without("*").names == ()
    assert whole.without(whole.where("0.*"), role="norm").names == ("2.weight", "2.bias")


def test_a_pattern_without_a_match_is_an_error() -> None:
    whole = model().parameters()
    for choose in (whole.where, whole.without):
        with pytest.raises(ValueError, match=r"'2\.wieght'; similar names: 2\.weight"):
            choose("2.wieght")
        with pytest.raises(ValueError, match=r"'\*\.BIAS'"):
            choose("*.BIAS")
        with pytest.raises(ValueError, match="the given function"):
            choose(lambda name, p: False)
        with pytest.raises(ValueError, match=r"'2\.weight' and the role 'bias'"):
            choose("2.weight", role="bias")
        with pytest.raises(TypeError, match="a pattern, a function"):
            choose()
        wrong: Any = 3
        with pytest.raises(TypeError, match=r"what must be a pattern, .*, not 3"):
            choose(wrong)
    with pytest.raises(ValueError, match=r"role 'norm'.*roles weight, bias"):
        Linear(2, 2).parameters().where(role="norm")
    with pytest.raises(ValueError, match="there are no parameters"):
        Parameters([]).where("*")
