"""AWS SSM Parameter Store and AWS Secrets Manager, on boto3."""
