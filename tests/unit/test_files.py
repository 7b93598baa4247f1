"""Files that are read again only once they have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_providers_secrets.files import read_once, version


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("old")
    return path


def written_in_place(file: Path) -> None:
    file.write_text("new")


def written_with_the_old_time(file: Path) -> None:
    before = file.stat()
    file.write_text("new")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    before = file.stat()
    (other := file.with_name("other")).write_text("new")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def linked_to_another(file: Path) -> None:
    """As Kubernetes replaces what it mounts."""
    (other := file.with_name("other")).write_text("new")
    (link := file.with_name("link")).symlink_to(other)
    link.replace(file)


@pytest.mark.parametrize("change", [written_in_place, written_with_the_old_time, replaced, linked_to_another])
def test_a_changed_file_is_read_again(file: Path, change: Callable[[Path], None]) -> None:
    reads: list[str] = []

    def read(path: str) -> str:
        reads.append(path)
        return Path(path).read_text()

    content = read_once(read)
    assert [content(str(file)), content(str(file))] == ["old", "old"]
    change(file)
    assert [content(str(file)), content(str(file))] == ["new", "new"]
    assert reads == [str(file)] * 2


def test_what_cannot_be_read_is_tried_again(file: Path) -> None:
    answers = iter([ValueError("half a file"), "whole"])

    def read(_: str) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    content = read_once(read)
    with pytest.raises(ValueError, match="half a file"):
        content(str(file))
    assert content(str(file)) == "whole"


def test_a_file_that_disappears_is_not_remembered(file: Path) -> None:
    content = read_once(lambda path: Path(path).read_text())
    assert content(str(file)) == "old"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        content(str(file))


def test_a_change_while_it_is_read_is_noticed(file: Path) -> None:
    def read(path: str) -> str:
        text = Path(path).read_text()
        if text == "old":
            Path(path).write_text("much newer")
        return text

    content = read_once(read)
    assert [content(str(file)), content(str(file))] == ["old", "much newer"]


def test_a_path_that_is_none(file: Path) -> None:
    with pytest.raises(ValueError, match="null"):
        version(f"{file}\0")
