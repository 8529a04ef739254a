"""Sources that are sent to the host and run there by its own Python (standard library only)."""
