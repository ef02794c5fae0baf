"""Kernels as WGSL: the printer of expressions, and elementwise dispatches and copies.

Uses `device`.
"""
