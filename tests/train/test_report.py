"""`write_report`: a complete page that tells what happened and loads nothing."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.optim import SGD
from rumus.tensor import Parameter, Tensor, concat
from rumus.train import (
    ArrayDataset,
    DataLoader,
    RunFolder,
    RunFolderError,
    RunFolderWarning,
    Trainer,
    metrics,
    read_metrics,
    write_report,
)
from rumus.train.views.chart import Axis, chart, decades, ticks
from rumus.train.views.confusion_figure import confusion_figure
from rumus.train.views.curve import LEAST, Curve
from rumus.train.views.metrics_file import append_metrics, open_metrics
from rumus.train.views.run_folder import kept_matrices
from rumus.train.views.run_record import read_run

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """A parser that refuses elements closed out of order; keeps texts and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def trained(path: Path, **config: Any) -> Path:
    folder = RunFolder(path, config=config, seed=5)
    weight = Parameter([4.0], name="weight")
    Trainer(SGD([weight], 0.125)).fit(
        [()] * 5, lambda: (weight * weight).sum(), epochs=2, weight_of=lambda: 1.0,
        validate=lambda: {"loss": float(weight.numpy()[0]), "a<b": 0.5}, callbacks=[folder],
        checkpoints=folder.checkpoints, profile_steps=True,
    )  # fmt: skip
    return path


def test_the_page(tmp_path: Path) -> None:
    path = write_report(trained(tmp_path / "first <run>", name="<script>", optim={"lr": 0.125}))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert re.findall(r"https?:|//[a-z]|@import|url\(", text) == []
    assert page.addresses == ["data:,"]
    slow = text.count("<figcaption>samples per second")  # a chart that only slow runs have
    charts = page.tags.count("figure") - slow
    assert charts == 4  # loss, a<b, learning rate, gradient norm
    assert page.tags.count("script") == 1
    for shown in (
        "first <run>", "complete", "<script>", "optim.lr", "0.125", "seed", "validation: a<b",
        "forward of steps", "checkpoints", "good",
    ):  # fmt: skip
        assert shown in page.texts, shown


def test_a_run_of_any_length_makes_a_page_of_bounded_size(tmp_path: Path) -> None:
    def write(count: int) -> int:
        path = tmp_path / str(count)
        path.mkdir()
        file = open_metrics(path / "metrics.jsonl", lambda line: True)
        append_metrics(
            file,
            ({"split": split, "epoch": step, "step": step, "loss": math.sin(step), "seconds": 1.0}
             for step in range(1, count + 1) for split in ("train", "epoch")),
        )  # fmt: skip
        file.close()
        return write_report(path).stat().st_size

    assert write(6_000) < 1.25 * write(1_200)


def test_missing_parts_are_omitted(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "env.json").write_text("[")
    (tmp_path / "config.toml").write_text("= 3")
    with pytest.warns(RunFolderWarning, match=r"\.(toml|json) is damaged: ") as told:
        page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(told) == 2
    assert "not ended" in page.texts
    assert "Nothing was measured yet." in page.texts


class Named(ArrayDataset):
    """A dataset whose classes have names."""

    classes: ClassVar = ["iris", "rose & thorn"]


def confused(path: Path, steps: int, resume: bool = False) -> list[dict[str, Any]]:
    """A training whose weight grows by 1 per step; samples above -weight are called roses."""
    x, y = np.array([-2.5, -1.5, -0.5, 0.5], np.float32), np.array([0, 0, 1, 1], np.int32)
    weight = Parameter([0.0], name="weight")

    def validate(x: Tensor, y: Tensor) -> dict[str, Any]:
        score = (x + weight).reshape(-1, 1)
        return {"kinds": metrics.confusion_matrix(concat([-score, score], 1), y)}

    folder = RunFolder(path)
    Trainer(SGD([weight], 1.0)).fit(
        [()], lambda: -weight.sum(), steps=steps, weight_of=lambda *_: 1.0, callbacks=[folder],
        validate=(DataLoader(Named(x, y), 3), validate), monitor="kinds", mode="max",
        checkpoints=folder.checkpoints, resume=resume,
    )  # fmt: skip
    return list(read_metrics(folder.metrics))


@pytest.mark.parametrize("is_resumed", [False, True])
def test_the_confusion_matrices_of_the_best_and_the_last_validation(
    tmp_path: Path, is_resumed: bool
) -> None:
    if is_resumed:
        confused(tmp_path, 2)
    lines = confused(tmp_path, 3, resume=is_resumed)
    matrices = [line["confusion"]["kinds"] for line in lines if line["split"] == "validation"]
    assert matrices == [[[2, 0], [0, 2]], [[1, 1], [0, 2]], [[0, 2], [0, 2]]]
    found = read_run(tmp_path).confusion["kinds"]
    assert [(each.step, each.is_best) for each in found] == [(1, True), (3, False)]
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    for shown in ("rose & thorn", "best, after step 1, 4 of 4 right"):
        assert shown in page.texts, shown
    assert "last, after step 3, 2 of 4 right" in page.texts


