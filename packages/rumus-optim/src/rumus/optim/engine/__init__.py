"""How an optimizer owns parameters and steps: claims, arenas, the update kernel, saved state.

No algorithm is named here. This room uses `options` and `rules`.
"""
