"""Compose projects for the live tests, and the one way to run them."""
