"""Light curves of TESS, Kepler and K2 in files as MAST has them: those of the sandbox."""

from deployments.sandbox.mast_fits import KINDS, OWN, Columns, name_of, product

__all__ = ["KINDS", "OWN", "Columns", "name_of", "product"]
