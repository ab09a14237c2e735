"""RXTE: standard products, and light curves of chosen channels."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/rxte"
