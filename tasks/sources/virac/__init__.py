"""VIRAC: HDF5 tiles, and the public release at ESO."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/virac"
