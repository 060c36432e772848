"""Shared fixtures: real samples where they are at hand, a quiet and repeatable hypothesis."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if os.environ.get("GEOEMB_WITHOUT_NUMBA"):
    sys.modules["numba"] = None  # type: ignore[assignment]  # every import of it fails, as where there is none

from geoemb_xr.core import compiling, model, notes

compiling.SPARED = 0  # tests are small, and are of the compiled loops

settings.register_profile(
    "default", deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=300)


def pytest_configure(config: pytest.Config) -> None:
    """Few examples by default, many in the complete profile (``-m ""``), or what HYPOTHESIS_PROFILE says."""
    profile = "default" if config.option.markexpr else "thorough"
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", profile))


@pytest.fixture(autouse=True)
def _same_registry():
    """What a test registers is forgotten after it."""
    model.registered()  # the package's own are there before
    before = dict(model._registry)
    yield
    model._registry.clear()
    model._registry.update(before)


@pytest.fixture(autouse=True)
def _notes_are_said():
    """Whether notes are said, and where, is after a test as before it."""
    level, handlers = notes.logger.level, list(notes.logger.handlers)
    yield
    if notes.logger.level != level:  # to set it goes through every logger of the process
        notes.logger.setLevel(level)
    notes.logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples that GEOEMB_REAL_DATA names."""
    folder = os.environ.get("GEOEMB_REAL_DATA")
    if not folder:
        pytest.skip("GEOEMB_REAL_DATA is not set: no real samples at hand")
    path = Path(folder)
    assert path.is_dir(), f"GEOEMB_REAL_DATA={folder} is not a folder"
    return path


@pytest.fixture(scope="session")
def catalog_products():
    """The products that the package itself brings: tests register others of their own."""
    return model.published()


@pytest.fixture
def no_location_encoder(monkeypatch):
    """None is at hand: as a control, with its 512 numbers a place, one takes seconds in each comparison."""
    from geoemb_xr.comparing import support

    monkeypatch.setattr(support, "registered", lambda: [])
