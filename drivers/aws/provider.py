"""boto3 behind the context's door: one call is one thing that Amazon does or does not do."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from drivers.api import DriverContext
from drivers.aws.documents import Document, rows, text
from drivers.aws.failures import failure, unsent
from drivers.errors import DriverError
from drivers.polling import retried

if TYPE_CHECKING:
    import boto3

DEFAULT_REGION: Final = "us-east-1"
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60
_RETRY_SECONDS: Final = 90.0  # after boto3's own attempts
_MAKING: Final = threading.Lock()  # boto3's loaders are not made for several threads at once


@functools.cache
def _loader() -> object:
    """botocore's descriptions of the API: read once a process (0.2 s), not once a client."""
    import botocore.loaders

    loader: object = botocore.loaders.create_loader()
    return loader


def missing_library() -> list[str]:
    """What must be installed; looks without importing."""
    if importlib.util.find_spec("boto3") is None:
        return ["boto3 is not installed: pip install 'machine[aws]'"]
    return []


class Cloud:
    """EC2 and SSM in one region, with one context's credentials. For one verb, of one thread."""

    def __init__(self, ctx: DriverContext, patience: float = _RETRY_SECONDS) -> None:
        """`patience`: seconds for which bad moments are waited out, after boto3's own attempts."""
        self._ctx = ctx
        self._patience = patience
        self.region = ""

    def ask(self, operation: str, /, **fields: object) -> Document:
        """One call of EC2, again while Amazon has a bad moment; `operation` is its API's name.

        Only for what may be asked twice: reads, deletes, and what has a token or a name of its own.
        """
        return self._again("ec2", operation, fields)

    def parameters(self, names: list[str]) -> Document:
        """SSM's GetParameters, ten names at most."""
        return self._again("ssm", "GetParameters", {"Names": names})

    def once(self, operation: str, /, **fields: object) -> Document:
        """One call of EC2, once. Raises a kind of DriverError."""
        return self._once("ec2", operation, fields)

    def listed(self, operation: str, key: str, /, **fields: object) -> list[Document]:
        """All pages of a Describe call: the entries at `key`."""
        found: list[Document] = []
        page = self.ask(operation, **fields)
        found += rows(page, key)
        while text(page, "NextToken"):
            page = self.ask(operation, **fields, NextToken=text(page, "NextToken"))
            found += rows(page, key)
        return found

    def connect(self) -> str:
        """The region, known without asking anybody. Raises DriverError for a bad profile."""
        with _told("credentials"):
            self._client("ec2")
        return self.region

    def _again(self, service: str, operation: str, fields: Mapping[str, object]) -> Document:
        return retried(
            lambda: self._once(service, operation, fields),
            clock=self._ctx.clock,
            seconds=self._patience,
        )

    def _once(self, service: str, operation: str, fields: Mapping[str, object]) -> Document:
        method = _snake(operation)

        def action() -> Document:
            with _told(operation):
                answer: Document = getattr(self._client(service), method)(**fields)
            return answer

        return self._ctx.door.call(operation, action)

    def _client(self, service: str) -> object:
        ctx = self._ctx
        access = _Access(ctx.text("access-key"), ctx.text("secret-key"), ctx.text("session-token"))
        with _MAKING:
            session = _session(access)
            self.region = region(ctx, session.region_name or "")
            attempts = max(1, ctx.number("retries") + 1)
            return _made(access, service, self.region, endpoint(ctx), attempts)


class _Access(NamedTuple):
    """Credentials that were given; empty ones leave it to boto3's own chain."""

    key: str
    secret: str
    token: str


# Sessions and clients cost 0.1 s each and keep their connections: one of each kind a process.
@functools.lru_cache(maxsize=8)
def _session(access: _Access) -> boto3.session.Session:
    try:
        import boto3
        import botocore.session
    except ImportError as err:
        raise DriverError(
            f"the driver needs boto3: {err}", hint="pip install 'machine[aws]'"
        ) from err
    inner = botocore.session.Session()
    inner.register_component("data_loader", _loader())
    return boto3.session.Session(
        botocore_session=inner,
        aws_access_key_id=access.key or None,
        aws_secret_access_key=access.secret or None,
        aws_session_token=(access.token or None) if access.key else None,
    )


@functools.lru_cache(maxsize=32)
def _made(
    access: _Access, service: str, region_name: str, endpoint_url: str | None, attempts: int
) -> object:
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_appid="machine",
    )
    client: object = _session(access).client(
        service, region_name=region_name, endpoint_url=endpoint_url, config=config
    )
    return client


def region(ctx: DriverContext, profile: str) -> str:
    """The machine's region: as it was when it was made, else the option's, else `profile`'s."""
    stored = ctx.state.get("region")
    return str(stored) if stored else ctx.text("region") or profile or DEFAULT_REGION


def endpoint(ctx: DriverContext) -> str | None:
    """The API's address with its scheme; None for Amazon's own."""
    given = ctx.text("endpoint")
    if not given or "://" in given:
        return given or None
    return f"{'http' if ctx.flag('insecure-transport') else 'https'}://{given}"


def endpoint_problem(ctx: DriverContext) -> str:
    """Why the endpoint can't be used; ""."""
    parts = urlsplit(endpoint(ctx) or "https://amazon")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"--amazonec2-endpoint {ctx.text('endpoint')} is no http or https address"
    near = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme == "http" and not near and not ctx.flag("insecure-transport"):
        return (
            f"--amazonec2-endpoint {ctx.text('endpoint')} would be asked without TLS: use https, "
            "or say --amazonec2-insecure-transport"
        )
    return ""


@contextlib.contextmanager
def _told(call: str) -> Iterator[None]:
    """botocore's errors become the contract's."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as err:
        said = err.response.get("Error", {})
        status = err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code, words = str(said.get("Code", "")), str(said.get("Message", ""))
        raise failure(call, code, words, int(status)) from err
    except (BotoCoreError, HTTPClientError) as err:
        raise unsent(call, type(err).__name__, str(err)) from err


def _snake(operation: str) -> str:
    """RunInstances -> run_instances, as boto3 names its methods."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in operation).lstrip("_")
