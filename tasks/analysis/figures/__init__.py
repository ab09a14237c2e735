"""Figures: pure functions from tables to Altair charts, and the colours, captions and files that all of them share."""
