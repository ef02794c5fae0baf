"""What compiled loops are made of, and the threads that share large work.

The two CPU backends build on it. It uses `expression` and `memory`; numba is imported only if it is
installed, on first use.
"""
