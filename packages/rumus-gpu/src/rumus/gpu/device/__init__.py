"""The WebGPU device: adapters, buffers, pipelines, recorded commands, reads, limits, profiles.

There are no algorithms here. Imports nothing else of rumus-gpu.
"""
