"""What a device must provide: the backend protocol, packed state, updaters.

This room says what a backend does; `backends` and rumus-gpu say how. It uses `expression`.
"""
