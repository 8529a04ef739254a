"""Amazon's error codes to the contract's kinds (pure). The text stays Amazon's own.

Codes: "Error codes for the Amazon EC2 API" and "Common errors" of its API reference.
"""

from __future__ import annotations

import re
from typing import Final

from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)

_AUTH: Final = frozenset(
    {
        "AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "SignatureDoesNotMatch",
        "ExpiredToken", "ExpiredTokenException", "RequestExpired", "MissingAuthenticationToken",
        "IncompleteSignature", "UnrecognizedClientException", "AccessDenied", "OptInRequired",
        "AccessDeniedException", "PendingVerification", "Blocked", "InvalidAccessKeyId",
        "AccountProblem", "NotAuthorized", "PendingAccountVerification",
    }
)  # fmt: skip
_QUOTA: Final = frozenset(
    {
        "InstanceLimitExceeded", "VcpuLimitExceeded", "InsufficientInstanceCapacity",
        "InsufficientCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow",
        "AddressLimitExceeded", "InsufficientFreeAddressesInSubnet", "InsufficientAddressCapacity",
        "InsufficientVolumeCapacity", "MaxIOPSLimitExceeded", "CreditsExceeded",
        "ConcurrentSnapshotLimitExceeded", "InsufficientReservedInstanceCapacity",
    }
)  # fmt: skip
_TRANSIENT: Final = frozenset(
    {
        "RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException",
        "EC2ThrottledException", "BandwidthLimitExceeded", "SnapshotCreationPerVolumeRateExceeded",
        "InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable",
        "Unavailable", "RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete",
        "TooManyRequestsException",
    }
)  # fmt: skip
_CONFLICT: Final = frozenset(
    {
        "DependencyViolation", "IncorrectInstanceState", "IncorrectState", "VolumeInUse",
        "IdempotentParameterMismatch", "IdempotentInstanceTerminated",
        "InvalidGroup.InUse", "InvalidSnapshot.InUse", "ResourceAlreadyExists",
        "IncorrectModificationState", "InvalidStateTransition",
    }
)  # fmt: skip
_GONE: Final = re.compile(r".*\.(NotFound|NotFoundException|Unknown)|ParameterNotFound|.*NotFound")
_HINTS: Final = {
    "ExpiredToken": "The session token has run out: get a new one, and run the same command again.",
    "RequestExpired": "Compare this computer's clock with the real time, or get new credentials.",
    "UnauthorizedOperation": "docs/drivers/aws.md has the policy that this driver needs.",
    "OptInRequired": "The account must be activated, or subscribed to that image, first.",
    "InsufficientInstanceCapacity": "Try another --amazonec2-zone or --amazonec2-instance-type.",
    "VcpuLimitExceeded": "Ask Amazon for a higher limit, or try another --amazonec2-region.",
    "InstanceLimitExceeded": "Ask Amazon for a higher limit, or try another --amazonec2-region.",
    "SpotMaxPriceTooLow": "Give a higher --amazonec2-spot-price, or none: the on-demand price.",
    "OperationNotPermitted": "It may be protected: switch termination (or stop) protection off.",
}
_LONGEST: Final = 600  # characters: an encoded authorization message has thousands


def failure(call: str, code: str, text: str, status: int = 0) -> DriverError:
    """The error of `call` with Amazon's `code` and `text`; `status` is HTTP's, 0 when unknown."""
    kind = _kind(code, status)
    said = re.sub(r"\s*Encoded authorization failure message:.*", "", text, flags=re.DOTALL)
    message = ": ".join(part for part in (call, code, said[:_LONGEST].strip()) if part)
    return kind(message, hint=_HINTS.get(code, ""))


def _kind(code: str, status: int) -> type[DriverError]:
    exact: tuple[tuple[frozenset[str], type[DriverError]], ...] = (
        (_AUTH, AuthError),
        (_QUOTA, QuotaError),
        (_TRANSIENT, TransientError),
        (_CONFLICT, ConflictError),
    )
    for codes, kind in exact:
        if code in codes:
            return kind
    if code.endswith((".Duplicate", "AlreadyExists")):
        return ConflictError
    if code.endswith("LimitExceeded"):
        return QuotaError
    if _GONE.fullmatch(code):
        return GoneError
    if status == 429 or status >= 500:
        return TransientError
    return InvalidError if status or code else DriverError


def unsent(call: str, kind: str, text: str) -> DriverError:
    """The error of a call that botocore (exception class `kind`) could not make or finish."""
    if kind in {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return AuthError(
            f"{call}: {text}",
            hint="Give credentials as boto3 takes them: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, aws sso login, or the role of this computer.",
        )
    if kind in {
        "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError",
        "LoginRefreshRequired",
    }:  # fmt: skip
        return AuthError(f"{call}: {text}", hint="Log in again: aws sso login")
    if kind in {
        "ProfileNotFound", "NoRegionError", "InvalidRegionError", "ParamValidationError",
        "ConfigParseError", "InvalidConfigError", "UnknownServiceError", "DataNotFoundError",
    }:  # fmt: skip
        return InvalidError(f"{call}: {text[:_LONGEST]}")
    return TransientError(f"{call}: {text[:_LONGEST]}")
