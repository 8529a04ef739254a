"""A git repository as build context: URL[#ref[:folder]], by the host's git, fenced in.

Nothing in the URL can become an option or another transport (security case 73): only https, http,
ssh and git:// are allowed, file: and ext: never, submodules are held to the same rule, and hooks
and the system's configuration are not used.
"""

from __future__ import annotations

import re
import shutil

from agent.errors import invalid
from agent.host import process

_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,250}")
_URL = re.compile(r"(?:https?|git|ssh)://[A-Za-z0-9\[][^\s\x00-\x1f\\]{0,2000}")
_SCP = re.compile(r"git@([A-Za-z0-9][A-Za-z0-9.-]*):([A-Za-z0-9][^\s\x00-\x1f\\]{0,1000})")
_TIMEOUT = 600.0
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
}
_CONFIG = (
    "-c", "protocol.file.allow=never",
    "-c", "protocol.ext.allow=never",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.symlinks=true",
    "-c", "transfer.bundleURI=false",
)  # fmt: skip


def parse(remote: str) -> tuple[str, str, str]:
    """(URL, ref, folder).  INVALID for anything that is not plainly one."""
    url, _, fragment = remote.partition("#")
    ref, _, folder = fragment.partition(":")
    scp = _SCP.fullmatch(url)
    if scp is not None:
        url = f"ssh://git@{scp[1]}/{scp[2]}"
    elif url.startswith("github.com/"):
        url = f"https://{url}"
    if not _URL.fullmatch(url):
        raise invalid("invalid git URL of the build context")
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise invalid(f"invalid git reference: {ref[:100]!r}")
    if ".." in folder.split("/"):
        raise invalid(f"invalid folder of the git context: {folder[:100]!r}")
    return url, ref, folder.strip("/")


def fetch(remote: str, folder: str) -> str:
    """Clone into `folder`; the folder inside it that is the context."""
    url, ref, below = parse(remote)
    if shutil.which("git", path=_ENVIRONMENT["PATH"]) is None:
        raise invalid("building from a git repository needs the git program on this host")
    base = ["git", *_CONFIG, "-C", folder]
    try:
        for words in (
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, ref or "HEAD"],
            ["checkout", "--quiet", "--force", "FETCH_HEAD"],
            ["submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"],
        ):
            process.run([*base, *words], env=_ENVIRONMENT, timeout=_TIMEOUT)
    except process.ProcessError as error:
        raise invalid(f"failed to fetch the git context: {error}") from error
    shutil.rmtree(f"{folder}/.git", ignore_errors=True)
    return below
