"""A certificate authority of the tests, and the files of what it issues."""

from __future__ import annotations

from pathlib import Path

import trustme


class Authority(trustme.CA):
    """An authority that writes into *directory*.

    :ivar bundle: the file of its own certificate.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.bundle = directory / "authority.pem"
        self.cert_pem.write_to_path(str(self.bundle))

    def issue(self, name: str, *others: str) -> tuple[str, str]:
        """Write a certificate for these names, of a server or client, and its key; return their paths."""
        issued = self.issue_cert(name, *others, common_name=name)
        paths = str(self._directory / f"{name}.pem"), str(self._directory / f"{name}-key.pem")
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        return paths
