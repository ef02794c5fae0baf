"""What is put around an optimizer: accumulation, lookahead, sharpness-aware steps.

It uses `options` and `engine`.
"""
