"""Tiled matrix products, and the convolutions and attention built on them.

It uses `device`, `elementwise` and `rows`.
"""
