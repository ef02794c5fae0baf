"""The training loop: `Trainer`, `fit`, the code around a step, capture, signals.

Uses `base`, `data`, `tables` and `checkpoints`.
"""
