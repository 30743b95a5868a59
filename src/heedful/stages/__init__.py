"""One file per stage: paper and symbols, configuration, steps, `train` (the loop), `main` (files in, files out)."""
