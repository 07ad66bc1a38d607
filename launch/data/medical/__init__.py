"""Data sets of medical files: which files belong together, the windows that they are looked at under, their samples."""
