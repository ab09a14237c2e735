"""Side by side with what a user would run otherwise. Each module prints a table, then one JSON object."""
