"""The documentation: pages made from the code, the site, and `lightlake help`."""
