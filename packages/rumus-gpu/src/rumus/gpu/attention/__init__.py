"""Scaled dot-product attention and its gradients, without the weights in memory.

It uses `device`, `elementwise` and `products`.
"""
