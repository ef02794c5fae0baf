"""The safetensors format: eight bytes of length, a header in JSON, then the arrays one by one.

Arrays are written in place and read into one buffer, of which the loaded ones are views, so a large
state is never in memory twice. The header is fully verified.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.printable import printable
from rumus.train.base.strict_json import parse, render
from rumus.train.checkpoints.state_tree import Arrays

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"{letter}{8 * size}": np.dtype(f"<{letter.lower()}{size}")
       for letter in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}  # fmt: skip
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST = 100_000_000  # bytes of header, the limit of the reference implementation too


def described(arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Return the name of the dtype, and the shape, of each array.

    TypeError for a dtype that the format lacks.

    >>> described({"w": np.zeros((2, 3), np.float32)})
    {'w': {'dtype': 'F32', 'shape': [2, 3]}}
    """
    found = {}
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise TypeError(f"array {name!r} is {array.dtype}: safetensors has {', '.join(DTYPES)}")
        found[name] = {"dtype": _NAMES[dtype], "shape": list(array.shape)}
    return found


def pieces(arrays: Arrays) -> list[memoryview]:
    """Return the bytes of a file with these arrays, in pieces, without copies if possible.

    The widest dtypes come first, so that each array is aligned.
    """
    entries, data, position = described(arrays), [], 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        array = arrays[name]
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data.append(little.reshape(-1).view(np.uint8).data)
        entries[name]["data_offsets"] = [position, position + little.nbytes]
        position += little.nbytes
    order = sorted(entries, key=lambda name: entries[name]["data_offsets"])
    header = render({name: entries[name] for name in order})
    header += b" " * (-len(header) % 8)
    return [memoryview(len(header).to_bytes(8, "little") + header), *data]


def arrays_in(buffer: NDArray[np.uint8]) -> Arrays:
    """Return the arrays of a file that was read into `buffer`, as views of it.

    ValueError if the header is not exactly one for this many bytes: each byte of data belongs to
    one array.
    """
    length = int.from_bytes(buffer[:8].tobytes(), "little")
    if len(buffer) < 8 or length > min(_LONGEST, len(buffer) - 8):
        raise ValueError(f"a header of {length} bytes cannot fit in {len(buffer)} bytes")
    header = parse(buffer[8 : 8 + length].tobytes())
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    data = buffer[8 + length :]
    spans = sorted((_span(name, entry), name) for name, entry in header.items())
    position = 0
    for (start, stop), name in spans:
        if start != position:
            raise ValueError(f"array {name!r} starts at {start}, where {position} was expected")
        position = stop
    if position != len(data):
        raise ValueError(f"the arrays have {position} bytes, the file {len(data)}")
    return {
        name: data[start:stop].view(DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])
        for (start, stop), name in spans
    }


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Return the start and stop of an array, if its entry in the header is valid."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"array {name!r} has the unknown dtype {dtype!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"array {name!r} has the shape {printable(repr(shape))} at {printable(repr(offsets))}"
        )
    start, stop = offsets
    # First the axes: the product of a million sizes would take hours.
    if len(shape) > 32 or math.prod(shape) * DTYPES[dtype].itemsize != stop - start:
        raise ValueError(f"array {name!r} of shape {shape[:33]!r} has {stop - start} bytes")
    return start, stop


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)
