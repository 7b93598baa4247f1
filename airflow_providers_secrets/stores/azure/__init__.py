"""Azure Key Vault, by azure-keyvault-secrets and azure-identity."""
