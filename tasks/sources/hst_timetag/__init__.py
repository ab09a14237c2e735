"""Photons that HST's COS and STIS recorded one by one (TIME-TAG mode), binned into light curves."""
