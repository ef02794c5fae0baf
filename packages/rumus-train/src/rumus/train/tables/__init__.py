"""Tables as datasets: CSV, Parquet and Arrow; how columns become features, and what they mean.

Uses `base` and `data`.
"""
