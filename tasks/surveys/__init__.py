"""Surveys that come as files: VIRAC's tiles, RXTE's observations."""
