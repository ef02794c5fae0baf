"""User settings: hyperparameters, schedules, groups, clipping, averages.

These are values; nothing here owns or updates a parameter. Imports nothing else of rumus-optim.
"""
