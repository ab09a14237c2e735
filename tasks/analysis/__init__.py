"""Draw figures and pages of light curves."""
