"""A report in a browser, and the pictures of docs/training.md: `nox -s report`.

Needs chromium: `apt-get install chromium`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rumus import nn
from rumus.optim import AdamW, cosine, warmup
from rumus.tensor import Generator, Tensor
from rumus.train import (
    ArrayDataset,
    Callback,
    CheckpointSaved,
    DataLoader,
    RunFolder,
    StepEnd,
    Trainer,
    TrainStart,
    ValidationEnd,
    metrics,
    plot_runs,
)
from rumus.train.loop.progress import Progress
from rumus.train.views.live_panel import panel

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
RATES = {"lr-0.001": 1e-3, "lr-0.01": 1e-2, "lr-0.1": 1e-1}
EPOCHS = 40
# A browser contacts its vendor for updates and the time, whatever page it shows.
OWN = ("google.com", "googleapis.com", "gvt1.com")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--hide-scrollbars",
)  # fmt: skip


class Panel(Callback):
    """Draws the live view into an SVG, in the middle of a run."""

    order = 60

    def __init__(self, at: int) -> None:
        self.at = at
        self.text = ""

    def on_train_start(self, event: TrainStart) -> None:
        self.progress = Progress(event.run)
        self.progress.start(event)

    def on_step_end(self, event: StepEnd) -> None:
        from time import perf_counter

        self.progress.samples += event.samples
        if event.step % 20 == 0:
            self.progress.look(event, perf_counter())
        if event.step == self.at:
            self.text = drawn(self.progress)

    def on_validation_end(self, event: ValidationEnd) -> None:
        self.progress.validated(event)

    def on_checkpoint(self, event: CheckpointSaved) -> None:
        self.progress.saved(event)


def drawn(progress: Progress) -> str:
    import io

    from rich.console import Console

    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True)
    console.print(panel(progress))
    text = console.export_svg(title="training")
    return re.sub(r"@font-face \{.*?\}", "", text, flags=re.DOTALL)  # they would be loaded


def spirals(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Points of three arms of a spiral, and the arm of each."""
    random = np.random.default_rng(seed)
    arm, radius = random.integers(0, 3, count), random.uniform(0.1, 1, count)
    angle = 5 * radius + arm * 2 * np.pi / 3 + random.normal(0, 0.15, count)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype(np.float32), arm.astype(np.int32)


