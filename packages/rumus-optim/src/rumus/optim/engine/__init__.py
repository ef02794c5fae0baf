"""How an optimizer owns parameters and steps: claims, arenas, the update kernel, saved state.

No algorithm is named here. It uses `options` and `rules`.
"""
