"""Algorithms that walk along rows: reductions, norms, softmaxes, pools, gathering and scattering.

It uses `device` and `elementwise`.
"""