def train(path: Path, lr: float, *callbacks: Callback) -> None:
    points, arms = spirals(2400, 0)
    seen, unseen = ArrayDataset(points[:2000], arms[:2000]), (points[2000:], arms[2000:])
    random = Generator(3)
    model = nn.Sequential(
        nn.Linear(2, 64, generator=random), nn.Tanh(), nn.Linear(64, 64, generator=random),
        nn.Tanh(), nn.Linear(64, 3, generator=random),
    )  # fmt: skip
    total = EPOCHS * 40
    optimizer = AdamW(model.parameters(), warmup(total // 10).then(cosine(lr, total * 9 // 10)))
    config = {"width": 64, "epochs": EPOCHS, "batch": 50, "optim": {"name": "AdamW", "lr": lr}}
    folder = RunFolder(path, config=config, seed=3)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    def measure(x: Tensor, y: Tensor) -> dict[str, Any]:
        logits = model(x)
        loss, arms = nn.cross_entropy_loss(logits, y), metrics.confusion_matrix(logits, y)
        return {"loss": loss, "accuracy": arms}

    Trainer(optimizer, state={"model": model}).fit(
        DataLoader(seen, 50, shuffle=True, seed=3), loss, epochs=EPOCHS,
        validate=([unseen], measure), callbacks=[folder, *callbacks],
        checkpoints=folder.checkpoints, profile_steps=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Three trainings with different learning rates; one is drawn in the live view."""
    monkeypatch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("runs")
    live = Panel(at=1000)
    for name, lr in RATES.items():
        monkeypatch.setattr(sys, "argv", ["train.py", "--lr", str(lr)])
        train(folder / name, lr, *([live] if name == "lr-0.01" else []))
    assert live.text
    (PICTURES / "live.svg").write_text(live.text, encoding="utf-8")
    yield [folder / name for name in RATES]
    monkeypatch.undo()


def look(page: Path, picture: Path, *flags: str) -> tuple[list[str], set[str]]:
    """Show a page, save a picture; return console messages and requested hosts."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is not installed: apt-get install chromium"
    profile, log = picture.with_suffix(".profile"), picture.with_suffix(".json")
    command = [
        chromium, *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}",
        f"--screenshot={picture}", *flags, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    hosts = {
        urlsplit(url).hostname or "" for url in re.findall(r'"url":"([^"]+)"', log.read_text())
    }
    return said, {host for host in hosts if host and not host.endswith(OWN)}


def pixels(picture: Path) -> NDArray[np.uint8]:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(("name", "scheme"), [("report", 1), ("report-dark", 0)])
def test_the_page_in_a_browser(runs: list[Path], tmp_path: Path, name: str, scheme: int) -> None:
    picture = tmp_path / f"{name}.png"
    flags = ("--window-size=1240,1900", f"--blink-settings=preferredColorScheme={scheme}")
    said, hosts = look(runs[1] / "report.html", picture, *flags)
    assert said == []
    assert hosts == set()
    found = pixels(picture)
    bright = bool(found[3, 3].mean() > 128)
    assert bright == (scheme == 1)
    for part in np.array_split(found, 4):  # no quarter of it is blank
        assert part.std() > 5
    blue = np.array([0x25, 0x63, 0xC9] if bright else [0x6E, 0xA3, 0xF7])
    assert (np.abs(found - blue.astype(int)).sum(axis=2) < 8).sum() > 500  # the lines are drawn
    with Image.open(picture) as image:
        image.quantize(64).save(PICTURES / picture.name, optimize=True)


def test_requests_and_console_messages_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://report.invalid/x.png"><script>nothing()</script>')
    said, hosts = look(page, tmp_path / "page.png")
    assert hosts == {"report.invalid"}
    assert any("nothing is not defined" in line for line in said)


def test_the_pointer_is_answered(runs: list[Path], tmp_path: Path) -> None:
    """The page's own script reacts to mouse events from the test's script."""
    text = (runs[1] / "report.html").read_text(encoding="utf-8")
    move = (
        'const s=document.querySelector("svg"),b=s.getBoundingClientRect();s.dispatchEvent('
        'new MouseEvent("mousemove",{clientX:b.left+b.width/2,clientY:b.top+9}));'
    )
    page = tmp_path / "moved.html"
    page.write_text(text.replace("</script></body>", f"{move}</script></body>"), encoding="utf-8")
    chromium = shutil.which("chromium") or "chromium"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [chromium, *FLAGS, profile, "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(
        r"<output>(step [\d,]+: training [\d.e-]+, validation [\d.e-]+)</output>", shown
    )
    assert found, json.dumps(re.findall(r"<output>.*?</output>", shown))


def test_the_picture_of_the_runs(runs: list[Path], tmp_path: Path) -> None:
    picture = plot_runs(runs, tmp_path / "runs.png")
    assert pixels(picture).std() > 10
    with Image.open(picture) as image:
        image.quantize(64).save(PICTURES / picture.name, optimize=True)


CELLS = (
    """import numpy as np
from sklearn.datasets import load_digits
from rumus import nn
from rumus.optim import AdamW
from rumus.train import ArrayDataset, DataLoader, Trainer, metrics, random_split

images, labels = load_digits(return_X_y=True)
whole = ArrayDataset((images / 16).astype(np.float32), labels)
train, test = random_split(whole, [0.8, 0.2], seed=0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
trainer = Trainer(AdamW(model.parameters(), 3e-3), state={"model": model})""",
    """def loss(x, y):
    return nn.cross_entropy_loss(model(x), y)

def scores(x, y):
    logits = model(x)
    return {"loss": nn.cross_entropy_loss(logits, y), "f1": metrics.f1(logits, y)}

trainer.fit(DataLoader(train, 32, shuffle=True, seed=0), loss, epochs=8,
            validate=(DataLoader(test, 256), scores))""",
)


def test_a_notebook_in_a_browser(tmp_path: Path) -> None:
    """Run by nbconvert, and shown as nbconvert's page."""
    nbformat = pytest.importorskip("nbformat")
    nbconvert = pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    run = nbconvert.preprocessors.ExecutePreprocessor(timeout=120)
    run.preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    page, picture = tmp_path / "notebook.html", tmp_path / "notebook.png"
    page.write_text(html, encoding="utf-8")
    look(page, picture, "--window-size=860,860")
    found = pixels(picture).astype(int)
    bar = np.abs(found - np.array([0x4C, 0x8B, 0xF5])).sum(axis=2) < 8
    assert bar.sum(axis=1).max() > 600  # it is full
    assert "<table><tr><th>ended by</th><td>epochs</td></tr>" in html
    with Image.open(picture) as image:
        image.convert("RGB").quantize(64).save(PICTURES / picture.name, optimize=True)