def test_a_matrix_of_many_classes() -> None:
    """The page for 100 classes has a path per shade and no numbers; larger ones are dropped."""
    counts = np.random.default_rng(0).integers(0, 90, (100, 100))
    text = confusion_figure("all", counts.tolist(), [])
    figure = Page(text)
    assert figure.tags.count("path") <= 1 + 8
    assert figure.tags.count("text") == 2 * 34
    assert len(text) < 400_000
    assert kept_matrices({"few": counts, "many": np.eye(101)}) == {"few": counts.tolist()}


def test_hostile_lines(tmp_path: Path) -> None:
    lines = [
        '{"split":"train","step":"x","loss":1}', '{"split":"train","step":1,"loss":"nan"}',
        '{"split":"train","step":2,"loss":[1]}', '{"split":"validation","step":2,"metrics":3}',
        '{"split":"train","step":3,"loss":"</script><b>"}', '{"split":"epoch","step":3}',
        '{"split":"validation","step":3,"metrics":{"</svg>":2.5},"best":true}',
        '{"split":"start","step":3,"classes":[3]}',
        '{"split":"validation","step":4,"confusion":{"a":[[1,2]]}}',
        '{"split":"validation","step":4,"confusion":{"a":[[1,-2],[0,1]]}}',
        '{"split":"validation","step":4,"confusion":{"</p>":[],"<i>":[[0,0],[0,0]]}}',
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    damaged = "7 lines are damaged and skipped: 1, 3, 4, 5, 8, 9, 10$"
    with pytest.warns(RunFolderWarning, match=damaged):
        page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "validation: </svg>" in page.texts
    assert [name for name in page.texts if "<i>" in name] == ["validation: <i> "]
    with pytest.warns(RunFolderWarning, match=damaged):
        assert read_run(tmp_path).curves["train loss"].not_drawn == 1


_DRAWN = st.floats(-1e6, 1e6).filter(lambda y: not 0 < abs(y) < LEAST)  # others are drawn as 0


@given(st.lists(_DRAWN, min_size=1, max_size=300), st.integers(2, 20))
def test_a_thinned_curve_keeps_mean_and_bounds(values: list[float], capacity: int) -> None:
    curve = Curve(capacity)
    for step, value in enumerate(values):
        curve.add(step, value)
    points = curve.points
    assert len(points) <= capacity
    assert sum(point.count for point in points) == len(values)
    total = sum(point.mean * point.count for point in points)
    assert math.isclose(total, sum(values), abs_tol=1e-6 * max(map(abs, values)) * len(values))
    assert min(p.low for p in points) == min(values)
    assert max(p.high for p in points) == max(values)
    assert [p.x for p in points] == sorted(p.x for p in points)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e3))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    width *= max(1.0, abs(low))
    high = low + width
    found = ticks(low, high)
    assert len(found) <= 7
    assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in found)


@given(st.floats(1e-9, 1e9), st.floats(60, 1e9))
def test_decades_are_few_and_inside(low: float, factor: float) -> None:
    found = decades(low, low * factor)
    assert 1 <= len(found) <= 12
    assert all(low <= tick <= low * factor for tick in found)


def test_an_axis() -> None:
    axis = Axis(1.0, 100.0, 0.0, 10.0, is_log=True)
    assert [axis(value) for value in (1.0, 10.0, 100.0)] == [0.0, 5.0, 10.0]
    flat = Axis(3.0, 3.0, 0.0, 10.0, is_log=False)
    assert math.isclose(flat(3.0), 5.0)


def test_a_chart_of_nothing_finite() -> None:
    curve = Curve()
    curve.add(1, math.nan)
    assert chart("loss", {"loss": curve}) == ""


EXTREME: Any = [1.7e308, -1.7e308, 5e-324, 2.2e-308, 1e300, 0.0, -1.0, "inf", "-inf", "nan"]


def test_numbers_at_the_ends_of_their_range_are_drawn_or_counted(tmp_path: Path) -> None:
    """The difference of two of them may be infinite, their quotient 0."""
    for first, second in product(EXTREME, EXTREME):
        lines = [{"split": "train", "step": n, "loss": v} for n, v in enumerate((first, second))]
        times = [{"split": "epoch", "step": 1, "seconds": value} for value in (first, second)]
        text = "".join(json.dumps(line) + "\n" for line in [*lines, *times])
        (tmp_path / "metrics.jsonl").write_text(text)
        page = write_report(tmp_path).read_text()
        assert not re.search(r'(points|cx|cy|x|y)="[^"]*(nan|inf)', page), (first, second)


def test_the_rest_of_a_line_that_is_too_long_is_none(tmp_path: Path) -> None:
    line = b'{"split":"train","step":1,"loss":1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(b"x" * 2**20 + line + line)
    with pytest.warns(RunFolderWarning, match="metrics.jsonl: 1 line is damaged and skipped: 1$"):
        assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 1
