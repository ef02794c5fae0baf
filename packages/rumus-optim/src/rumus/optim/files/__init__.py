"""Optimizer state in files, and in PyTorch's format.

Uses `options`, `rules`, `engine` and `fused`.
"""
