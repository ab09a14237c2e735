"""Convert rows of a lake to other forms and files."""
