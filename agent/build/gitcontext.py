"""A git repository as build context: URL[#ref[:folder]], by the host's git, fenced in.

Nothing in the URL can become an option or another transport (security case 73): only https, http,
ssh and git:// are allowed, file: and ext: never, submodules are held to the same rule, and hooks
and the system's configuration are not used.  A password or token in the URL is in no argument, since
those are for every process of the host to see, and in no error text; it goes to its own host only.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.engine.building import Gone
from agent.errors import EngineError, Kind, cancelled, forbidden, invalid, no_space
from agent.host import process, tree
from agent.wire.http import public

_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,250}")
_URL = re.compile(r"(?:https?|git|ssh)://[A-Za-z0-9\[][^\s\x00-\x1f\\]{0,2000}")
_SCP = re.compile(r"git@([A-Za-z0-9][A-Za-z0-9.-]*):([A-Za-z0-9][^\s\x00-\x1f\\]{0,1000})")
_SIGNED = re.compile(r"([a-z]+://)([^/?]*)@(.*)")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_TIMEOUT = 600.0  # seconds for one step of it
_TICK = 0.1
_SAID = 4096  # bytes of git's own words in an error
_RESERVE = 256 << 20  # bytes left free on the file system
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


def shown(remote: str) -> str:
    """A remote for error texts: without what stands before its host."""
    return public(remote)[:200]


def signed(url: str) -> tuple[str, dict[str, str]]:
    """The URL without password or token, and the environment that gives them to git 2.31 or newer.

    Redirects are off then: git would send the header on to wherever they lead.
    """
    found = _SIGNED.fullmatch(url)
    if found is None:
        return url, {}
    scheme, given, rest = found.groups()
    user, _, password = given.partition(":")
    if scheme not in ("https://", "http://"):
        return f"{scheme}{user}@{rest}", {}  # a key opens those, or nothing
    words = f"{unquote(user)}:{unquote(password)}".encode()
    header = f"Authorization: Basic {base64.b64encode(words).decode('ascii')}"
    return f"{scheme}{rest}", {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"http.{scheme}{rest.partition('/')[0]}/.extraHeader",
        "GIT_CONFIG_VALUE_0": header,
        "GIT_CONFIG_KEY_1": "http.followRedirects",
        "GIT_CONFIG_VALUE_1": "false",
    }


def fetch(remote: str, folder: str, gone: Gone, *, keep: bool = False, commit: str = "") -> str:
    """Clone into `folder` (empty, ours); the folder inside it that the URL names.

    `keep`: leave .git there.  `commit`: what must have come, or a prefix of it.  INVALID, NO_SPACE,
    CANCELLED as soon as the client has gone.
    """
    url, ref, below = parse(remote)
    if shutil.which("git", path=_ENVIRONMENT["PATH"]) is None:
        raise invalid("building from a git repository needs the git program on this host")
    if commit and not _COMMIT.fullmatch(commit):
        raise invalid(f"invalid git checksum {commit[:100]!r}: a commit's hash is needed")
    url, secret = signed(url)
    _guard(url)
    git = _Git(folder, gone, secret)
    git.run("init", "--quiet")
    _download(git, url, ref)
    git.run("checkout", "--quiet", "--force", "FETCH_HEAD")
    if commit and not git.run("rev-parse", "HEAD").startswith(commit):
        raise invalid(f"ADD failed: the commit is not {commit}")
    git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    if not keep:
        with tree.opened(folder) as top:
            tree.remove_tree(top, ".git")  # any depth: names of submodules are the repository's
    return below


def _guard(url: str) -> None:
    """As ADD of other URLs: a Dockerfile must not reach the host's own services nor the cloud's
    metadata.  FORBIDDEN.  A name that can't be looked up is git's to tell."""
    try:
        host = urlsplit(url).hostname or ""
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    except (OSError, ValueError):
        return
    for one in addresses:
        plain = getattr(one, "ipv4_mapped", None) or one
        if plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast:
            raise forbidden(f"refusing to fetch from the private address of {host[:100]}")


class GitError(EngineError):
    """The program said no; INVALID for the client."""

    def __init__(self, said: str) -> None:
        super().__init__(Kind.INVALID, f"failed to fetch the git repository: {said}")


def _download(git: _Git, url: str, ref: str) -> None:
    only = ("fetch", "--quiet", "--depth", "1", "--no-tags", "--", url)
    try:
        git.run(*only, ref or "HEAD")
    except GitError:
        if not _COMMIT.fullmatch(ref):
            raise
        # Most servers give names only: then all branches, and the commit out of them.
        git.run("fetch", "--quiet", "--no-tags", "--", url, "+refs/heads/*:refs/remotes/origin/*")
        (git.folder / ".git" / "FETCH_HEAD").write_text(git.run("rev-parse", f"{ref}^{{commit}}"))


class _Git:
    """The program in one folder; a failure is told with git's own words."""

    def __init__(self, folder: str, gone: Gone, secret: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self._gone = gone
        self._environment = {**_ENVIRONMENT, **secret}

    def run(self, *words: str) -> str:
        """Its output.  INVALID when it fails."""
        argv = ["git", *_CONFIG, "-C", str(self.folder), *words]
        # Where space is watched: a server can say as much as it likes.
        here = self.folder
        with tempfile.TemporaryFile(dir=here) as out, tempfile.TemporaryFile(dir=here) as err:
            fds = {1: out.fileno(), 2: err.fileno()}
            child = process.spawn(argv, fds=fds, env=self._environment)
            try:
                code = self._wait(child)
            finally:
                if child.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)  # its own group: helpers too
                    child.wait()
                child.close()
            err.seek(0)
            if code != 0:
                raise GitError(err.read(_SAID).decode("utf-8", "replace").strip())
            out.seek(0)
            return out.read(_SAID).decode("utf-8", "replace").strip()

    def _wait(self, child: process.Child) -> int:
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                return child.wait(_TICK)
            except process.ProcessTimeoutError:
                if self._gone():
                    raise cancelled("the build was cancelled: the client has gone") from None
                space = os.statvfs(self.folder)
                if space.f_bavail * space.f_frsize < _RESERVE:
                    raise no_space("no space left on device for the git repository") from None
                if time.monotonic() > deadline:
                    raise invalid("failed to fetch the git repository: it takes too long") from None
