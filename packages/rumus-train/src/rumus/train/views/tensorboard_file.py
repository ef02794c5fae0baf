"""`TensorBoardFile`: scalars for TensorBoard, without TensorBoard.

An event file is a sequence of records, each with its length and two checksums; a record is one
protocol buffer message, `Event`, of which six fields are needed:

    Event:        1 wall_time (double)  2 step (int64)  3 file_version (string)
                  5 summary (Summary)   7 session_log (SessionLog)
    Summary:      1 value (repeated Value)       Value: 1 tag (string)  2 simple_value (float)
    SessionLog:   1 status (1 is START: what has this step or a later one is void)
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rumus.train.base.append_file import AppendFile

_LENGTH: Final = 2  # the wire type of text, bytes and messages


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE: Final = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of a record: CRC-32C, rotated and moved, so that it may be nested.

    >>> hex(masked_crc32c(b"123456789"))
    '0xc78ab0e5'
    """
    crc = 0xFFFFFFFF
    table = _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # negative ones are ten bytes
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _LENGTH) + _varint(len(content)) + content


def _event(when: float, step: int, content: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", when) + b"\x10" + _varint(step) + content


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, event))
    return length + next(checks) + event + next(checks)


class TensorBoardFile:
    """A new event file in a folder; TensorBoard shows the files of one folder as one run.

    step: the number of steps done already; later steps in other files of this folder, from an
        abandoned run, become void. Raises OSError if the file cannot be created.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        now = time.time()
        number = len(list(folder.glob("events.out.tfevents.*")))
        # They are read in the order of their names.
        self._file = AppendFile(folder / f"events.out.tfevents.{int(now):010d}.{number:04d}")
        head = _record(_event(now, 0, _message(3, b"brain.Event:2")))
        if number:
            head += _record(_event(now, step + 1, _message(7, b"\x08\x01")))
        self._file.append(head)
        self._tags: dict[str, bytes] = {}

    def append(self, rows: Iterable[tuple[float, int, dict[str, float]]]) -> bool:
        """Append scalars by name, with time and step; return whether they were written."""
        return self._file.append(b"".join(_record(self._scalars(*row)) for row in rows))

    def _scalars(self, when: float, step: int, values: dict[str, float]) -> bytes:
        summary = b"".join(
            _message(1, self._tag(name) + b"\x15" + struct.pack("<f", _single(value)))
            for name, value in values.items()
        )
        return _event(when, step, _message(5, summary))

    def _tag(self, name: str) -> bytes:
        if name not in self._tags:
            self._tags[name] = _message(1, name.encode("utf-8", "replace"))
        return self._tags[name]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _single(value: float) -> float:
    """What float32 has not is infinite there; `struct` would refuse it."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value
