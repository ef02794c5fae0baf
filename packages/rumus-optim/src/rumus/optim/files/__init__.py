"""Optimizer state in files, and in the form that PyTorch saves.

It uses `options`, `rules` and `engine`.
"""
