"""Fixtures of tests/e2e, and what the channel's tests add: agents, streams driven message by message, workers."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "e2e"))

spec = importlib.util.spec_from_file_location("e2e_conftest", HERE.parent / "e2e/conftest.py")
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
v1, server, make_server, connect = e2e.v1, e2e.server, e2e.make_server, e2e.connect
admin, make_organization, organization = e2e.admin, e2e.make_organization, e2e.organization

import contextlib  # noqa: E402
import secrets  # noqa: E402

import pytest  # noqa: E402
from dialogue import Scene  # noqa: E402


@pytest.fixture
def make_scene(v1, server, connect):
    """make_scene() is a new organization on the shared server; make_scene(other_server) on another."""
    with contextlib.ExitStack() as stack:

        def make(on=None):
            organization = e2e.Organization(v1, on or server, connect, "org-" + secrets.token_hex(6))
            return stack.enter_context(contextlib.closing(Scene(v1, on or server, organization)))

        yield make


@pytest.fixture
def scene(make_scene):
    return make_scene()


@pytest.fixture
def agent(scene):
    return scene.agent()
