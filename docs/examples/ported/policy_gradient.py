"""REINFORCE in a corridor. `policy_gradient_torch.py` is the same program in PyTorch.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", 1992; the mean return of the walkers is the baseline.
"""

from __future__ import annotations

import numpy as np
from data import Corridor, Floats, Ints, returns
from program import main

from rumus import nn
from rumus.optim import Adam
from rumus.tensor import Tensor, no_grad, seed, tensor
from rumus.train import Trainer


class Policy(nn.Module):
    """Maps states to logits of the two actions."""

    def __init__(self, places: int = 8, hidden: int = 32) -> None:
        self.hidden = nn.Linear(places, hidden)
        self.logits = nn.Linear(hidden, 2)

    def forward(self, state: Tensor) -> Tensor:
        """Map (..., places) to (..., 2)."""
        return self.logits(self.hidden(state).tanh())


def play(model: Policy, corridor: Corridor, length: int) -> tuple[Floats, Ints, Floats]:
    """Return the states, actions and rewards of each step and walker."""
    states, actions, rewards = [], [], []
    state = corridor.reset()
    for _ in range(length):
        with no_grad():
            logits = model(tensor(state, backend=model.logits.weight.backend))
            shares = logits.softmax(axis=-1).numpy()
        action = (corridor.random.random(len(state)) < shares[:, 1]).astype(np.int64)
        states.append(state)
        actions.append(action)
        state, reward = corridor.step(action)
        rewards.append(reward)
    return np.stack(states), np.stack(actions), np.stack(rewards)


def train(model: Policy, steps: int) -> list[float]:
    """Return the negative mean reward of each step, per walker and move."""
    optimizer = Adam(model.parameters(), lr=0.02)
    trainer = Trainer(optimizer)
    corridor = Corridor()

    def loss_of(states: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        surprise = nn.cross_entropy_loss(model(states), actions, reduction="none")
        return (surprise * advantages).mean()

    losses = []
    for _ in range(steps):
        states, actions, rewards = play(model, corridor, length=16)
        trainer.train_step(loss_of, states, actions, returns(rewards))
        losses.append(-float(rewards.mean()))
    return losses


if __name__ == "__main__":
    seed(0)  # of the initial weights
    main(Policy(), train)
