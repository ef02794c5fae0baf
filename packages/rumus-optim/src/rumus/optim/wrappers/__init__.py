"""Wrappers of optimizers: accumulation, lookahead, sharpness-aware steps.

Uses `options` and `engine`.
"""
