"""One format into another, row by row, without a store: nothing is split, de-duplicated or given an owner."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from heedful.store.formats.give_out import Given, writable_kind, write_items
from heedful.store.formats.item import Item, Writing
from heedful.store.formats.reading import Read, Source, read_items
from heedful.store.formats.shapes import Shape


def convert(
    source: Source, path: Path, shape: Shape, how: Writing | None = None, bom: bool = False
) -> tuple[Read, Given]:
    """Write the source's items in the other shape, all or nothing.

    Raises:
        InputError: broken rows under "refuse", a shape that is only read, a place that cannot be written.
    """
    writable_kind(shape, None)
    read, given = Read(source.path, source.shape), Given(path, shape, "judgement")
    write_items(_numbered(read_items(source, read)), given, how or Writing(), bom)
    return read, given


def _numbered(items: Iterator[Item]) -> Iterator[Item]:
    """The pairs of one ranking share its number."""
    for number, item in enumerate(items, start=1):
        yield dataclasses.replace(item, id=str(number))
