"""Where a lake is: disk or S3, its catalogue, its locks."""
