"""What a user sets: hyper-parameters, schedules, groups, clipping, averages.

These are values; nothing here owns or updates a parameter. It imports nothing else of rumus-optim.
"""
