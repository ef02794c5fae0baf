"""The WebGPU device: adapters, buffers, pipelines, recorded commands, reads, limits, profiles.

It contains no algorithms, and uses only `engine`.
"""
