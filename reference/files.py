"""Files that are there whole or not at all, however a program ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, in the same folder, that takes the place of `path` once the block ends without error.

    One process at a time may write a `path`. What a killed one leaves behind, the next overwrites.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "log.txt"
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text()
        'whole'
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
