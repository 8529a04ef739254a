"""Amazon EC2. The SDK (boto3) is imported when a verb is called, not before."""

from drivers.aws.driver import AwsDriver

DRIVER = AwsDriver()

__all__ = ["DRIVER", "AwsDriver"]
