"""Checkpoints on disk: atomic writing, verification, retention and loading.

It uses `base`.
"""
