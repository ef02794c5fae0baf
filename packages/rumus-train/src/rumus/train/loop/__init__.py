"""The training loop: `Trainer`, `fit`, what happens around a step, capture, signals.

It uses `base`, `data` and `checkpoints`.
"""
