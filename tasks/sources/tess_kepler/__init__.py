"""TESS, Kepler and K2 light curves, from MAST or a mirror of it."""
