"""The container engine that `machine` installs on each host; see ARCHITECTURE.md."""

__version__ = "0.1.0"
