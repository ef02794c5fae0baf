"""The optimizers as the README shows them: its Python blocks run verbatim.

They run in order in one program, with nothing defined beforehand.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD, Adam, AdamW, Optimizer
from rumus.tensor import AutogradError, Generator, GradientStore, NumpyBackend
from rumus.train import Trainer

README: Final = Path(__file__).parents[2] / "README.md"
_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Calls that the README's blocks must contain: the seed's snippets, in Python.
SHOWN: Final = (
    r"from rumus\.optim import .*\bSGD\b",
    r"from rumus\.optim import .*\bAdam\b",
    r"from rumus\.optim import .*\bAdamW\b",
    r"from rumus\.train import Trainer",
    r"from rumus import nn",
    r"SGD\(.*parameters\(\), 0\.01\)",
    r"SGD\(.*parameters\(\), 0\.01, momentum=0\.9\)",
    r"Adam\(.*parameters\(\), 0\.001\)",
    r"AdamW\(.*parameters\(\), (lr=)?0\.001",
    r"grads(: GradientStore)? = loss\.backward\(\)",
    r"optimizer\.step\(grads\)",
    r"model\.(to_gpu|to)\(",
    r"logits = model\.forward\(inputs\)",
    r"nn\.cross_entropy_loss\(logits, targets\)",
    r"Trainer\(optimizer\)",
    r"trainer\.train_step\(",
    r"avg_loss = trainer\.epoch_avg_loss\(\)",
)


@cache
def blocks() -> tuple[tuple[int, str], ...]:
    """The README's Python blocks, each with the line number above it."""
    text = README.read_text(encoding="utf-8")
    found = _BLOCK.finditer(text)
    return tuple((text[: block.start(1)].count("\n"), block[1]) for block in found)


def test_every_block_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them saves a file
    assert len(blocks()) >= 8
    names: dict[str, Any] = {"__name__": "readme"}
    for line, text in blocks():
        tree = ast.increment_lineno(ast.parse(text), line)  # an error then names the README's line
        exec(compile(tree, str(README), "exec"), names)
    printed = re.findall(r"^Epoch (\d+): loss = \d+\.\d{4}$", capsys.readouterr().out, re.MULTILINE)
    assert printed == ["0", "1", "2"]


def test_no_block_escapes_the_test() -> None:
    """A fence with another spelling would not be found."""
    text = README.read_text(encoding="utf-8")
    fences = re.findall(r"^ *[`~]{3,} *(?:py|python)\S*.*$", text, re.MULTILINE | re.IGNORECASE)
    assert fences == ["```python"] * len(blocks())


@pytest.mark.parametrize("pattern", SHOWN)
def test_the_readme_shows(pattern: str) -> None:
    assert any(re.search(pattern, text) for _, text in blocks())


# What the snippets promise


def problem() -> tuple[nn.Sequential, Any, Any]:
    random = Generator(0)
    layers = nn.Linear(6, 8, generator=random), nn.ReLU(), nn.Linear(8, 3, generator=random)
    return nn.Sequential(*layers), random.uniform((5, 6)), random.integers(0, 3, (5,))


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_one_interface(kind: type[Any]) -> None:
    model, inputs, targets = problem()
    optimizer: Optimizer[Any] = kind(model.parameters(), 0.01)
    grads: GradientStore = nn.cross_entropy_loss(model.forward(inputs), targets).backward()
    optimizer.step(grads)
    assert len(grads) == 0
    with pytest.raises(AutogradError):
        optimizer.step(grads)


def test_gradients_of_others_stay_in_the_store() -> None:
    model, inputs, targets = problem()
    first, last = (SGD(model[i].parameters(), 0.01) for i in (0, 2))
    grads = nn.cross_entropy_loss(model.forward(inputs), targets).backward()
    first.step(grads)
    assert list(grads) == list(last.parameters)
    last.step(grads)
    assert len(grads) == 0


def test_the_optimizer_may_be_made_before_the_model_moves() -> None:
    runs = []
    for moves in (False, True):
        model, inputs, targets = problem()
        optimizer = AdamW(model.parameters(), 0.001)
        if moves:
            backend = NumpyBackend()
            model.to(backend)
            inputs, targets = inputs.to(backend), targets.to(backend)
        for _ in range(3):
            grads = nn.cross_entropy_loss(model.forward(inputs), targets).backward()
            optimizer.step(grads)
        runs.append([p.numpy() for p in model.parameters()])
    for still, moved in zip(*runs, strict=True):
        np.testing.assert_allclose(still, moved, rtol=1e-5, atol=1e-7)


def test_the_training_loop() -> None:
    model, inputs, targets = problem()
    optimizer = Adam(model.parameters(), 0.01)
    trainer = Trainer(optimizer)
    averages = []
    for _ in range(20):
        for _ in range(5):
            trainer.train_step(lambda: nn.cross_entropy_loss(model.forward(inputs), targets))
        averages.append(trainer.epoch_avg_loss())
    assert averages[-1] < 0.5 * averages[0]
    assert trainer.optimizer.steps == 100
