"""REINFORCE in a corridor, in PyTorch. `policy_gradient.py` is the same for rumus."""

from __future__ import annotations

import numpy as np
import torch
from data import Corridor, Floats, Ints, returns
from program import main
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam


class Policy(nn.Module):
    """Maps states to logits of the two actions."""

    def __init__(self, places: int = 8, hidden: int = 32) -> None:
        super().__init__()
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
        with torch.no_grad():
            logits = model(torch.from_numpy(state))
            shares = logits.softmax(dim=-1).numpy()
        action = (corridor.random.random(len(state)) < shares[:, 1]).astype(np.int64)
        states.append(state)
        actions.append(action)
        state, reward = corridor.step(action)
        rewards.append(reward)
    return np.stack(states), np.stack(actions), np.stack(rewards)


def train(model: Policy, steps: int) -> list[float]:
    """Return the negative mean reward of each step, per walker and move."""
    optimizer = Adam(model.parameters(), lr=0.02)
    corridor = Corridor()

    def loss_of(states: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        logits = model(states)
        surprise = F.cross_entropy(logits.flatten(0, 1), actions.flatten(), reduction="none")
        return (surprise * advantages.flatten()).mean()

    losses = []
    for _ in range(steps):
        states, actions, rewards = play(model, corridor, length=16)
        loss = loss_of(*map(torch.from_numpy, (states, actions, returns(rewards))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(-float(rewards.mean()))
    return losses


if __name__ == "__main__":
    main(Policy(), train)
