"""Wrappers of optimizers: accumulation, lookahead, sharpness-aware steps.

Uses `options`, `engine` and `fused`.
"""
