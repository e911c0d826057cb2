"""Fixtures: helm, on the chart of genie-agent."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "tools/genie-agent/chart"
VALUES = Path(__file__).parent / "values"


class Refused(Exception):
    """helm's own words, for why it made nothing."""


class Rendered:
    """What `helm template` made."""

    def __init__(self, text):
        self.text = text
        self.objects = [each for each in yaml.safe_load_all(text) if each]

    def all(self, kind):
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind):
        (one,) = self.all(kind)
        return one

    @property
    def pod(self):
        return self.one("Deployment")["spec"]["template"]

    @property
    def container(self):
        (container,) = self.pod["spec"]["containers"]
        return container

    @property
    def config(self):
        """genie-agent's configuration file."""
        return json.loads(self.one("ConfigMap")["data"]["genie-agent.json"])

    def volume(self, name):
        (volume,) = (each for each in self.pod["spec"]["volumes"] if each["name"] == name)
        return volume

    def mount(self, name):
        (mount,) = (each for each in self.container["volumeMounts"] if each["name"] == name)
        return mount


def run_helm(*arguments):
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


@pytest.fixture
def render(tmp_path):
    """render("hosts", concurrency=2): what the release `prod` in the namespace `genie` is, with a set of values and others over
    it, each whole; one that is None is left out."""

    def render(name="minimal", **over):
        values = yaml.safe_load((VALUES / f"{name}.yaml").read_text()) | over
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        options = ["--namespace", "genie", "--values", str(file)]
        return Rendered(run_helm("template", "prod", str(CHART), *options))

    return render
