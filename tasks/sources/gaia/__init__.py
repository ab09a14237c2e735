"""Gaia: sources and epoch photometry."""
