"""Frames on disk: recordings in zarr or HDF5, and the record that says what is committed."""
