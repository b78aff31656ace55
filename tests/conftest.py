"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with the released tables; tests that need it skip without it."""
    value = os.environ.get("TUMORBENCH_DATA")
    if not value:
        pytest.skip("needs the released tables: set TUMORBENCH_DATA to their folder")
    return Path(value).resolve()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep tests away from the cache and the settings of the person who runs them."""
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("TUMORBENCH_EDITION", raising=False)
