"""Texts with their checksum, so that a file that was cut at the end of a line is told from whole.

A prefix of TOML is TOML, and a changed digit is a digit.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

_OF_TOML: Final = re.compile(r"# crc32 ([0-9a-f]{8}) of what follows; [^\n]*\n?")
_OF_JSON: Final = re.compile(r',\n  "crc32": "([0-9a-f]{8})"\n}\n?\Z')


def sealed_toml(text: str) -> str:
    """Return TOML behind a comment with its checksum.

    >>> print(sealed_toml("lr = 0.1\\n"), end="")
    # crc32 e0c38fff of what follows; remove this line if you change any
    lr = 0.1
    """
    return f"# crc32 {_sum(text)} of what follows; remove this line if you change any\n{text}"


def sealed_json(text: str) -> str:
    """Return a JSON object, indented by 2, with its checksum as the last member."""
    return f'{text[:-2]},\n  "crc32": "{_sum(text)}"\n}}\n'


def fault_of_seal(text: str) -> str | None:
    """Return what to say of a text that is not what was sealed; None for one without a checksum.

    >>> whole = sealed_toml("lr = 0.1\\nwidth = 3\\n")
    >>> fault_of_seal(whole), fault_of_seal(whole.removesuffix("width = 3\\n"))
    (None, 'it was cut or changed after it was written')
    """
    if found := _OF_TOML.match(text):
        sealed = text[found.end() :]
    elif found := _OF_JSON.search(text):
        sealed = f"{text[: found.start()]}\n}}"
    else:
        return None
    return None if _sum(sealed) == found[1] else "it was cut or changed after it was written"


def _sum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
