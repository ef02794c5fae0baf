"""What a user sets: hyperparameters, schedules, groups, clipping, averages.

These are values; nothing here owns or updates a parameter. It imports nothing else of rumus-optim.
"""
