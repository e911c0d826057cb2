"""Fixtures of tests/e2e, and what the channel's tests add: agents, streams driven message by message, workers."""

import contextlib
import importlib.util
import secrets
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "e2e"))

from dialogue import Scene  # noqa: E402
from harness import Replica, Workers  # noqa: E402

# Both files are named conftest.py, so this one's neighbour is loaded by its path.
spec = importlib.util.spec_from_file_location("e2e_conftest", HERE.parent / "e2e/conftest.py")
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
v1, server, make_server, connect = e2e.v1, e2e.server, e2e.make_server, e2e.connect


@pytest.fixture(scope="session")
def stubs(v1):
    """The folder of the generated Python, for processes of their own."""
    return Path(sys.modules["devopsgenie.v1.task_channel_service_pb2"].__file__).parents[2]


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


@pytest.fixture
def start_worker(stubs, tmp_path):
    """start_worker(agent, option…) starts the Python worker as a process."""
    with contextlib.closing(Workers(tmp_path, stubs)) as workers:
        yield workers


@pytest.fixture
def make_replica(tmp_path_factory):
    """make_replica(server) starts another genied beside it."""
    with contextlib.ExitStack() as stack:

        def make(first, *options):
            replica = Replica(first, tmp_path_factory.mktemp("replica"), *options)
            return stack.enter_context(contextlib.closing(replica.start()))

        yield make
