"""Every field of the specification has a row, and every row is in the specification."""

import pytest

from agent.api.schema.config import CONTAINER_CONFIG
from agent.api.schema.create import WRAPPER
from agent.api.schema.execs import EXEC_CONFIG, EXEC_START
from agent.api.schema.fields import Table
from agent.api.schema.host import (
    DEVICE,
    HOST_CONFIG,
    LOG_CONFIG,
    RESOURCES,
    RESTART_POLICY,
    ULIMIT,
)
from agent.api.schema.images import AUTH_CONFIG
from agent.api.schema.mounts import BIND, DRIVER, MOUNT, TMPFS, VOLUME
from agent.api.schema.networks import ENDPOINT, NETWORKING_CONFIG
from agent.api.schema.ports import BINDING
from agent.api.schema.volumes import VOLUME_CREATE
from tests.unit.agent.api.spec import definitions

TABLES: list[Table] = [
    CONTAINER_CONFIG, ENDPOINT, NETWORKING_CONFIG, EXEC_CONFIG, EXEC_START, DEVICE, HOST_CONFIG,
    LOG_CONFIG, RESOURCES, RESTART_POLICY, ULIMIT, BIND, DRIVER, MOUNT, TMPFS, VOLUME, BINDING,
    VOLUME_CREATE,
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.definition)
def test_the_table_has_all_fields_of_the_definition(table):
    names = [field.name for field in table.fields]
    assert sorted(names) == sorted(definitions()[table.definition])


def test_the_create_body_is_these_three():
    ours = {field.name for table in (CONTAINER_CONFIG, WRAPPER) for field in table.fields}
    assert ours == set(definitions()["ContainerCreateRequest"])


def test_auth_has_the_fields_of_the_specification_and_of_its_text():
    ours = {field.name for field in AUTH_CONFIG.fields}
    assert set(definitions()["AuthConfig"]) <= ours
