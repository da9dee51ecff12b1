"""How the frames of one recording lie on disk: as zarr arrays or as HDF5 parts."""
