"""Tiled matrix products, on matrix units or in plain float32, with what is fused to them.

It uses `device`, `elementwise` and `rows`.
"""
