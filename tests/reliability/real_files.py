"""Reads the CSV files of published packages and compares them with pandas: docs/reliability.md.

    PYTHONPATH=tests/support python tests/reliability/real_files.py

Each file is read as it is; if that is refused, again with the options that the message suggests.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tarfile
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from reliability_page import write_block

from rumus.train import CsvDataset

PACKAGES: Final = ("statsmodels", "vega_datasets", "pydataset", "sklearn")
ADVICE: Final = re.compile(
    r"columns=|categories=|booleans=|dates=|header=|missing=|delimiter=|encoding=|target=|dtype=|decimal=|thousands="
    r"|write |remove |cells instead of|no data rows|is empty"
)
OUTCOMES: Final = ("read as it is", "read as the message says", "refused, said why", "wrong")


def files(package: str, folder: Path) -> Iterator[Path]:
    """Yield a package's CSV files; those in archives are unpacked."""
    found = importlib.util.find_spec(package)
    assert found is not None, f"{package} is not installed"
    assert found.origin is not None
    home = Path(found.origin).parent
    yield from sorted(home.rglob("*.csv"))
    for archive in sorted(home.rglob("*.tar.gz")):
        with tarfile.open(archive) as unpacked:
            unpacked.extractall(folder, filter="data")
        # Without the files that macOS adds next to each one.
        yield from sorted(p for p in folder.rglob("*.csv") if not p.name.startswith("._"))


def outcome(path: Path) -> str:
    """Return which of OUTCOMES a file has."""
    try:
        dataset = CsvDataset(path)
    except ValueError as error:
        if not ADVICE.search(str(error)):
            print(f"no advice: {error}", file=sys.stderr)
            return "wrong"
        return _as_told(path)
    return OUTCOMES[0] if _is_equal(dataset, path) else "wrong"


def _as_told(path: Path) -> str:
    """Drop columns that are not numbers, and set a value for missing cells."""
    try:
        table = pd.read_csv(path)
        numbers = [
            name for name in table.select_dtypes("number").columns if not name.startswith("Unnamed")
        ]
        dataset = CsvDataset(path, columns=numbers, missing=float("nan"))
    except (ValueError, UnicodeError, pd.errors.ParserError):
        return OUTCOMES[2]
    return OUTCOMES[1] if _is_equal(dataset, path) else "wrong"


def _is_equal(dataset: CsvDataset, path: Path) -> bool:
    """Whether all features have the same bits as in pandas."""
    table = pd.read_csv(path, float_precision="round_trip", index_col=False)
    table.columns = [str(name).strip() for name in table.columns]
    if not set(dataset.columns) <= set(table.columns):
        print(f"other names than in pandas: {path}: {list(table.columns)[:9]}", file=sys.stderr)
        return False
    wanted = table[dataset.columns].to_numpy(np.float64).astype(np.float32)
    found: Any = dataset.batch(np.arange(len(dataset)))[0]
    if np.array_equal(found, wanted, equal_nan=True):
        return True
    print(f"not what pandas reads: {path}", file=sys.stderr)
    return False


def main() -> None:
    """Read everything, write the table; exit code 1 if a file is read wrongly."""
    warnings.simplefilter("ignore")
    lines = [f"| CSV files of | files | {' | '.join(OUTCOMES)} |", "|---|" + "---:|" * 5]
    total: Counter[str] = Counter()
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            found = Counter(map(outcome, files(package, Path(folder))))
        total += found
        lines.append(_row(package, found))
    write_block("real files", [*lines, _row("all", total)])
    raise SystemExit(bool(total["wrong"]))


def _row(name: str, found: Counter[str]) -> str:
    counts = " | ".join(f"{found[each]:,}" for each in OUTCOMES)
    return f"| {name} | {found.total():,} | {counts} |"


if __name__ == "__main__":
    main()
