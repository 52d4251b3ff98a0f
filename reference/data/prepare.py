"""From a data set to a store, case by case, as often interrupted as need be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reference.data.layouts import Reading, Source, read_source
from reference.data.store import clear_leftovers, read_case, read_record, write_case


@dataclass(frozen=True)
class Prepared:
    """What came of each case: names of those written, those kept as they were, and what ails the damaged ones."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def prepare(
    sources: Iterable[Source],
    store: Path,
    reading: Reading,
    *,
    skip_damaged: bool = False,
) -> Prepared:
    """Write `sources` to `store`, one after the other.

    A case that is there, whole, and was made of the same files in the same way is kept. Each appears in one atomic
    step, so a run that is killed loses the case it was at, and the next run goes on there.

    Args:
        sources: what to read.
        store: the folder to write to, made if absent; cases of others stay.
        reading: how to read them.
        skip_damaged: leave out cases that cannot be read.

    Raises:
        ValueError: a case cannot be read, unless `skip_damaged`; the message names it.
    """
    done = Prepared()
    for source in sources:
        try:
            written = _prepare_one(source, store, reading)
        except (OSError, ValueError) as error:
            if not skip_damaged:
                raise ValueError(f"{source.pair.name}: {error}") from error
            done.damaged[source.pair.name] = str(error)
        else:
            (done.written if written else done.kept).append(source.pair.name)
    return done


def _prepare_one(source: Source, store: Path, reading: Reading) -> bool:
    """Return False where the case is there already."""
    files = (source.pair.image, source.pair.mask)
    provenance = {
        "layout": source.layout,
        "reading": asdict(reading),
        "sources": [{"path": str(path.resolve()), "sha256": sha256(path)} for path in files],
    }
    clear_leftovers(store, source.pair.name)
    if _is_done(store / source.pair.name, provenance):
        return False
    write_case(store, read_source(source, reading), provenance)
    return True


def _is_done(folder: Path, provenance: dict[str, Any]) -> bool:
    """Tell whether a whole case of the same content is there; where its files lie may have changed."""
    try:
        read_case(folder)
        record = read_record(folder)
    except ValueError:
        return False
    return _content(record) == _content(provenance)


def _content(record: dict[str, Any]) -> tuple[Any, ...]:
    # JSON has lists for tuples.
    reading = {name: list(value) if isinstance(value, tuple) else value for name, value in record["reading"].items()}
    return record["layout"], reading, [source["sha256"] for source in record["sources"]]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder, in hexadecimal."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(path.rglob("*")):
        if file_path.is_file():
            digest.update(f"{file_path.relative_to(path).as_posix()}\0{sha256(file_path)}\n".encode())
    return digest.hexdigest()
