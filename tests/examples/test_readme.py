"""README.md: its Python runs verbatim, and its errors have the stated messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from rumus import nn, tensor
from rumus.optim import SGD, Adam
from rumus.tensor import GradientStore, Parameter, Tensor, ones

README: Final = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ROWS: Final = re.findall(r"^\| .* \| `(\w+Error)` \| `(.*)` \|$", README, re.MULTILINE)


def test_the_python_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README.md, python block {number}", "exec"), namespace)
    losses = re.findall(r"^Epoch (\d): loss = (\d\.\d{4})$", capsys.readouterr().out, re.MULTILINE)
    assert [int(epoch) for epoch, _ in losses] == [0, 1, 2]
    assert float(losses[2][1]) < float(losses[0][1])


def test_the_readme_shows_every_snippet_of_the_interface() -> None:
    text = "\n".join(BLOCKS)
    for wanted in (
        "SGD(model.parameters(), 0.01)",
        "momentum=0.9",
        "loss.backward()",
        "optimizer.step(grads)",
        "model.to_gpu()",
        "Trainer(optimizer)",
        "trainer.train_step(",
        "trainer.epoch_avg_loss()",
    ):
        assert wanted in text


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 2))
    model.parameters()  # names them
    return model


def loss_of(model: nn.Sequential) -> Tensor:
    return model(ones((3, 4))).mean()


def claim_twice() -> None:
    model = two_layers()
    first = SGD(model.parameters())
    SGD(model.parameters())
    first.release()


def leave_out_a_layer() -> None:
    model = two_layers()
    optimizer = SGD(model.parameters())
    optimizer.step(model[0](ones((3, 4))).mean().backward())


def step_twice() -> None:
    model = two_layers()
    optimizer = SGD(model.parameters())
    grads = loss_of(model).backward()
    optimizer.step(grads)
    optimizer.step(grads)


def own_the_first_layer_only() -> None:
    model = two_layers()
    optimizer = SGD([p for p in model.parameters() if p.name.startswith("0.")])
    with loss_of(model).backward() as grads:
        optimizer.step(grads)


def give_a_wrong_shape() -> None:
    bias = two_layers().parameters()
    parameter = next(p for p in bias if p.name == "0.bias")
    GradientStore().accumulate(parameter, ones((3,)))


def change_before_backward() -> None:
    model = two_layers()
    loss = loss_of(model)
    next(iter(model.parameters())).assign(0.0)
    loss.backward()


def bring_infinity() -> None:
    model = two_layers()
    optimizer = SGD(model.parameters())
    grads = loss_of(model).backward()
    grads.accumulate(next(iter(model.parameters())), tensor.full((32, 4), np.inf))
    optimizer.step(grads)


def load_another_kind() -> None:
    state = SGD(two_layers().parameters()).state_dict()
    Adam(two_layers().parameters()).load_state_dict(state)


def train_in_float16() -> None:
    SGD([Parameter(np.zeros(3), name="half", dtype=np.float16)])


BREAKS: Final[dict[str, Callable[[], None]]] = {
    "OwnershipError": claim_twice,
    "MissingGradientError": leave_out_a_layer,
    "DrainedGradientError": step_twice,
    "UnclaimedGradientError": own_the_first_layer_only,
    "GradientMismatchError": give_a_wrong_shape,
    "ModifiedTensorError": change_before_backward,
    "NonFiniteGradientError": bring_infinity,
    "StateMismatchError": load_another_kind,
    "PrecisionError": train_in_float16,
}


def test_every_law_in_the_readme_is_violated_here() -> None:
    assert [error for error, _ in ROWS] == list(BREAKS)


@pytest.mark.parametrize(("error", "message"), ROWS)
def test_an_error_says_what_the_readme_says(error: str, message: str) -> None:
    with pytest.raises(getattr(tensor, error), match=re.escape(message)):
        BREAKS[error]()


def test_the_links_in_the_readme_work() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[2] / link).exists(), link
