"""Kernels as WGSL: the printer of expressions, and the dispatches that run or copy elementwise.

It uses `device`.
"""
