"""HashiCorp Vault and OpenBao, on hvac."""
