"""The header Retry-After, in the forms that RFC 9110 has (section 10.2.3), and others."""

from __future__ import annotations

import pytest

from airflow_providers_secrets.stores import base


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1234567", base.LONGEST_WAIT),
        ("9" * 5000, base.LONGEST_WAIT),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", base.LONGEST_WAIT),
        *((header, None) for header in ("", "-1", "1.5", "\u0663", "soon", "06 Foo 1994 1:2:3", "Mon, 06 Nov 9e9 GMT")),
    ],
)
def test_seconds_to_wait(monkeypatch: pytest.MonkeyPatch, header: str, seconds: float | None) -> None:
    monkeypatch.setattr(base, "wall_clock", lambda: 784111777.0)  # Sun, 06 Nov 1994 08:49:37 GMT
    assert base.seconds_to_wait(header) == seconds
