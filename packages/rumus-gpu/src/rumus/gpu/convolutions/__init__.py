"""Convolutions and their gradients, as matrix products whose operand is never in memory.

It uses `device`, `elementwise`, `rows` and `products`.
"""
