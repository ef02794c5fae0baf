"""A notebook, run by nbconvert: one panel, updated in place, a displayed result, an interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rumus.train import Checkpoints

nbformat: Any = pytest.importorskip("nbformat")
preprocessors: Any = pytest.importorskip("nbconvert.preprocessors")
pytest.importorskip("ipykernel")

BEGIN = """
import sys
sys.modules["numba"] = None
import os, signal
import numpy as np
from rumus import nn
from rumus.optim import SGD
from rumus.train import ArrayDataset, Callback, DataLoader, Trainer

x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
model = nn.Linear(4, 1)
trainer = Trainer(SGD(model.parameters(), 0.1), state={"model": model})
loader = DataLoader(ArrayDataset(x, x.sum(1, keepdims=True)), 4)
loss = lambda a, b: nn.mse_loss(model(a), b)
"""
TRAIN = "trainer.fit(loader, loss, epochs=3, validate=(loader, loss))"
INTERRUPTED = """
class Interrupt(Callback):
    def on_step_end(self, event):
        if event.step == 20:
            os.kill(os.getpid(), signal.SIGINT)

trainer.fit(loader, loss, epochs=4, callbacks=[Interrupt()], checkpoints="steps")
"""
IN_A_SAVE = """
sync, once = os.fsync, []

def interrupted(file):
    sync(file)
    if not once:
        once.append(os.kill(os.getpid(), signal.SIGINT))

os.fsync = interrupted
trainer.fit(loader, loss, epochs=4, checkpoints="saves")
"""
AFTER = """
os.fsync = sync
loader.seek(0)
print(trainer.fit(loader, loss, epochs=1, progress=None).steps)
"""


def test_a_notebook(tmp_path: Path) -> None:
    cells = [BEGIN, TRAIN, INTERRUPTED, IN_A_SAVE, AFTER]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    run = preprocessors.ExecutePreprocessor(timeout=120, allow_errors=True)
    run.preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    outputs = [cell["outputs"] for cell in notebook["cells"]]
    assert outputs[0] == []

    # One panel, updated in place, and the result.
    panel, result = outputs[1]
    assert panel["output_type"] == "display_data"
    for text in ("epoch 3/3", "step 48", "seed ", "validation", "width:100.0%"):
        assert text in panel["data"]["text/html"]
    assert "<table>" in result["data"]["text/html"]
    assert "validation loss" in result["data"]["text/html"]
    assert result["data"]["text/plain"].startswith("Result(ended by epochs, epochs 3, steps 48")

    # Interrupts look like interrupts, and the training so far is saved completely.
    for at, folder, step in ((2, "steps", 20), (3, "saves", None)):
        error = outputs[at][-1]
        assert error["output_type"] == "error", error
        assert error["ename"] == "KeyboardInterrupt"
        assert "SIGINT ended the training after step" in error["evalue"]
        checkpoints = Checkpoints(tmp_path / folder)
        saved = checkpoints.list()
        assert saved
        for each in saved:
            checkpoints.verify(each.path)
        if step is not None:
            assert checkpoints.latest == step
    assert outputs[4][0]["text"] == "16\n"
