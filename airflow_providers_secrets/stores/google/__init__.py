"""Google Secret Manager, on google-cloud-secret-manager and google-auth."""
