"""Archives as sources: asked target by target, in batches of granules that are fetched, made sound and staged."""
