"""Optimizer state in files, and in PyTorch's format.

Uses `options`, `rules` and `engine`.
"""
