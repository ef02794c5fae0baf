"""The page of a report: curves and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rumus.train.loop.progress import clock, short, size
from rumus.train.views.chart import chart
from rumus.train.views.confusion_figure import confusion_figure
from rumus.train.views.curve import Curve
from rumus.train.views.report_style import SCRIPT, STYLE
from rumus.train.views.run_record import RunRecord

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_CHARTS = 12  # of metrics of the validation
_CHECKPOINTS = 40  # most recent ones listed


def page(record: RunRecord) -> str:
    """Return the page."""
    pictures = [*_curves(record), *_confusion(record)]
    parts = [_head(record), *pictures, '<div class="tables">', *_tables(record), "</div>"]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(record.name)}</title><style>{STYLE}</style></head><body>"
        f"{''.join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )


def _state(record: RunRecord) -> str:
    if record.ended is None:
        return "not ended"
    if record.is_done:
        return "complete" if record.ended in ("epochs", "steps", "seconds") else record.ended
    return record.ended


def _head(record: RunRecord) -> str:
    train, device = (
        record.values("train"),
        record.starts[-1].get("device") if record.starts else None,
    )
    facts: dict[str, Any] = {
        "steps": f"{record.step:,}",
        "epochs": f"{record.epoch_count:,}",
        "last loss": _last(train.get("loss")),
        **{f"best {name}": short(v) for name, v in record.best.items() if _is_number(name, v)},
        "time": _duration(record.seconds["all"]) if "all" in record.seconds else None,
        "samples/s": _throughput(train.get("samples_s")),
        "device": device,
    }
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value is not None
    )
    error = f"<pre>{escape(str(record.error))}</pre>" if record.error else ""
    return (
        f'<h1>{escape(record.name)}<span class="state">{escape(_state(record))}</span></h1>'
        f'<dl class="facts">{shown}</dl>{error}'
    )


def _is_number(name: str, value: Any) -> bool:
    return name != "step" and isinstance(value, (int, float))


def _last(curve: Curve | None) -> str | None:
    return None if curve is None or curve.last is None else short(curve.last)


def _throughput(curve: Curve | None) -> str | None:
    """The mean over all times."""
    if curve is None or not curve.points:
        return None
    count = sum(point.count for point in curve.points)
    return f"{sum(point.mean * point.count for point in curve.points) / count:,.0f}"


def _curves(record: RunRecord) -> list[str]:
    train, validation = record.values("train"), dict(record.values("validation"))
    losses = {"training": train.get("loss"), "validation": validation.pop("loss", None)}
    charts = [chart("loss", {name: curve for name, curve in losses.items() if curve is not None})]
    others = list(validation.items())[:_CHARTS]
    charts += [chart(f"validation: {name}", {name: curve}) for name, curve in others]
    titles = {
        "lr": "learning rate", "grad_norm": "gradient norm", "samples_s": "samples per second"
    }  # fmt: skip
    logged = [name for name in train if name not in (*titles, "loss")][:_CHARTS]
    charts += [chart(f"training: {name}", {name: train[name]}) for name in logged]
    charts += [chart(titles[name], {name: train[name]}) for name in titles if name in train]
    found = [each for each in charts if each]
    if not found:
        return ['<p class="dim">Nothing was measured yet.</p>']
    return ["<h2>Curves, over steps</h2>", '<div class="charts">', *found, "</div>"]


def _confusion(record: RunRecord) -> list[str]:
    """The confusion matrices of the best validation and of the last."""
    if not record.confusion:
        return []
    figures = [
        confusion_figure(
            f"validation: {name}", each.counts, record.classes,
            f"{'best' if each.is_best else 'last'}, after step {each.step:,}",
        )
        for name, found in record.confusion.items() for each in found
    ]  # fmt: skip
    head = "<h2>Confusion matrices: a row for each class, a column for what was said of it</h2>"
    return [head, '<div class="charts matrices">', *figures, "</div>"]


def _tables(record: RunRecord) -> list[str]:
    last = record.starts[-1] if record.starts else {}
    checkpoints = [
        [f"{each.step:,}", "" if each.metric is None else short(each.metric), size(each.size),
         each.problem or "good"]
        for each in record.checkpoints[-_CHECKPOINTS:]
    ]  # fmt: skip
    return [
        _table("Configuration", (), _flat(record.config)),
        _table("Environment", (), _flat(last)),
        _table("Time", ("phase", "time", "share"), _phases(record)),
        _table("Last epochs", ("epoch", "step", "mean loss", "time"), map(_epoch, record.epochs)),
        _table("Checkpoints", ("step", "metric", "size", "manifest"), checkpoints),
        _table("Starts", ("time", "device"), [_start(each) for each in record.starts[-12:]]),
    ]


def _phases(record: RunRecord) -> list[list[str]]:
    """Name, time, and share of the total, which is known once a run has ended."""
    total = record.seconds.get("all", 0.0)
    return [
        [name, _duration(value), f"{value / total:.0%}" if total else ""]
        for name, value in record.seconds.items()
    ]


def _duration(seconds: float) -> str:
    return clock(seconds) if seconds >= 60 else f"{seconds:.3g} s"


def _epoch(line: Mapping[str, Any]) -> list[str]:
    loss, seconds = float(line.get("loss", "nan")), float(line.get("seconds", 0.0))
    epoch, step = int(line.get("epoch", 0)) + 1, line.get("step", 0)
    return [f"{epoch:,}", f"{step:,}", short(loss), _duration(seconds)]


def _start(start: Mapping[str, Any]) -> list[str]:
    return [str(start.get("time", "")), str(start.get("device", ""))]


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Rows of names and values; those of inner tables with dots."""
    found: list[list[str]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append([prefix + name, shown])
    return found


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its title; nothing without rows. Without column names, rows have names."""
    body = ""
    for first, *rest in rows:
        cells = "".join(f'<td class="number">{escape(cell)}</td>' for cell in rest)
        tag = 'td class="number"' if names else "th"
        body += f"<tr><{tag}>{escape(first)}</{tag.partition(' ')[0]}>{cells}</tr>"
    if not body:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    table = f"<table>{head}<tbody>{body}</tbody></table>"
    return f"<section><h2>{escape(title)}</h2>{table}</section>"
