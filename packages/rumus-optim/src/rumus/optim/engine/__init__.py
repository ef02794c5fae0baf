"""How an optimizer owns parameters and steps: claims, memory, kernels, outcomes, saved state.

This room uses `options` and `rules`.
"""
