"""Verify, compact, restore and watch a lake, and check the installation."""
