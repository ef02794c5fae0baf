"""`FusedOptimizer`: a rule and a list of stages, one file for each, as one kernel.

No algorithm is named here. This room uses `options`, `rules` and `engine`.
"""
