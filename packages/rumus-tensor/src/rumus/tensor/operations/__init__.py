"""Differentiable operations beyond the methods of `Tensor`, and random numbers.

Each composes operations of `graph`, with a fused version where a backend has one. It may use every
room.
"""
