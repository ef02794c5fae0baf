"""Kernels as WGSL: the printer of expressions, and elementwise dispatches and copies.

It uses `device`.
"""
