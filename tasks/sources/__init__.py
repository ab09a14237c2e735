"""Archives and surveys: a module or a folder each, and one line in the registry."""
