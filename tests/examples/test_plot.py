"""The picture of a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rumus.optim import Schedule, constant, cosine, warmup


def steps(schedule: Schedule, **options: Any) -> list[float]:
    """The steps that a plot shows."""
    (line,) = schedule.plot(**options).axes[0].lines
    return [float(step) for step in np.asarray(line.get_xdata())]


def test_a_plot_shows_the_values(tmp_path: Path) -> None:
    lr = warmup(10).then(cosine(1e-3, 90))
    figure = lr.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    (line,) = axes.lines
    assert np.asarray(line.get_xdata()).tolist() == list(range(1, 101))
    assert np.asarray(line.get_ydata()).tolist() == [lr(step) for step in range(1, 101)]
    assert axes.get_title() == repr(lr)


def test_an_endless_one_and_a_long_one() -> None:
    shown = steps(constant(1.0))
    assert (shown[0], shown[-1]) == (1, 1000)
    shown = steps(cosine(1.0, 1_000_000))
    assert (shown[0], shown[-1]) == (1, 1_000_000)
    assert len(shown) <= 2001
    assert steps(constant(1.0), steps=1) == [1]
    with pytest.raises(ValueError, match="steps"):
        constant(1.0).plot(steps=0)
