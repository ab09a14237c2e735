"""Where a lake is: disk or S3, its catalogue, its locks."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/keep-a-lake"
