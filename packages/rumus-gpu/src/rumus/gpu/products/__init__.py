"""Products of matrices in tiles, and what is made of them: convolution and attention.

It uses `device`, `elementwise` and `rows`.
"""
