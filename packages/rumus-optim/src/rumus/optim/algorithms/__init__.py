"""The optimizers by name, each a rule or an algorithm of its own.

It uses `options`, `rules` and `engine`; no other room knows an optimizer by name.
"""
