"""A model from a finished run: loaded without an optimizer, called from several threads, served."""

from __future__ import annotations

import json
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.optim import ASGD, EMA, SGD, SWA, ScheduleFreeSGD
from rumus.tensor import Backend, Generator, StateMismatchError, no_grad, tensor
from rumus.train import CheckpointError, NoCheckpointError, RunFolder, Trainer, load_model

GUIDE = Path(__file__).parents[2] / "docs" / "prediction.md"
X = Generator(1).normal((64, 4)).numpy()
Y = X.sum(1, keepdims=True)


class Net(nn.Module):
    """Batch norm has buffers, dropout a random stream."""

    def __init__(self) -> None:
        generator = Generator(0)
        self.hidden = nn.Linear(4, 8, generator=generator)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5, generator=generator)
        self.output = nn.Linear(8, 1, generator=generator)

    def forward(self, x: Any) -> Any:
        return self.output(self.dropout(self.norm(self.hidden(x)).relu()))


def trained(folder: Path, make: Callable[[Any], Any], steps: int = 6) -> tuple[Net, Any]:
    """Train with a growing rate, so that the last weights are not the best."""
    model = Net()
    trainer = Trainer(make(model.parameters()), state={"model": model})
    run = RunFolder(folder, report=False, tensorboard=False)
    result = trainer.fit(
        [(X, Y)], lambda x, y: nn.mse_loss(model(x), y), epochs=steps,
        validate=([(X, Y)], lambda x, y: nn.mse_loss(model(x), y)),
        callbacks=[run], checkpoints=run.checkpoints,
    )  # fmt: skip
    return model, result


def loss(model: Net) -> float:
    return nn.mse_loss(model(tensor(X)), Y).item()


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda p: SGD(p, lambda step: 0.1 if step < 4 else 3.0),
    "EMA": lambda p: SGD(p, lambda step: 0.1 if step < 4 else 3.0, average=EMA(0.5)),
    "SWA": lambda p: SGD(p, 0.1, average=SWA(start=2)),
    "ASGD": lambda p: ASGD(p, 0.1),
    "schedule-free": lambda p: ScheduleFreeSGD(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_validated_model_is_served(name: str, tmp_path: Path) -> None:
    model, result = trained(tmp_path, OPTIMIZERS[name])
    assert loss(load_model(tmp_path, Net())) == result.best
    latest = load_model(tmp_path, Net, step="latest")
    assert loss(latest) == result.metrics["loss"]
    raw = load_model(tmp_path / "checkpoints", Net(), step="latest", average=False)
    assert all(
        (value == raw.state_dict()[path]).all() for path, value in model.state_dict().items()
    )
    checkpoint = tmp_path / "checkpoints" / f"step-{result.best_step:08d}"
    assert loss(load_model(checkpoint, Net())) == result.best


def test_a_loaded_model_makes_no_graph_and_evaluates(tmp_path: Path) -> None:
    trained(tmp_path, OPTIMIZERS["plain"])
    model = load_model(tmp_path, Net())
    assert not model(tensor(X)).requires_grad
    assert not any(each.training for each in model.modules())


def test_several_threads_get_what_one_does(backend: Backend, tmp_path: Path) -> None:
    trained(tmp_path, OPTIMIZERS["EMA"])
    model = load_model(tmp_path, Net()).to(backend)
    batches = [np.full((size, 4), size, np.float32) for size in (1, 3, 64, 5)] * 25
    ask: Callable[[Any], Any] = lambda x: model(tensor(x, backend=backend)).numpy()
    expected = [ask(x) for x in batches]
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, batches))
    finally:
        sys.setswitchinterval(before)
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_a_predicting_thread_does_not_affect_training() -> None:
    """What a thread switches off, such as graphs and dropout, is off only for that thread."""
    model, other = Net(), Net().eval().freeze()
    asked, go_on = threading.Event(), threading.Event()

    def ask() -> None:
        with no_grad():
            other(tensor(X))
            asked.set()
            go_on.wait()

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait()
    try:
        assert model(tensor(X)).requires_grad
    finally:
        go_on.set()
        thread.join()


def test_unloadable_models(tmp_path: Path) -> None:
    trained(tmp_path, OPTIMIZERS["plain"])
    for model in (None, Net()):
        with pytest.raises(FileNotFoundError, match=r"there is no run folder .*nowhere"):
            load_model(tmp_path / "nowhere", model)
    with pytest.raises(CheckpointError, match=r"not written by rumus train.*load_model\(path, mo"):
        load_model(tmp_path)
    with pytest.raises(StateMismatchError, match=r"output\.weight"):
        load_model(tmp_path, nn.Linear(4, 1))
    with pytest.raises(CheckpointError, match="did you mean 'model'"):
        load_model(tmp_path, Net(), name="modle")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        load_model(tmp_path / "other", Net())
    with pytest.raises(NoCheckpointError, match="of step 77"):
        load_model(tmp_path, Net(), step=77)
    with pytest.raises(ValueError, match="step must be"):
        load_model(tmp_path, Net(), step="newest")  # type: ignore[call-overload]


def test_the_web_service_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "runs" / "a", OPTIMIZERS["EMA"])
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    program = blocks[-1].replace("8000", "0").replace("server.serve_forever()", "")
    names: dict[str, Any] = {"Net": Net}
    exec(program, names)
    server: ThreadingHTTPServer = names["server"]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        ask: Callable[[Any], Any] = lambda rows: json.load(
            urllib.request.urlopen(url, json.dumps(rows).encode())
        )
        expected = load_model("runs/a", Net())(tensor(X)).numpy()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, [[row] for row in X.tolist()]))
        assert np.allclose(np.concatenate(found), expected, atol=1e-6)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask([[1.0]])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
