"""Every driver of ours against the contract (drivers.testkit)."""

from pathlib import Path

from drivers import registry
from drivers.api import Driver, DriverContext
from drivers.fake import FakeCloud, FakeDriver
from drivers.testkit import DriverSuite, context


class TestFake(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        driver = FakeDriver(FakeCloud())
        return driver, context(folder, driver.options, {"token": "t"})


class TestSsh(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        driver = registry.load("ssh")
        return driver, context(folder, driver.options, {"ip-address": "192.0.2.1"})


class TestSshWithKey(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        key = folder.parent / f"{folder.name}-key"
        key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        key.chmod(0o600)
        driver = registry.load("generic")
        given = {"ip-address": "192.0.2.1", "ssh-key": str(key)}
        return driver, context(folder, driver.options, given)


class TestLocal(DriverSuite):
    def make(self, folder: Path) -> tuple[Driver, DriverContext]:
        driver = registry.load("local")
        return driver, context(folder, driver.options, {})
