"""Reading HDF5 files with their types checked."""

import h5py


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of a group; KeyError where there is none, or something else of that name."""
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"{name!r} is not a dataset")
    return found
