"""The CPU: every kernel and every family of operations on NumPy, and compiled with numba.

It uses `expression` and `memory`. numba is imported where it is installed, and only when called.
"""
