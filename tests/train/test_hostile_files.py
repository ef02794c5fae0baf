"""Every loader handles every file quickly, with an error that its documentation names."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hostile_files import attempt, loaders, made_by_hand, no_regular_files, outcomes


def test_damaged_files_have_documented_errors(tmp_path: Path) -> None:
    """A sample; `nox -s reliability` tries more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(outcomes(tmp_path, seed=1, cases=15))
    assert len({each.loader for each in found}) >= 9
    assert [each for each in found if not each.is_documented] == []


@pytest.mark.parametrize(("suffix", "content"), [*made_by_hand()])
def test_files_made_by_hand(tmp_path: Path, suffix: str, content: bytes) -> None:
    for loader in loaders():
        if loader.file.endswith(suffix) and not loader.name.startswith("Checkpoints"):
            path = tmp_path / loader.file
            path.write_bytes(content)
            assert attempt(loader, path, 0).is_documented, loader.name


def test_special_files_are_errors_and_do_not_block(tmp_path: Path) -> None:
    for path in no_regular_files(tmp_path):
        for loader in loaders():
            if "/" in loader.file or loader.name == "write_report":
                continue
            found = attempt(loader, path, 0)
            assert found.is_documented, (loader.name, path, found.error)
            assert found.error is not None, (loader.name, path)
