"""genie-agent's image, built by its Containerfile on a minimal Debian of this machine's: no registry of images is needed."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = 65532

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a Debian to build on is made by root only")


class Image:
    """`root` is as it was built; `run` runs a command in a copy, whose root is `used`."""

    def __init__(self, config, root, used, run):
        self.config, self.root, self.used, self.run = config, root, used, run

    @property
    def program(self):
        (program,) = self.config["Entrypoint"]
        return program

    def files(self):
        return [path for path in self.root.rglob("*") if not path.is_symlink()]


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    storage = tmp_path_factory.mktemp("storage")

    def buildah(*arguments, **options):
        command = ["buildah", "--root", storage / "root", "--runroot", storage / "run", "--storage-driver", "vfs", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **({"input": ""} | options))
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout.strip()

    base = buildah("from", "scratch")
    buildah("copy", base, os.environ["GENIE_DEBIAN"], "/")
    buildah("commit", "--rm", base, "localhost/debian")
    options = ["--isolation", "chroot", "--timestamp", "0", "--build-arg", "BASE=localhost/debian"]
    buildah("bud", *options, "--file", "tools/genie-agent/Containerfile", "--tag", "localhost/genie-agent", ".")
    config = json.loads(buildah("inspect", "--type", "image", "localhost/genie-agent"))["OCIv1"]["config"]
    fresh, used = (buildah("from", "localhost/genie-agent") for _ in range(2))

    def run(*command, **options):
        return buildah("run", "--isolation", "chroot", used, "--", *command, **options)

    yield Image(config, Path(buildah("mount", fresh)), Path(buildah("mount", used)), run)
    buildah("rm", "--all")


def test_runs_as_nobody_in_particular(image):
    assert image.config["User"] == f"{USER}:{USER}"


def test_starts_the_agent(image):
    assert image.config["Cmd"] == ["run"]
    assert Path(image.program).name in image.run(image.program, "--help")


def test_signs_commits(image, tmp_path):
    """With a key as Kubernetes mounts it: root's, for the group."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    key = image.used / "tmp/key"
    key.write_bytes((tmp_path / "key").read_bytes())
    os.chown(key, 0, USER)
    key.chmod(0o440)
    signature = image.run("ssh-keygen", "-Y", "sign", "-n", "git", "-f", "/tmp/key", input="tree 1234\n")
    assert "BEGIN SSH SIGNATURE" in signature


def test_has_no_port_and_no_secret(image):
    assert "ExposedPorts" not in image.config
    assert image.config["Env"] == ["PATH=/usr/bin", "HOME=/var/lib/genie-agent"]


def test_labels_tell_what_it_is(image):
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.config["Labels"].items()}
    assert labels["title"] == "genie-agent"
    assert labels["version"] == re.search(r"project\(devopsgenie VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert labels.keys() >= {"description", "revision"}


def test_has_no_program_but_those_two(image):
    """No shell above all. Libraries that are executable files are named as such."""
    runnable = [path for path in image.files() if path.is_file() and path.stat().st_mode & 0o111]
    programs = [path for path in runnable if ".so" not in path.name]
    assert set(programs) == {image.root / image.program[1:], image.root / "usr/bin/ssh-keygen"}


def test_only_state_and_tmp_can_be_written(image):
    assert sorted(path for path in image.files() if path.stat().st_uid == USER) == [
        image.root / "var/cache/genie-agent",
        image.root / "var/lib/genie-agent",
    ]
    assert [path for path in image.files() if path.stat().st_mode & stat.S_IWOTH] == [image.root / "tmp"]
    assert not [path for path in image.files() if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert image.config["Volumes"] == {"/var/cache/genie-agent": {}, "/var/lib/genie-agent": {}}


def test_knows_certificate_authorities(image):
    bundle = (image.root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.count("BEGIN CERTIFICATE") > 100
    for link in ("usr/lib/ssl/cert.pem", "usr/lib/ssl/certs"):
        assert (image.root / os.readlink(image.root / link)[1:]).exists()


def test_names_its_packages_and_their_licences(image):
    packages = {path.name for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {"libc6", "libgrpc29", "libssl3", "ca-certificates", "openssh-client"} <= packages
    for package in packages:
        assert (image.root / f"usr/share/doc/{package}/copyright").stat().st_size > 0


def test_has_no_time_of_its_own(image):
    assert {path.stat().st_mtime for path in image.files()} == {0}
