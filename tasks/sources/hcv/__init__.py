"""The Hubble Catalog of Variables."""
