"""VIRAC: HDF5 tiles, and the public release at ESO."""
