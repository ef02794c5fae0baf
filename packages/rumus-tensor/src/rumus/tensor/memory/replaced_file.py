"""`replaced`: a file that is replaced as a whole, or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from rumus.tensor.memory.uninterrupted import putting_back


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder to write to; at the end of the block it replaces `path`.

    If the block raises, or the process ends in it, `path` is what it was. A link still leads to the
    file it led to; what is no regular file, such as a pipe, is written directly.

    path: of the file.

    Raises OSError if it cannot be written.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "numbers.txt")
    >>> with replaced(file) as beside:
    ...     _ = beside.write_text("1 2 3")
    >>> file.read_text()
    '1 2 3'
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))
    beside = target.with_name(f".{token_hex(4)}.{target.name}")
    with putting_back(lambda: beside.unlink(missing_ok=True)):
        yield beside
        descriptor = os.open(beside, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, target)
