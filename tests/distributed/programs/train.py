"""Small trainings, each of which prints the hashes of all its results in one line.

Options of several trainings are separated by "+". They include dropout, batch norm, clipping, an
EMA, shuffled data with a ragged last batch, accumulation, a loss scale and validation, and faults
of the last rank.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rumus import nn
from rumus.distributed import Ranks, ranks
from rumus.optim import EMA, AdamW, ClipNorm, LossScale, ParameterGroup
from rumus.tensor import Generator, NumpyBackend, Parameter, Tensor
from rumus.train import (
    ArrayDataset,
    Callback,
    DataLoader,
    EarlyStopping,
    Every,
    Trainer,
    ValidationEnd,
    metrics,
)

HELD_OUT = 32


def launcher() -> int:
    """Return the process of `python -m rumus.distributed` that has started this one."""
    pid = os.getppid()
    while b"rumus.distributed\0-n" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--samples", type=int, default=66)  # the last batch has 2: some shards none
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--log", action="store_true")
    parser.add_argument("--norm", action="store_true")
    parser.add_argument("--optional", action="store_true")  # parameters that few shards use
    parser.add_argument("--zero", action="store_true")
    parser.add_argument("--plain", action="store_true")  # no ranks at all
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--numpy", action="store_true")
    parser.add_argument("--patience", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--fault", default="")
    parser.add_argument("--deadline", type=float, default=60.0)
    return parser.parse_args(arguments)


class Training:
    """One training, and the fault of its last rank."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.team = given, ranks(deadline=given.deadline)
        self.fault = given.fault if self.team.rank == self.team.size - 1 else ""
        self.calls = 0
        self.random = Generator(9 if self.fault == "seed" else 0)
        self.model = self._model()
        if self.fault == "frozen":
            next(iter(self.model.parameters())).requires_grad = False
        if given.gpu:
            self.model.to(self.team.gpu())
        elif given.numpy:
            self.model.to(NumpyBackend())
        shapes = {"first": (8, 4), "second": (4,)} if given.optional else {}
        self.others = [Parameter(np.ones(shapes[n], np.float32), name=n) for n in shapes]
        self.optimizer = AdamW(
            [
                ParameterGroup(self.model.parameters()),
                *([ParameterGroup(self.others, optional=True)] if self.others else []),
            ],
            6e-3 if self.fault == "lr" else 3e-3,
            clip=ClipNorm(0.5),
            average=EMA(0.9),
            nonfinite="skip",
        )

    def _model(self) -> nn.Sequential:
        given, random = self.given, self.random
        layers: list[nn.Module] = [nn.Linear(8, given.width, generator=random)]
        layers += [nn.BatchNorm1d(given.width)] if given.norm else []
        layers += [nn.ReLU(), nn.Dropout(0.2, generator=random)]
        return nn.Sequential(*layers, nn.Linear(given.width, 4, generator=random))

    def loss(self, x: Tensor, y: Tensor) -> Tensor | dict[str, Any]:
        if self.fault == "unused":
            return (x @ next(iter(self.model.parameters())).transpose()).mean()
        scores = self.model(x)
        loss = nn.cross_entropy_loss(scores, y)
        for number, p in enumerate(self.others):  # other shards use none, or one of them
            if int(y.numpy()[0]) in (0, number):
                loss = loss + 0.1 * (p * p).sum()
        if self.fault:
            loss = loss * self._factor()
        if not self.given.log:
            return loss
        return {"loss": loss, "largest": scores.max(), "accuracy": metrics.accuracy(scores, y)}

    def _factor(self) -> float:
        """Trigger the fault, once; return the factor of the loss."""
        self.calls += 1
        if self.calls != 7:
            return 1.0
        match self.fault:
            case "raise":
                raise ValueError("sample 17 is bad")
            case "hang":
                time.sleep(1000)
            case "exit":
                sys.exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
            case "launcher SIGTERM" | "launcher SIGINT" | "launcher SIGHUP":
                os.kill(launcher(), signal.Signals[self.fault.split()[1]])
                time.sleep(2)  # it comes back to this rank
            case "cut":  # the link from this namespace to the other rank
                subprocess.run(["ip", "link", "set", "rumus1", "down"], check=True)
            case "nan":
                return float("nan")
            case "gather":
                self.team.gather(0)
        return 1.0

    def score(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        scores = self.model(x)
        right = float((scores.numpy().argmax(axis=1) == y.numpy()).mean())
        loss, ranked = nn.cross_entropy_loss(scores, y), metrics.auroc(scores[:, 0], y == 0)
        of_all = {"f1": metrics.f1(scores, y), "confusion": metrics.confusion_matrix(scores, y)}
        return {"loss": loss, "accuracy": right, "auroc": ranked, **of_all}

    def fit(self) -> dict[str, Any]:
        given, fault, team = self.given, self.fault, self.team
        if fault == "early":
            raise ValueError("there are no data here")
        if fault == "leave":
            sys.exit(0)
        draw = np.random.default_rng(0)
        features = draw.standard_normal((given.samples + HELD_OUT, 8)).astype(np.float32)
        labels = features[:, :4].argmax(axis=1).astype(np.int32)
        count = given.samples - 16 * (fault == "data")
        held_out = ArrayDataset(features[given.samples :], labels[given.samples :])
        loader = DataLoader(
            ArrayDataset(features[:count], labels[:count]),
            given.batch,
            shuffle=True,
            seed=5 + (fault == "order"),
            ranks=None if given.plain else team,
            shards=None if given.plain else given.shards,
        )
        trainer = Trainer(
            self.optimizer,
            state={"model": self.model},
            loss_scale=LossScale(initial=64.0, every=3) if given.scale else None,
            ranks=None if given.plain else team,
            zero=given.zero or fault == "zero",
        )
        kept = Matrices()
        stop = EarlyStopping("accuracy", mode="max", patience=given.patience or 1)
        result = trainer.fit(
            loader,
            self.loss,
            epochs=given.epochs - (fault == "epochs"),
            steps=5 if fault == "steps" else None,
            accumulate=given.accumulate,
            weight_of=(lambda x, y: len(x)) if given.optional else None,
            validate=(DataLoader(held_out, 10), self.score),
            callbacks=[kept] if given.patience is None else [kept, stop],
            monitor="loss",
            checkpoints=given.folder,
            save_every=Every(steps=3) if given.folder else None,
            resume="auto" if given.folder else False,
        )
        return {
            **self._digests(),
            "confusion": kept.found,
            "history": digest(json.dumps(result.history).encode()),
            "reason": result.reason,
            "steps": result.steps,
            "skipped": self.optimizer.skipped,
        }

    def _digests(self) -> dict[str, Any]:
        state = self.optimizer.state_dict()["parameters"]
        parts = [part for e in state.values() for _, part in sorted(e["state"].items())]
        return {
            "parameters": digest(b"".join(p.numpy().tobytes() for p in self.optimizer.parameters)),
            "state": digest(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)),
            "buffers": digest(b"".join(b.numpy().tobytes() for _, b in self.model.named_buffers())),
            "random": repr(self.random),
        }


class Matrices(Callback):
    """Keeps the confusion matrix of the last validation."""

    def __init__(self) -> None:
        self.found: list[list[float]] = []

    def on_validation_end(self, event: ValidationEnd) -> None:
        self.found = event.confusion["confusion"].tolist()
        assert sum(map(sum, self.found)) == HELD_OUT


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def said(found: dict[str, Any], team: Ranks, state_bytes: int) -> None:
    """Print the results of a training, which must be the same on all ranks."""
    largest = max(team.gather(state_bytes))
    every = team.gather(found)
    assert all(each == found for each in every), every
    if team.speaks:
        line = {"found": found, "sent": team.sent, "state_bytes": largest}
        print(json.dumps(line), flush=True)


def main(arguments: Sequence[str]) -> None:
    groups: list[list[str]] = [[]]
    for argument in arguments:
        if argument == "+":
            groups.append([])
        else:
            groups[-1].append(argument)
    for group in groups:
        training = Training(options(group))
        said(training.fit(), training.team, training.optimizer.memory().state)


if __name__ == "__main__":
    main(sys.argv[1:])
