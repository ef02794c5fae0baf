"""Datasets, loaders and the workers that fetch samples.

Uses `base`.
"""
