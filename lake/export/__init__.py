"""Forms and files in which rows leave a lake."""
