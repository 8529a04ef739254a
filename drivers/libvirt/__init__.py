"""Driver `libvirt`: virtual machines of a libvirtd here or elsewhere, from a cloud image."""

from drivers.libvirt.driver import DRIVER

__all__ = ["DRIVER"]
