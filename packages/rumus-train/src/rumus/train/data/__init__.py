"""Datasets, loaders and the workers that fetch samples.

It uses `base`.
"""
