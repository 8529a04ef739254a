"""The first boot of a host that a driver makes: `drivers.api.Seeds` over the templates of cloud-init/.

The templates are YAML in which every `$name` is replaced by a JSON value (JSON is YAML), so nothing
that a user gave can change their structure. The host's SSH keys are made here and go along: the
host is known before its first contact (DESIGN decision 7, C12).
"""

from __future__ import annotations

import email.mime.multipart
import email.mime.text
import gzip
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from drivers.api import Seed, SeedRequest
from drivers.errors import DriverError
from machine.resources import cloud_init
from machine.store.files import ensure_dir, read_limited, write_atomic

LOGIN_KEY: Final = "id_ed25519"
_HOST_KEYS: Final = ("ed25519", "ecdsa")
_ROOM: Final = 2048  # bytes under the limit from which on the seed is compressed
_KEY_LIMIT: Final = 1 << 16
# first line of user data -> MIME subtype, from cloud-init's documentation ("User-data formats")
_KINDS: Final = (
    ("#cloud-config", "cloud-config"),
    ("#cloud-boothook", "cloud-boothook"),
    ("#include-once", "x-include-once-url"),
    ("#include", "x-include-url"),
    ("## template: jinja", "jinja2"),
    ("#!", "x-shellscript"),
)
# How the user's part is merged into ours: lists are joined, and where both set a value ours stays.
_MERGE: Final = "list(append)+dict(no_replace,recurse_array)+str()"
_MOUNT_OPTIONS: Final = {
    "9p": "trans=virtio,version=9p2000.L,nofail,_netdev",
    "virtiofs": "nofail",
    "vboxsf": "nofail",
}


class CloudSeeds:
    """The seed of one machine. Its keys lie in `folder`, mode 0600, and are made once."""

    def __init__(self, name: str, uuid: str, folder: Path) -> None:
        self._name = name
        self._uuid = uuid
        self._folder = folder

    def seed(self, wanted: SeedRequest) -> Seed:
        ensure_dir(self._folder)
        public = self._key(LOGIN_KEY, "ed25519")
        host = {kind: self._key(f"ssh_host_{kind}_key", kind) for kind in _HOST_KEYS}
        values = self._values(wanted, public, host)
        user_data = _merged(wanted.user_data, _render("user-data", values))
        return Seed(
            user=wanted.user,
            key_path=str(self._folder / LOGIN_KEY),
            public_key=public,
            host_keys=tuple(" ".join(line.split()[:2]) for line in host.values()),
            user_data=_fitting(user_data, wanted.limit),
            meta_data=_render("meta-data", values).encode(),
            network_config=_render("network-config", values).encode(),
        )

    def _values(
        self, wanted: SeedRequest, public: str, host: Mapping[str, str]
    ) -> dict[str, object]:
        root = wanted.user == "root"
        return {
            "hostname": self._name,
            "instance": self._uuid,
            "user": wanted.user,
            "disable_root": not root,
            "sudo": None if root else "ALL=(ALL) NOPASSWD:ALL",
            "public_key": public,
            "grow": "auto" if wanted.disk_grows else "off",
            "resize": wanted.disk_grows,
            "mounts": [
                [what, where, kind, _MOUNT_OPTIONS.get(kind, "nofail"), "0", "0"]
                for what, where, kind in wanted.mounts
            ],
            "packages": cloud_init("packages.sh"),
            **{f"{kind}_public": line for kind, line in host.items()},
            **{f"{kind}_private": self._private(kind) for kind in host},
        }

    def _private(self, kind: str) -> str:
        return read_limited(self._folder / f"ssh_host_{kind}_key", _KEY_LIMIT).decode()

    def _key(self, name: str, kind: str) -> str:
        """The public line of a key pair in the folder, made when it is not there yet."""
        place = self._folder / name
        beside = self._folder / f"{name}.pub"
        if not (place.exists() and beside.exists()):
            private, public = _new_key(kind)
            write_atomic(place, private)
            write_atomic(beside, f"{public} {self._name}\n".encode())
        return read_limited(beside, _KEY_LIMIT).decode().strip()


def _new_key(kind: str) -> tuple[bytes, str]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return private, public.decode()


def _render(name: str, values: Mapping[str, object]) -> str:
    """A template of cloud-init/ without comments (providers count every byte) and empty values."""
    kept = [
        line
        for line in cloud_init(name).splitlines()
        if line == "#cloud-config" or not line.startswith("#")
    ]
    shown = {key: json.dumps(value) for key, value in values.items()}
    text = string.Template("\n".join(kept) + "\n").substitute(shown)
    return re.sub(r"^ *[a-z_]+: (null|\[\])\n", "", text, flags=re.MULTILINE)


def _merged(theirs: bytes, ours: str) -> bytes:
    """One cloud-config, or a MIME archive of ours and the user's part (cloud-init's "multi-part")."""
    if not theirs.strip():
        return ours.encode()
    whole = email.mime.multipart.MIMEMultipart(boundary="===machine===")
    whole.attach(email.mime.text.MIMEText(ours, "cloud-config", "utf-8"))
    text = _text(theirs)
    part = email.mime.text.MIMEText(text, _kind(text), "utf-8")
    part["Merge-Type"] = _MERGE
    whole.attach(part)
    return whole.as_bytes()


def _text(theirs: bytes) -> str:
    try:
        return theirs.decode()
    except UnicodeDecodeError:
        raise DriverError(
            "the user data is no text",
            hint="Give it as it is written for cloud-init, not compressed.",
        ) from None


def _kind(text: str) -> str:
    """MIME subtype of the user's part by its first line. Raises DriverError for an unknown one."""
    for begin, kind in _KINDS:
        if text.startswith(begin):
            return kind
    first = re.sub(r"[^ -~]", "?", text.splitlines()[0])[:60]
    raise DriverError(
        f'the user data begins with "{first}", which cloud-init does not know',
        hint="It begins with #cloud-config, #!/bin/sh, #include, #cloud-boothook or ## template: jinja.",
    )


def _fitting(user_data: bytes, limit: int) -> bytes:
    """Compressed when it comes near the limit; cloud-init takes gzip everywhere."""
    if len(user_data) > limit - _ROOM:
        user_data = gzip.compress(user_data, mtime=0)
    if len(user_data) > limit:
        raise DriverError(
            f"the user data has {len(user_data)} bytes compressed, and the provider takes {limit}",
            hint="Let your own user data fetch its larger parts by #include.",
        )
    return user_data
