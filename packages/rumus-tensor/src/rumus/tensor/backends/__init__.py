"""The CPU backends: every kernel and every family of operations, with NumPy or compiled by numba.

They use `expression`, `memory` and `compiled`.
"""
