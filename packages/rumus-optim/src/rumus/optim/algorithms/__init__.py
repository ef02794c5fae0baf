"""The named optimizers, each a rule or an algorithm.

This room uses `options`, `rules` and `engine`; no other room names an optimizer.
"""
