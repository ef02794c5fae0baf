"""Your own optimizer, compared with AdamW on the same problem.

    python docs/examples/custom_optimizer.py     a few seconds on two cores

An optimizer is a rule: a function that maps a parameter `p`, its gradient `g` and its state to
their new values. The arguments after the `*` are scalars. `FusedOptimizer` does the rest:
ownership, state, saving, schedules, and one kernel for all parameters, on any device. This one is
Lion: Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2.

The program fails unless both recognize at least 95 % of the held-out digits.
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rumus import nn
from rumus.optim import AdamW, FusedOptimizer
from rumus.tensor import Expr, Generator, no_grad, tensor
from rumus.train import Trainer

EPOCHS, BATCH = 20, 32


def lion(
    p: Expr, g: Expr, m: Expr, *, lr: Expr, beta1: Expr, beta2: Expr, weight_decay: Expr
) -> dict[str, Expr]:
    """p = p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p);  m = beta2 m + (1 - beta2) g."""
    update = (beta1 * m + (1 - beta1) * g).sign()
    return {
        "p": p - lr * (update + weight_decay * p),
        "m": beta2 * m + (1 - beta2) * g,
    }


def build() -> nn.Sequential:
    """Return a digit classifier, with the same weights at each call."""
    random = Generator(0)
    return nn.Sequential(
        nn.Linear(64, 128, generator=random), nn.ReLU(), nn.Linear(128, 10, generator=random)
    )


def accuracy(model: nn.Sequential, optimizer: FusedOptimizer[nn.Sequential]) -> float:
    """Train, and return the share of held-out digits that the model then recognizes."""
    images, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        images / 16, digits, test_size=0.25, stratify=digits, random_state=0
    )
    random, trainer = Generator(0, stream=1), Trainer(optimizer)
    for _ in range(EPOCHS):
        order = random.permutation(len(seen))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            x, y = tensor(seen[rows]), tensor(seen_digits[rows])
            trainer.train_step(lambda x, y: nn.cross_entropy_loss(model(x), y), x, y, weight=len(y))
    with no_grad():
        predicted = model(tensor(unseen)).argmax(axis=-1).numpy()
    share = float(np.mean(predicted == unseen_digits))
    loss = trainer.epoch_avg_loss()
    print(f"{optimizer.kind:6} last epoch's loss {loss:.4f}   test accuracy {share:.2%}")
    return share


def main() -> int:
    """Train the same model with both, and return the exit code."""
    first, second = build(), build()
    reached = [
        accuracy(first, AdamW(first.parameters(), lr=2e-3)),
        accuracy(
            second,
            FusedOptimizer(
                second.parameters(), lion, lr=5e-4, beta1=0.9, beta2=0.99, weight_decay=0.1
            ),
        ),
    ]
    return 0 if min(reached) >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
