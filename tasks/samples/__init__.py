"""Where targets come from: one module a way of getting them."""
