"""How rows get in: staged, validated, and committed whole or not at all."""
