"""docker-machine's options (reference 2.4, rancher's newer ones of 2.10) with today's defaults."""

from __future__ import annotations

from typing import Final

from drivers.options import Kind, OptionSpec, Value


def _row(
    name: str,
    text: str,
    env: str = "",
    default: Value = "",
    kind: Kind = Kind.TEXT,
    *,
    secret: bool = False,
) -> OptionSpec:
    variables = tuple(env.split())
    return OptionSpec(name, (f"--amazonec2-{name}",), text, kind, default, variables, secret)


OPTIONS: Final = (
    _row("access-key", "Access key; without one boto3 looks for credentials (AWS_PROFILE, SSO, "
         "roles)", "AWS_ACCESS_KEY_ID", secret=True),
    _row("secret-key", "Secret key", "AWS_SECRET_ACCESS_KEY", secret=True),
    _row("session-token", "Session token of temporary credentials", "AWS_SESSION_TOKEN",
         secret=True),
    _row("region", "Region; the profile's when it has one, else us-east-1",
         "AWS_DEFAULT_REGION AWS_REGION"),
    _row("zone", "Availability zone, as a or us-east-1a; any that has the instance type",
         "AWS_ZONE"),
    _row("instance-type", "Instance type; t3.micro, or t4g.micro for an ARM image",
         "AWS_INSTANCE_TYPE"),
    _row("ami", "Image by id, or resolve:ssm:PARAMETER", "AWS_AMI"),
    _row("image", "Which image when no --amazonec2-ami is given: ubuntu or debian for the newest, "
         "or as ubuntu-24.04 or debian-13", default="ubuntu"),
    _row("image-owner", "Take the newest image of this account (id, amazon, self) ..."),
    _row("image-name", "... whose name is like this (* and ? stand for anything)"),
    _row("root-size", "Size of the root volume in GB", "AWS_ROOT_SIZE", 16, Kind.INTEGER),
    _row("volume-type", "Type of the root volume", "AWS_VOLUME_TYPE", "gp3"),
    _row("device-name", "Device name of the root volume; the image's own", "AWS_DEVICE_NAME"),
    _row("encrypt-ebs-volume", "Encrypt the root volume", "AWS_ENCRYPT_EBS_VOLUME",
         default=False, kind=Kind.FLAG),
    _row("kms-key", "Key to encrypt the root volume with, instead of the account's",
         "AWS_KMS_KEY"),
    _row("use-ebs-optimized-instance", "EBS-optimized, for old instance types",
         default=False, kind=Kind.FLAG),
    _row("vpc-id", "VPC; the default one", "AWS_VPC_ID"),
    _row("subnet-id", "Subnet; the VPC's in the zone", "AWS_SUBNET_ID"),
    _row("security-group", "Existing security groups, by id or name, whose rules are left alone; "
         "without any the machine gets a group of its own", "AWS_SECURITY_GROUP", (), Kind.LIST),
    _row("security-group-readonly", "Given groups are never changed anyway",
         "AWS_SECURITY_GROUP_READONLY", default=False, kind=Kind.FLAG),
    _row("open-to", "Networks (CIDR) that may use SSH and the engine; only this computer's public "
         "address, or the VPC for machines with a private address", "AWS_OPEN_TO", (), Kind.LIST),
    _row("open-port", "More ports, as 80 or 53/udp, to open to everybody", default=(),
         kind=Kind.LIST),
    _row("private-address-only", "No public address at all", default=False, kind=Kind.FLAG),
    _row("use-private-address", "Reach the machine by its private address", default=False,
         kind=Kind.FLAG),
    _row("ipv6-address-count", "IPv6 addresses to give to the machine", "AWS_IPV6_ADDRESS_COUNT",
         0, Kind.INTEGER),
    _row("enable-primary-ipv6", "Keep the first IPv6 address for the machine's life",
         "AWS_ENABLE_PRIMARY_IPV6", default=False, kind=Kind.FLAG),
    _row("ipv6-address-only", "Reach the machine by IPv6 only", "AWS_IPV6_ADDRESS_ONLY",
         default=False, kind=Kind.FLAG),
    _row("keypair-name", "Existing key pair to let in as well; none is imported then",
         "AWS_KEYPAIR_NAME"),
    _row("ssh-keypath", "Private key whose public half (PATH.pub) is let in as well",
         "AWS_SSH_KEYPATH", kind=Kind.PATH),
    _row("ssh-user", "SSH user; the image's: ubuntu, or admin on Debian", "AWS_SSH_USER"),
    _row("ssh-port", "SSH port", "AWS_SSH_PORT", 22, Kind.PORT),
    _row("iam-instance-profile", "Instance profile, by name or ARN", "AWS_INSTANCE_PROFILE"),
    _row("tags", "Tags for everything, as key1,value1,key2,value2", "AWS_TAGS"),
    _row("userdata", "File with user data of your own, merged into the machine's", "AWS_USERDATA",
         kind=Kind.PATH),
    _row("monitoring", "Detailed monitoring", default=False, kind=Kind.FLAG),
    _row("http-endpoint", "Instance metadata service: enabled or disabled", "AWS_HTTP_ENDPOINT",
         "enabled"),
    _row("http-tokens", "Tokens of the metadata service: required or optional",
         "AWS_HTTP_TOKENS", "required"),
    _row("http-protocol-ipv6", "Metadata service over IPv6: enabled or disabled",
         "AWS_HTTP_PROTOCOL_IPV6", "disabled"),
    _row("request-spot-instance", "A spot instance", default=False, kind=Kind.FLAG),
    _row("spot-price", "Most that it may cost an hour, in dollars; the on-demand price"),
    _row("spot-interruption", "When Amazon takes it back: terminate, stop or hibernate",
         default="terminate"),
    _row("block-duration-minutes", "No longer: Amazon withdrew it", default=0, kind=Kind.INTEGER),
    _row("endpoint", "Another server of the API (EC2 and SSM)", "AWS_ENDPOINT"),
    _row("insecure-transport", "Let that server be asked without TLS", "AWS_INSECURE_TRANSPORT",
         default=False, kind=Kind.FLAG),
    _row("retries", "How often a failed request is made again", default=5, kind=Kind.INTEGER),
)  # fmt: skip
