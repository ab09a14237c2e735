"""Photons that HST's COS and STIS recorded one by one (TIME-TAG mode), binned into light curves."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/hst"
