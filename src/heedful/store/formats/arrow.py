"""Parquet and Arrow files by pyarrow, which only they need (pip install 'heedful[parquet]')."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heedful.config import InputError
from heedful.store.formats.files import Row

BATCH = 1000  # rows held at once


def pyarrow() -> Any:
    """Raises InputError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("Parquet and Arrow files need pyarrow; pip install 'heedful[parquet]'") from None
    return pyarrow


def read_parquet(path: Path) -> Iterator[Row]:
    pa = pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield from _rows(file.iter_batches(batch_size=BATCH))
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from None


def read_arrow(path: Path) -> Iterator[Row]:
    """Arrow's streaming format, in which datasets saves."""
    pa = pyarrow()
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as batches:
            yield from _rows(part for batch in batches for part in _parts(batch))
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from None


def _parts(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, BATCH):
        yield batch.slice(start, BATCH)


def _rows(batches: Any) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            number += 1
            yield Row(f"row {number}", values)


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); fetch or write it again")


class ParquetWriter:
    """Writes rows in batches; the columns' types are the shape's, so an empty first batch cannot mistake them."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self._pa = pyarrow()
        self._schema = self._pa.schema([(name, _type(self._pa, kind)) for name, kind in columns.items()])
        self._file = self._pa.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _type(pa: Any, kind: str) -> Any:
    text = pa.string()
    return {
        "text": text,
        "json": text,
        "messages": pa.list_(pa.struct([("role", text), ("content", text)])),
        "turns": pa.list_(pa.struct([("from", text), ("value", text)])),
        "pairs": pa.list_(pa.list_(text)),
        "texts": pa.list_(text),
        "numbers": pa.list_(pa.float64()),
        "integers": pa.list_(pa.int64()),
        "number": pa.float64(),
        "integer": pa.int64(),
        "bool": pa.bool_(),
    }[kind]
