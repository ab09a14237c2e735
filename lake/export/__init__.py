"""Convert rows of a lake to other forms and files."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/files-and-citations"
