"""Droplets of DigitalOcean, by python-digitalocean."""

from drivers.digitalocean.driver import DRIVER

__all__ = ["DRIVER"]
