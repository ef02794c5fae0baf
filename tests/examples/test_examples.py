"""Each program of docs/examples, run as a reader runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from rumus import nn
from rumus.train import read_metrics
from rumus.train.command_line.main import main

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ENVIRONMENT = {
    "XDG_RUNTIME_DIR": tempfile.gettempdir(),  # Mesa's drivers complain where there is none
    **os.environ,
    "OPENBLAS_NUM_THREADS": "1",  # small matrices: several threads would wait for each other
}


def run(name: str, *arguments: object, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", warnings, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)


def output(name: str, *arguments: object, code: int = 0) -> str:
    """A program's output; it must exit with this code and without warnings."""
    done = run(name, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def percentages(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern + r" +([\d.]+)%", text)]


def check_picture(path: Path) -> None:
    """Check that a picture is not blank: there are several shades in each of its quarters."""
    picture = pyplot.imread(path)
    assert picture.shape[0] > 300
    assert picture.shape[1] > 500
    for half in np.array_split(picture[..., :3], 2, axis=0):
        for quarter in np.array_split(half, 2, axis=1):
            assert len(np.unique(quarter)) > 50


def test_digits(tmp_path: Path) -> None:
    text = output("digits.py", tmp_path / "folder" / "digits.png")
    assert re.search(r"^backend: (numpy|numba|gpu, .+)$", text, re.MULTILINE)
    assert "1347 digits to train on, 450 to test on" in text
    accuracies = percentages("epoch .* test accuracy", text)
    losses = [float(loss) for loss in re.findall(r"epoch .* loss ([\d.]+)", text)]
    assert len(accuracies) == len(losses) == 30
    assert losses[-1] < 0.2 * losses[0]
    assert percentages("final test accuracy", text) == accuracies[-1:]
    assert accuracies[-1] >= 97
    assert "\x1b" not in text  # no progress bar outside a terminal
    check_picture(tmp_path / "folder" / "digits.png")


def test_digits_fails_when_the_model_is_not_good_enough(tmp_path: Path) -> None:
    done = run("digits.py", "--epochs", 1, tmp_path / "digits.png")
    assert done.returncode == 1
    assert done.stderr == ""
    assert percentages("final test accuracy", done.stdout)[0] < 97
    check_picture(tmp_path / "digits.png")


@pytest.mark.needs_gpu
def test_digits_on_a_gpu(tmp_path: Path) -> None:
    """Including a software GPU."""
    text = output("digits.py", "--gpu", "--epochs", 3, tmp_path / "digits.png", code=1)
    assert re.search(r"^backend: gpu, .+$", text, re.MULTILINE)
    accuracies = percentages("epoch .* test accuracy", text)
    assert len(accuracies) == 3
    assert accuracies[-1] > 85


def test_digits_of_no_epochs_is_refused() -> None:
    done = run("digits.py", "--epochs", 0)
    assert done.returncode == 2
    assert "--epochs must be at least 1" in done.stderr


