"""From an error's kind to its HTTP status: the one such table (Docker Engine's choices)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agent.errors import Kind

STATUS: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        Kind.NOT_MODIFIED: 304,
        Kind.INVALID: 400,
        Kind.UNAUTHORIZED: 401,
        Kind.FORBIDDEN: 403,
        Kind.NOT_FOUND: 404,
        Kind.METHOD_NOT_ALLOWED: 405,
        Kind.NOT_ACCEPTABLE: 406,
        Kind.TIMEOUT: 408,
        Kind.CONFLICT: 409,
        Kind.TOO_LARGE: 413,
        Kind.HEADERS_TOO_LARGE: 431,
        Kind.INTERNAL: 500,
        Kind.NOT_IMPLEMENTED: 501,
        Kind.UNAVAILABLE: 503,
        Kind.DEADLINE: 504,
        Kind.CANCELLED: 500,
        Kind.NO_SPACE: 500,
        Kind.DATA_LOSS: 500,
    }
)

# Only what this engine sends. Clients show the number's text nowhere, so an unknown one is harmless.
REASONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        100: "Continue",
        101: "UPGRADED",  # Docker Engine's spelling
        200: "OK",
        201: "Created",
        202: "Accepted",
        204: "No Content",
        304: "Not Modified",
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        406: "Not Acceptable",
        408: "Request Timeout",
        409: "Conflict",
        413: "Request Entity Too Large",
        431: "Request Header Fields Too Large",
        500: "Internal Server Error",
        501: "Not Implemented",
        503: "Service Unavailable",
        504: "Gateway Timeout",
    }
)
