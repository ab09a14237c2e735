"""Run Lightlake: deployments, schedules, clusters, and a sandbox of simulated archives."""
