"""The named optimizers, each a rule or an algorithm.

This room uses `options`, `rules`, `engine` and `fused`; no other room names an optimizer.
"""
