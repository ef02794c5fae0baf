"""Captured steps: what a step reads, when it may be replayed, and how that is found out.

Uses `base`.
"""
