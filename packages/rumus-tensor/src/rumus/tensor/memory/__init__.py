"""What a device must offer, and the memory it offers it on: backends, packed state, updaters.

It says what a backend does, not how; `backends` and rumus-gpu do. It uses `expression`.
"""
