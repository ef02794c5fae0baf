"""The WebGPU device: adapters, buffers, pipelines, recorded commands, reads, limits, profiles.

Nothing here knows an algorithm. It imports nothing else of rumus-gpu.
"""
