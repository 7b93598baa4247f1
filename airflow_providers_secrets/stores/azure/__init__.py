"""Azure Key Vault, on azure-keyvault-secrets and azure-identity."""
