"""Differentiable operations beyond the methods of `Tensor`, and random numbers.

Each composes operations of `graph`, or uses a backend's fused version. This room may use all
others but `compiled`.
"""