def test_digits_are_the_same_at_each_run(tmp_path: Path) -> None:
    texts = [output_of_one_epoch(tmp_path, seed) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def output_of_one_epoch(folder: Path, seed: int) -> str:
    done = run("digits.py", "--epochs", 1, "--seed", seed, folder / "digits.png")
    return next(line for line in done.stdout.splitlines() if line.startswith("epoch"))


def test_gan(tmp_path: Path) -> None:
    text = output("gan.py", tmp_path / "gan.png")
    assert "6 gradients were left to the generator's optimizer, then 0" in text
    found = re.search(r"modes covered: 8 of 8; ([\d.]+)% of the samples", text)
    assert found is not None
    assert float(found[1]) >= 75
    check_picture(tmp_path / "gan.png")


def test_custom_optimizer() -> None:
    text = output("custom_optimizer.py")
    assert re.findall(r"^\w+", text, re.MULTILINE) == ["AdamW", "lion"]
    accuracies = percentages("test accuracy", text)
    assert len(accuracies) == 2
    assert min(accuracies) >= 95


def test_optim_alone() -> None:
    text = output("optim_alone.py")
    difference = re.search(r"largest difference (\S+)", text)
    assert difference is not None
    assert float(difference[1]) < 1e-5
    errors = [float(e) for e in re.findall(r"mean squared error ([\d.]+)", text)]
    assert errors == sorted(errors, reverse=True)


def test_diloco() -> None:
    text = output("diloco.py", "--workers", 2, "--steps", 60, "--every", 20)
    losses = [float(found) for found in re.findall(r"2 workers: ([\d.]+) nats per byte", text)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 3.1  # guessing by byte frequencies


def test_optim_alone_needs_only_tensor_and_optim() -> None:
    """The program sees no other package of rumus: importing one of them fails."""
    program = (
        "import runpy, sys\n"
        "for name in ('gpu', 'nn', 'train'): sys.modules[f'rumus.{name}'] = None\n"
        f"runpy.run_path({str(EXAMPLES / 'optim_alone.py')!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_tested(path: Path) -> None:
    tests = (file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    assert any(f'"{path.name}"' in text for text in tests)


def test_trajectories(tmp_path: Path) -> None:
    text = output("trajectories.py", tmp_path / "trajectories.png")
    ends = {
        name.strip(): float(end) for name, end in re.findall(r"^(.+?) +ends ([\d.]+)", text, re.M)
    }
    assert ends["Adam"] < 0.1
    assert max(ends.values()) < 2.6  # none ends farther away than it started
    check_picture(tmp_path / "trajectories.png")


def test_compare_optimizers(tmp_path: Path) -> None:
    text = output("compare_optimizers.py", tmp_path / "optimizers.png", "--steps", 40)
    found = re.findall(r"^  (.+?) +(-|\d+) +([\d.]+)$", text, re.MULTILINE)
    assert len(found) == 16
    assert len({name for name, _, _ in found}) == 8
    assert all(float(last) < 6 for _, _, last in found)  # guessing a byte uniformly gives 5.5 nats
    check_picture(tmp_path / "optimizers.png")


def test_digits_cnn() -> None:
    text = output("digits_cnn.py")
    accuracies = percentages("epoch .* test accuracy", text)
    assert len(accuracies) == 12
    assert percentages("final test accuracy", text) == accuracies[-1:]
    assert accuracies[-1] >= 98.5


def test_char_gpt_resumes(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 400)
    small = ["--size", 32, "--length", 24, "--layers", 1, "--run", tmp_path / "run"]
    first = output("char_gpt.py", text, *small, "--steps", 200)
    done = run("char_gpt.py", text, *small, "--steps", 300, warnings="default")
    assert "other hyperparameters than before: lr was" in done.stderr
    second = done.stdout
    steps, resumed = (re.findall(r"^step +(\d+) +([\d.]+) nats", t, re.M) for t in (first, second))
    assert [step for step, _ in resumed] == ["100", "200", "300"]
    assert resumed[:2] == steps
    assert float(resumed[-1][1]) < 0.1
    assert "The " in second


def test_char_gpt_in_float16(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 400)
    small = ["--size", 32, "--length", 24, "--layers", 1, "--steps", 100]
    found = output("char_gpt.py", text, *small, "--precision", "float16")
    (nats,) = re.findall(r"^step +100 +([\d.]+) nats", found, re.MULTILINE)
    assert float(nats) < 1


@pytest.mark.needs_gpu
def test_loss_curves(tmp_path: Path) -> None:
    """CPU and GPU differ in the last bits, float16 by its rounding."""
    small = ["--steps", 30, "--size", 32, "--length", 16, "--layers", 1]
    text = output("loss_curves.py", tmp_path / "curves.png", *small)
    pattern = r"^(.+): from ([\d.]+) to ([\d.]+), at most (\S+) from the CPU$"
    found = {name: list(map(float, n)) for name, *n in re.findall(pattern, text, re.MULTILINE)}
    assert list(found) == ["CPU, float32", "GPU, float32", "GPU, float16"]
    assert all(last < 0.8 * first for first, last, _ in found.values())
    assert found["CPU, float32"][2] == 0
    assert 0 < found["GPU, float32"][2] < 1e-3 < 10 * found["GPU, float16"][2] < 0.5
    check_picture(tmp_path / "curves.png")


def test_gpt2_saves_what_it_can_read(tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    small = ["--layers", 1, "--size", 64, "--heads", 1, "--vocabulary", 300, "--positions", 32]
    first = output("gpt2_finetune.py", *small, "--length", 32, "--lr", 0.01, "--save", path)
    second = output("gpt2_finetune.py", "--weights", path, "--length", 32, "--steps", 1)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", first + second)]
    assert len(losses) == 3
    assert losses[1] < losses[0] - 0.5
    assert losses[2] < losses[0] - 0.5


def test_gpt2_trains_adapters_alone(tmp_path: Path) -> None:
    """With optimizer state under 2 % of the full one; the model itself does not change."""
    path, adapters = tmp_path / "small.safetensors", tmp_path / "adapters"
    small = ["--layers", 1, "--size", 128, "--heads", 2, "--vocabulary", 300, "--positions", 32]
    output("gpt2_finetune.py", *small, "--length", 32, "--lr", 0.01, "--steps", 5, "--save", path)
    text = output(
        "gpt2_finetune.py", "--weights", path, "--length", 32, "--steps", 10, "--lr", 0.03,
        "--lora", 1, "--save", adapters,
    )  # fmt: skip
    share = re.search(r"the optimizer keeps [\d,]+ bytes, ([\d.]+)% of those for all", text)
    assert share is not None
    assert 0 < float(share[1]) < 2
    names = {path.name for path in adapters.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    trained = nn.read_weights(adapters / "adapter_model.safetensors")
    second = [value for name, value in trained.items() if "lora_B" in name]  # they start as zeros
    assert second
    assert all(np.abs(value).max() > 0 for value in second)


def rumus(folder: Path, *arguments: object) -> str:
    """A command's output; it must succeed."""
    command = [sys.executable, "-W", "error", "-m", "rumus.train", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return done.stdout


def test_digits_by_the_command_line(tmp_path: Path) -> None:
    """Trained, stopped early and continued, plotted; and the learning rate sweep."""
    script = EXAMPLES / "digits_command_line.py"
    rumus(tmp_path, "train", script, "--run-dir", "run", "--epochs", 2, "--set", "epochs=8")
    rumus(tmp_path, "resume", "run", "--epochs", 8)
    lines = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    losses = [line["loss"] for line in lines if line["split"] == "epoch"]
    accuracies = [line["metrics"]["accuracy"] for line in lines if "metrics" in line]
    assert len(losses) == len(accuracies) == 8
    assert losses[-1] < 0.2 * losses[0]
    assert accuracies[-1] > 0.93
    assert (tmp_path / "run" / "report.html").is_file()
    assert main(["plot", str(tmp_path / "run"), "--output", str(tmp_path / "run.png")]) == 0
    check_picture(tmp_path / "run.png")
    found = rumus(tmp_path, "find-lr", script, "--picture", "lr.png", "--set", "dropout=0.1")
    rate = re.search(r"it falls fastest at lr (\S+)", found)
    assert rate is not None
    assert 1e-4 < float(rate[1]) < 1
    check_picture(tmp_path / "lr.png")


def test_digits_without_the_command_line() -> None:
    accuracy = re.search(r"'accuracy': ([\d.]+)", output("digits_command_line.py"))
    assert accuracy is not None
    assert float(accuracy[1]) > 0.95
