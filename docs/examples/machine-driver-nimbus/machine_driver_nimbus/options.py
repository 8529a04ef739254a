"""What `machine create -d nimbus` takes."""

from __future__ import annotations

from typing import Final

from drivers.options import Kind, OptionSpec

OPTIONS: Final = (
    OptionSpec(
        "token",
        ("--nimbus-token",),
        "Token of the account",
        env=("NIMBUS_TOKEN",),
        secret=True,  # never stored: from the environment again at each use
        required=True,
    ),
    OptionSpec(
        "url",
        ("--nimbus-url",),
        "Where the API is",
        default="https://api.nimbus.example",
        env=("NIMBUS_URL",),
    ),
    OptionSpec(
        "size", ("--nimbus-size",), "Size of the server", default="small", env=("NIMBUS_SIZE",)
    ),
    OptionSpec(
        "ssh-user", ("--nimbus-ssh-user",), "User that is made and logs in", default="admin"
    ),
    OptionSpec(
        "userdata",
        ("--nimbus-userdata",),
        "File with your own user data for cloud-init",
        kind=Kind.PATH,
        env=("NIMBUS_USERDATA",),
    ),
)
