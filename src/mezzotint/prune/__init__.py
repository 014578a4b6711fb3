"""Smaller models from trained ones."""
