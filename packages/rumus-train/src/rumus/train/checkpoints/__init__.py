"""Checkpoints on disk: written whole, verified, kept and found again.

It uses `base`.
"""
