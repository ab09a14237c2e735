"""How Lightlake is run: deployments, schedules, clusters, and the sandbox of archive stand-ins."""
