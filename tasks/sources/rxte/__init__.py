"""RXTE: standard products, and light curves of chosen channels."""
