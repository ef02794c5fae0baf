"""A file that is written over is replaced as a whole, or stays."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rumus.tensor.memory.replaced_file import replaced


def test_it_takes_the_place_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file.npy"
    file.write_text("old")
    with replaced(file) as beside:
        assert (beside.parent, beside.suffix) == (file.parent, ".npy")
        beside.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.npy"]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, SystemExit])
def test_after_an_error_it_is_what_it_was(kind: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def write() -> None:
        with replaced(file) as beside:
            beside.write_text("half")
            raise kind

    with pytest.raises(kind):
        write()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "folder" / "file", tmp_path / "link"
    file.parent.mkdir()
    link.symlink_to(file)
    with replaced(link) as beside:
        beside.write_text("new")
    assert link.is_symlink()
    assert file.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    with replaced(pipe) as beside:
        beside.write_text("new")
    reader.join()
    assert found == ["new"]


def test_an_error_names_the_folder(tmp_path: Path) -> None:
    file = replaced(tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError, match=r"no such folder.*nowhere'"):
        file.__enter__()
