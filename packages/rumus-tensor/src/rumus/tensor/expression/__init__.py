"""Elementwise mathematics: dtypes, expressions, their derivatives, and kernels made of them.

There are no arrays here. This room imports nothing else from rumus and knows no backend.
"""
