"""The CPU backends: every kernel and every family of operations, with NumPy or compiled by numba.

They use `expression` and `memory`. numba is imported only if it is installed, on first use.
"""
