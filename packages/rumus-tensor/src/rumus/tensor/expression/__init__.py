"""What one element does: dtypes, expressions, their derivatives, and kernels made of them.

No arrays live here. This room imports nothing else of rumus and knows no backend.
"""
