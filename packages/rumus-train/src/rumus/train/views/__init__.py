"""The views of a run: live view, run folder, report, charts.

Uses `base`, `checkpoints` and `loop`.
"""
