"""What a file is that is not what its name says: a download that failed, another format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_LONGEST: Final = 1024  # bytes that are looked at
_PICTURE: Final = "convert it to PNG or JPEG"
# How files begin, and what is said of them. Text first: no table of numbers begins like these.
_TEXTS: Final = (
    (rb"version https://git-lfs", "a pointer of Git LFS: fetch the file with git lfs pull"),
    (rb"<(!doctype html|html|head|body|!--)\b", "a web page: download the file again"),
    (rb"<svg\b", f"an SVG drawing: {_PICTURE}"),
    (rb"<\?xml\b", "XML: convert it, or download the file again"),
    (rb'(\[\s*)?\{\s*"[^"\n]*"\s*:', "JSON: convert it, or download the file again"),
    (rb"%PDF-", "a PDF document: take its data out of it"),
    (rb"\{\\rtf", "a document of a word processor: save it as plain text"),
)  # fmt: skip
_OTHERS: Final = (
    (rb"\x1f\x8b", "compressed by gzip: unpack it first"),
    (rb"BZh[1-9]1AY", "compressed by bzip2: unpack it first"),
    (rb"\xfd7zXZ\0", "compressed by xz: unpack it first"),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (rb"PK\x03\x04", "a ZIP archive, or a spreadsheet: unpack it, or save its table as CSV"),
    (rb"\xd0\xcf\x11\xe0", "a spreadsheet: save its table as CSV"),
    (rb"PAR1", "a Parquet file: use ParquetDataset"),
    (rb"ARROW1", "an Arrow file: use ParquetDataset"),
    (rb"\x93NUMPY", "an array of NumPy: use NpyDataset"),
    (rb"\x80[\x02-\x05]", "a pickle: save its arrays with numpy.save, or its table as CSV"),
    (rb"SQLite format 3\0", "a database of SQLite: save its table as CSV"),
    (rb"MATLAB 5\.0", "a file of MATLAB: save its arrays with numpy.save"),
    (rb"7z\xbc\xaf|Rar!|.{257}ustar", "an archive: unpack it first"),
    (rb"\x89HDF", "HDF5: save its arrays with numpy.save"),
    (rb".{4}ftyp(hei|hev|mif|msf)", f"HEIC: {_PICTURE}"),
    (rb".{4}ftypavi", f"AVIF: {_PICTURE}"),
    (rb".{4}ftyp", "a video"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*", "an image: use ImageFolder"),
)  # fmt: skip
_FOUND: Final = tuple(
    (re.compile(rb"(\xef\xbb\xbf)?\s*" * is_text + start, re.IGNORECASE | re.DOTALL), told)
    for is_text, table in ((True, _TEXTS), (False, _OTHERS))
    for start, told in table
)


def kind_of_text(start: bytes) -> str | None:
    """Return what the text of a file is by its beginning, and what to do about it, if known.

    >>> kind_of_text(b"<!DOCTYPE html><html>")
    'a web page: download the file again'
    >>> kind_of_text(b"a,b") is kind_of_text(b"<CLOSE>,<OPEN>") is None
    True
    """
    texts = _FOUND[: len(_TEXTS)]
    return next((told for pattern, told in texts if pattern.match(start)), None)


def kind_of_file(path: Path, reader: str) -> str | None:
    """Return what a file that could not be read is, and what to do about it, if that is known.

    reader: the class that could not read it: a damaged file of its own kind is no other one.
    """
    with path.open("rb") as file:
        start = file.read(_LONGEST)
    if not start.strip(b"\0 \r\n"):
        return "blank at its start: restore it" if start else "empty: download it again"
    told = next((told for pattern, told in _FOUND if pattern.match(start)), None)
    return None if told is not None and reader in told else told
