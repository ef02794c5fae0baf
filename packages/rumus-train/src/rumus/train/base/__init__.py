"""Code that several rooms need: late losses, time spans, strict JSON and TOML, configuration.

It imports nothing else from rumus-train.
"""
