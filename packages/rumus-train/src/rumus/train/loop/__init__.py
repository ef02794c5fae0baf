"""The training loop: `Trainer`, `fit`, the code around a step, signals.

Uses `base`, `data`, `tables`, `checkpoints` and `capture`.
"""
