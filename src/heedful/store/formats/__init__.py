"""The ecosystem's data formats, in and out.

Two layers that compose freely. The file layer (`files`, `arrow`) turns JSON lines, JSON, CSV, Parquet and dataset
folders into rows and back. The shape layer (one module per family, listed in `shapes`) turns a row into an `Item`,
which is a prompt with answers and what one labeler said of them, and an item into rows. `take_in` and `give_out` carry
items into a store and out of it; `convert` needs no store.
"""
