"""A variational autoencoder of digits, in PyTorch. `vae.py` is the same for rumus."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from data import digits
from program import main
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam


class VAE(nn.Module):
    """Maps pictures to a few numbers with their uncertainty, and back."""

    def __init__(self, hidden: int = 256, latent: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Linear(784, hidden)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 784),
        )

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (batch, 784) and (batch, latent) to logits of pixels, means and log variances."""
        hidden = self.encoder(x).relu()
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + noise * (0.5 * log_variance).exp()
        return self.decoder(latent), mean, log_variance


def train(model: VAE, steps: int) -> list[float]:
    """Return the loss of each step, in nats per picture."""
    optimizer = Adam(model.parameters(), lr=1e-3)
    random = np.random.default_rng(1)

    def loss_of(x: Tensor, noise: Tensor) -> Tensor:
        logits, mean, log_variance = model(x, noise)
        error = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        return (error + divergence) / x.shape[0]

    losses = []
    for pictures, _ in islice(digits(), steps):
        x = pictures.reshape(len(pictures), 784)
        noise = random.normal(size=(len(x), model.mean.out_features)).astype(np.float32)
        loss = loss_of(torch.from_numpy(x), torch.from_numpy(noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [loss.item() for loss in losses]


if __name__ == "__main__":
    main(VAE(), train)
