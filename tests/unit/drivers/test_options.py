import pytest

from drivers import options
from drivers.errors import DriverError
from drivers.options import Kind, OptionSpec

SPECS = (
    OptionSpec("host", ("--x-host",), "the host", env=("X_HOST", "OLD_HOST"), required=True),
    OptionSpec("port", ("--x-port",), "port", kind=Kind.PORT, default=22, env=("X_PORT",)),
    OptionSpec("tags", ("--x-tag",), "tags", kind=Kind.LIST, default=(), env=("X_TAGS",)),
    OptionSpec("fast", ("--x-fast",), "fast", kind=Kind.FLAG, default=False, env=("X_FAST",)),
    OptionSpec("token", ("--x-token",), "secret", env=("X_TOKEN",), secret=True),
)


def test_command_line_wins_over_environment_over_default() -> None:
    found = options.resolve(SPECS, {"host": "a"}, {"X_HOST": "b", "X_PORT": "2222"})
    assert found == {"host": "a", "port": 2222, "tags": (), "fast": False, "token": ""}


def test_lists_are_read_from_the_environment_too() -> None:
    """docker-machine ignored those (reference 1.2)."""
    found = options.resolve(SPECS, {"host": "a"}, {"X_TAGS": "a,b", "X_FAST": "true"})
    assert found["tags"] == ("a", "b")
    assert found["fast"] is True


def test_second_environment_name() -> None:
    assert options.resolve(SPECS, {}, {"OLD_HOST": "o"})["host"] == "o"


def test_all_problems_at_once() -> None:
    with pytest.raises(DriverError) as caught:
        options.resolve(SPECS, {"port": "x", "fast": "maybe"}, {})
    assert len(caught.value.message.splitlines()) == 3
    assert "--x-host is required" in caught.value.message


@pytest.mark.parametrize("bad", ["0", "65536", "-1", "22x", ""])
def test_ports(bad: str) -> None:
    with pytest.raises(ValueError, match="--x-port"):
        options.parse(SPECS[1], bad)


def test_control_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="control"):
        options.parse(SPECS[0], "a\nb")


def test_record_round_trip_without_secrets() -> None:
    values = options.resolve(SPECS, {"host": "a", "tags": ("x", "y"), "token": "s3cret"}, {})
    stored = options.stored(SPECS, values)
    assert "s3cret" not in str(stored)
    again = options.from_stored(SPECS, stored, {"X_TOKEN": "new", "X_PORT": "9"})
    assert again == {**values, "token": "new"}
