"""drivers.digitalocean.refusals: the API's own texts as data."""

import pytest

from drivers.digitalocean.refusals import ThrottledError, patience, refusal
from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)

NOW = 1_800_000_000.0

SAID = [
    (401, "unauthorized", "Unable to authenticate you", AuthError),
    (403, "forbidden", "You are not authorized to perform this operation", AuthError),
    (404, "not_found", "The resource you were accessing could not be found.", GoneError),
    (409, "conflict", "duplicate name", ConflictError),
    (409, "conflict", "attached volume cannot be deleted", ConflictError),
    (422, "unprocessable_entity", "Droplet already has a pending event.", ConflictError),
    (
        422,
        "unprocessable_entity",
        "Droplet is currently on. Please power it off to run this event.",
        ConflictError,
    ),
    (422, "unprocessable_entity", "Droplet is already powered off.", ConflictError),
    (422, "unprocessable_entity", "You must specify a positive value for ports.", InvalidError),
    (422, "unprocessable_entity", "SSH Key is already in use on your account", ConflictError),
    (
        422,
        "unprocessable_entity",
        "creating this/these droplet(s) will exceed your droplet limit",
        QuotaError,
    ),
    (
        422,
        "unprocessable_entity",
        "You specified an invalid image for Droplet creation.",
        InvalidError,
    ),
    (422, "unprocessable_entity", "Size is not available in this region.", InvalidError),
    (
        422,
        "unprocessable_entity",
        "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)",
        InvalidError,
    ),
    (429, "too_many_requests", "API Rate limit exceeded.", ThrottledError),
    (500, "server_error", "Unexpected server-side error", TransientError),
    (503, "service_unavailable", "The service is temporarily unavailable.", TransientError),
    (301, "", "Moved", DriverError),
]


@pytest.mark.parametrize(("status", "ident", "message", "kind"), SAID)
def test_each_refusal_has_its_kind_and_the_provider_s_text(
    status: int, ident: str, message: str, kind: type[DriverError]
) -> None:
    found = refusal(status, {"id": ident, "message": message, "request_id": "x"}, {}, NOW)
    assert type(found) is kind
    assert message in found.message
    assert str(status) in found.message


@pytest.mark.parametrize("document", [None, [], "text", {}, {"message": ""}])
def test_an_answer_without_a_text_is_told_by_its_status(document: object) -> None:
    assert refusal(502, document, {}, NOW).message == "DigitalOcean: answered with status 502"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "1e9"}, 3600.0),
        ({"retry-after": "Wed, 21 Oct"}, 0.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(int(NOW) + 90)}, 90.0),
        ({"ratelimit-remaining": "17", "ratelimit-reset": str(int(NOW) + 90)}, 0.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(int(NOW) - 90)}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert patience(headers, NOW) == seconds
