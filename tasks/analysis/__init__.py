"""Draw figures and pages of light curves."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/figures"
