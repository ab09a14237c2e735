"""Archives and surveys: a module or a folder each, and one line in the registry."""

# The page that helps with errors from here.
HELP_TOPIC = "reference/archives"
