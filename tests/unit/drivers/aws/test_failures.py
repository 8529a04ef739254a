"""Amazon's error codes with its own texts, and the kinds that they become."""

import pytest

from drivers.aws.failures import failure, unsent
from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    InvalidError,
    QuotaError,
    TransientError,
)

TABLE: list[tuple[str, str, int, type[DriverError]]] = [
    ("AuthFailure", "AWS was not able to validate the provided access credentials", 401, AuthError),
    ("UnauthorizedOperation", "You are not authorized to perform this operation.", 403, AuthError),
    ("ExpiredToken", "The security token included in the request is expired", 400, AuthError),
    ("RequestExpired", "Request has expired.", 400, AuthError),
    ("InvalidClientTokenId", "The security token included in the request is invalid.", 403, AuthError),
    ("SignatureDoesNotMatch", "The request signature we calculated does not match", 403, AuthError),
    ("OptInRequired", "In order to use this AWS Marketplace product you need to accept", 401, AuthError),
    ("AccessDeniedException", "User is not authorized to perform: ssm:GetParameters", 400, AuthError),
    ("VcpuLimitExceeded", ("You have requested more vCPU capacity than your current vCPU limit of 32 "
     "allows for the instance bucket"), 400, QuotaError),
    ("InstanceLimitExceeded", ("You have requested more instances (1) than your current instance "
     "limit of 20 allows"), 400, QuotaError),
    ("InsufficientInstanceCapacity", ("We currently do not have sufficient t3.micro capacity in the "
     "Availability Zone you requested (us-east-1e)."), 500, QuotaError),
    ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", 400, QuotaError),
    ("SpotMaxPriceTooLow", ("Your Spot request price of 0.001 is lower than the minimum required Spot "
     "request fulfillment price of 0.0031."), 400, QuotaError),
    ("SecurityGroupLimitExceeded", "The maximum number of security groups for VPC has been reached.",
     400, QuotaError),
    ("KeyPairLimitExceeded", "Maximum of 5000 keypairs reached.", 400, QuotaError),
    ("RulesPerSecurityGroupLimitExceeded", ("The maximum number of rules per security group has been "
     "reached."), 400, QuotaError),
    ("InvalidInstanceType", "Invalid value 't1.gone' for InstanceType.", 400, InvalidError),
    ("InvalidParameterValue", "Value (x) for parameter iamInstanceProfile.name is invalid.", 400,
     InvalidError),
    ("InvalidAMIID.Malformed", "Invalid id: \"ami-x\" (expecting \"ami-...\")", 400, InvalidError),
    ("Unsupported", "The requested configuration is currently not supported.", 400, InvalidError),
    ("OperationNotPermitted", ("The instance 'i-1' may not be terminated. Modify its "
     "'disableApiTermination' instance attribute and try again."), 400, InvalidError),
    ("InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist", 400, GoneError),
    ("InvalidGroup.NotFound", "The security group 'sg-1' does not exist", 400, GoneError),
    ("InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", 400, GoneError),
    ("InvalidKeyPair.NotFound", "The key pair 'x' does not exist", 400, GoneError),
    ("InvalidSnapshot.NotFound", "The snapshot 'snap-1' does not exist.", 400, GoneError),
    ("ParameterNotFound", "", 400, GoneError),
    ("InvalidKeyPair.Duplicate", "The keypair already exists", 400, ConflictError),
    ("InvalidGroup.Duplicate", "The security group 'x' already exists for VPC 'vpc-1'", 400,
     ConflictError),
    ("InvalidPermission.Duplicate", ("the specified rule \"peer: 1.2.3.4/32, TCP, from port: 22, to "
     "port: 22, ALLOW\" already exists"), 400, ConflictError),
    ("DependencyViolation", "resource sg-1 has a dependent object", 400, ConflictError),
    ("IncorrectInstanceState", "The instance 'i-1' is not in a state from which it can be started.",
     400, ConflictError),
    ("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent", 400,
     ConflictError),
    ("VolumeInUse", "Volume vol-1 is currently attached to i-1", 400, ConflictError),
    ("RequestLimitExceeded", "Request limit exceeded.", 503, TransientError),
    ("ThrottlingException", "Rate exceeded", 400, TransientError),
    ("InternalError", "An internal error has occurred", 500, TransientError),
    ("Unavailable", "The service is unavailable. Please try again shortly.", 503, TransientError),
    ("503", "", 503, TransientError),
    ("SomethingNew", "of tomorrow", 400, InvalidError),
    ("SomethingNew", "of tomorrow", 502, TransientError),
]  # fmt: skip


@pytest.mark.parametrize(("code", "said", "status", "kind"), TABLE)
def test_a_code_is_of_its_kind_and_keeps_its_text(
    code: str, said: str, status: int, kind: type[DriverError]
) -> None:
    err = failure("RunInstances", code, said, status)
    assert type(err) is kind
    assert err.message == ": ".join(part for part in ("RunInstances", code, said) if part)


def test_an_encoded_message_of_thousands_of_characters_is_left_out() -> None:
    said = "You are not authorized. Encoded authorization failure message: " + "x" * 5000
    assert failure("RunInstances", "UnauthorizedOperation", said, 403).message == (
        "RunInstances: UnauthorizedOperation: You are not authorized."
    )


@pytest.mark.parametrize(
    ("name", "said", "kind"),
    [
        ("NoCredentialsError", "Unable to locate credentials", AuthError),
        ("SSOTokenLoadError", "Error loading SSO Token: the SSO session has expired", AuthError),
        ("ProfileNotFound", "The config profile (x) could not be found", InvalidError),
        ("EndpointConnectionError", "Could not connect to the endpoint URL", TransientError),
        ("ReadTimeoutError", "Read timeout on endpoint URL", TransientError),
        ("ConnectionClosedError", "Connection was closed before we received a response",
         TransientError),
    ],
)  # fmt: skip
def test_what_never_was_answered(name: str, said: str, kind: type[DriverError]) -> None:
    err = unsent("RunInstances", name, said)
    assert type(err) is kind
    assert said in err.message
