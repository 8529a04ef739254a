"""Docker-cased JSON <-> the engine's dataclasses.  Pure: values in, values out."""
