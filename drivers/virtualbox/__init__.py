"""Driver `virtualbox`: a virtual machine of VirtualBox 7 on this computer, through VBoxManage."""

from drivers.virtualbox.driver import DRIVER

__all__ = ["DRIVER"]
