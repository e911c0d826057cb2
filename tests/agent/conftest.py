"""Fixtures: a scripted platform, agents, and the API's messages and services."""

import importlib
import sys
import types

import grpc_tools
import pytest
from agent import SCRIPTED, Agent
from grpc_tools import protoc
from platform_double import ROOT, Platform


@pytest.fixture(scope="session")
def v1(tmp_path_factory):
    """Package devopsgenie.v1: every message, enum and stub of proto/devopsgenie/v1, generated for this run.

    google/api comes from Google's own package: one process cannot hold two copies of a file.
    """
    folder = tmp_path_factory.mktemp("stubs")
    names = ["devopsgenie/options/options.proto"]
    names += [f"devopsgenie/v1/{name}_service.proto" for name in ("auth", "task", "task_channel")]
    well_known = next(iter(grpc_tools.__path__)) + "/_proto"
    arguments = [f"-I{ROOT}/proto", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *arguments, *names]) == 0
    sys.path.insert(0, str(folder))
    package = types.SimpleNamespace()
    for name in names:
        for suffix in ("_pb2", "_pb2_grpc"):
            module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + suffix)
            vars(package).update({name: value for name, value in vars(module).items() if name[0] != "_"})
    return package


@pytest.fixture
def platform(v1, tmp_path_factory):
    platform = Platform(v1, tmp_path_factory.mktemp("platform"))
    yield platform
    platform.stop()


@pytest.fixture
def make_agent(platform, tmp_path_factory):
    """make_agent(**options) is an agent that is not started yet; at the end of the test it ends in order."""
    made = []

    def make(program=SCRIPTED, environment=None, **options):
        made.append(Agent(tmp_path_factory.mktemp("agent"), platform, program, environment, **options))
        return made[-1]

    yield make
    platform.settle()
    for agent in made:
        agent.close()
    platform.check()


@pytest.fixture
def agent(make_agent):
    """A started agent."""
    return make_agent().start()


@pytest.fixture
def stream(platform, agent):
    """Its first stream, standing."""
    return platform.stands()
