"""Protocols that archives answer by, each through one client with limits of time and size."""
