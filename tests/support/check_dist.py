"""check_dist DIRECTORY: what sdist and wheel hold, that the sdist builds them anew byte by byte, and that docs/install.md's
commands work in it."""

from __future__ import annotations

import email
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

PACKAGE = "airflow_providers_secrets"
PAGE = ("static", "templates")
NEEDED_IN_SDIST = (
    "docs/conf.py",
    "docs/tables.py",
    "tests/conftest.py",
    "tox.ini",
    "provider.yaml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
)


def one(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def check_wheel(path: Path) -> None:
    with zipfile.ZipFile(path) as wheel:
        names = [PurePosixPath(name) for name in wheel.namelist()]
        info = next(name.parent for name in names if name.name == "METADATA")
        metadata = email.message_from_bytes(wheel.read(str(info / "METADATA")))
    modules = {name for name in names if name.parts[0] == PACKAGE and name.suffix == ".py"}
    data = {PurePosixPath(PACKAGE, name) for name in ("py.typed", "provider.yaml")}
    data |= {name for name in names if name.parent in (PurePosixPath(PACKAGE, "ui", part) for part in PAGE)}
    rest = [name for name in names if name not in modules | data and info not in name.parents]
    assert not rest, f"a running Airflow does not need {rest}"
    assert data < set(names)
    assert set(metadata["Requires-Python"].split(",")) == {">=3.10", "<3.15"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    print(f"{path.name}: {len(modules)} modules and {len(data)} files of data")


def check_sdist(path: Path, directory: Path) -> Path:
    with tarfile.open(path) as sdist:
        names = [PurePosixPath(name) for name in sdist.getnames()]
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4, and late releases of those before
            sdist.extraction_filter = tarfile.data_filter
        sdist.extractall(directory)
    root = directory / names[0].parts[0]
    missing = [name for name in NEEDED_IN_SDIST if not (root / name).is_file()]
    assert not missing, f"{path.name} lacks {missing}"
    return root


def check_reproducible(dist: Path, root: Path) -> None:
    """Whoever builds the unpacked sdist gets the very files that are released."""
    with tempfile.TemporaryDirectory() as again:
        command = [sys.executable, "-m", "build", "--outdir", again, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for pattern in ("*.whl", "*.tar.gz"):
            built = {hashlib.sha256(one(where, pattern).read_bytes()).hexdigest() for where in (dist, Path(again))}
            assert len(built) == 1, f"{pattern} differs when it is built again"
    print("built again from the sdist: the same bytes")


def install_as_documented(root: Path) -> None:
    (commands,) = re.findall(r"```sh\n(pip wheel .*?)```", (root / "docs/install.md").read_text("utf-8"), re.DOTALL)
    subprocess.run(["bash", "-ec", commands], cwd=root, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([Path(sys.executable).with_name("airflow-secrets"), "--version"], cwd=root.parent, check=True)


def main() -> None:
    dist = Path(sys.argv[1])
    check_wheel(one(dist, "*.whl"))
    with tempfile.TemporaryDirectory() as directory:
        root = check_sdist(one(dist, "*.tar.gz"), Path(directory))
        check_reproducible(dist, root)
        install_as_documented(root)


if __name__ == "__main__":
    main()
