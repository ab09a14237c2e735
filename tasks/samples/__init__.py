"""Where targets come from: one module a way of getting them."""

# The page that helps with errors from here.
HELP_TOPIC = "how-to/target-lists"
