"""The optimizer's step on the device: the update, its decision, and packed state.

It uses `device` and `elementwise`.
"""
