"""Verify, compact, restore and watch a lake, and check the installation."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/keep-a-lake"
