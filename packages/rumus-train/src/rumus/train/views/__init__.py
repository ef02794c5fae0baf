"""What a person sees of a run: live view, run folder, report, charts.

It uses `base`, `checkpoints` and `loop`.
"""
