"""genie-agent's chart: what it makes of values, and what it refuses."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import CHART, ROOT, VALUES, Refused, Rendered, run_helm

SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
VERSIONS = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34"]
HOST = {"host": "github.com", "forge": "github", "token": {"existingSecret": "vcs"}}


@pytest.mark.parametrize("name", SETS)
def test_lint(name):
    run_helm("lint", "--strict", "--values", str(VALUES / f"{name}.yaml"), str(CHART))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_kubernetes_takes_it(render, name, version):
    for each in render(name).objects:
        assert kubernetes_validate.validate(each, version, strict=True) == version


def test_kubernetes_schemas_are_strict(render):
    """What the test above relies on."""
    deployment = render().one("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullSecret"] = "registry"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullSecret"):
        kubernetes_validate.validate(deployment, "1.34", strict=True)


def test_every_value_is_in_the_full_set():
    """So that every value is rendered, linted and checked by the tests above."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    full = yaml.safe_load((VALUES / "everything.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def missing(values, full, path=""):
        for key, value in values.items():
            if key not in full:
                yield path + key
            elif isinstance(value, dict) and key not in ("to", "resources"):
                yield from missing(value, full[key], f"{path}{key}.")

    # One of two that exclude each other.
    others = {"agentKey.file", "certificateAuthority.existingConfigMap"}
    assert set(missing(values, full)) == others
    assert schema["properties"].keys() - {"global"} == values.keys()


def test_every_value_is_explained():
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = []
    for before, line in zip(lines, lines[1:]):
        key = re.match(r"( *)([A-Za-z]+):", line)
        inside = re.match(r"  +(- |cpu|memory|ephemeral-storage|namespaceSelector|matchLabels|kubernetes\.io)", line)
        section = key and line.endswith(":") and not key[1]  # explained by what is in it
        within = key and re.match(r" *(requests|limits|to):$", line) and not line.startswith("    ")
        if key and not (before.lstrip().startswith("#") or inside or section or within):
            bare.append(line)
    assert bare == []


@pytest.mark.parametrize("name", SETS)
class TestSecurity:
    def test_pod(self, render, name):
        """The `restricted` Pod Security Standard, and more."""
        spec = render(name).pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        assert not [each for each in spec["volumes"] if "hostPath" in each]

    def test_container(self, render, name):
        assert render(name).container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        }

    def test_writes_to_its_own_folders_only(self, render, name):
        rendered = render(name)
        own = [each for each in rendered.container["volumeMounts"] if each["mountPath"] not in ("/opt/tools",)]
        assert {each["mountPath"] for each in own if not each.get("readOnly")} == {
            "/var/lib/genie-agent",
            "/var/cache/genie-agent",
            "/tmp",
        }

    def test_nothing_comes_in(self, render, name):
        rendered = render(name)
        assert not {each["kind"] for each in rendered.objects} & {"Service", "Ingress", "Secret", "Role", "ClusterRole"}
        assert "ports" not in rendered.container
        policy = rendered.one("NetworkPolicy")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy["ingress"] == []
        assert policy["podSelector"]["matchLabels"].items() <= rendered.pod["metadata"]["labels"].items()
        assert all(each["ports"] for each in policy["egress"])

    def test_no_token_of_the_cluster(self, render, name):
        assert render(name).one("ServiceAccount")["automountServiceAccountToken"] is False

    def test_secrets_are_read_by_the_agent_alone(self, render, name):
        volumes = [each for each in render(name).pod["spec"]["volumes"] if "secret" in each]
        assert volumes
        for each in volumes:
            assert each["secret"]["defaultMode"] == 0o440
            assert len(each["secret"]["items"]) == 1

    def test_secret_mounts_follow_rotation(self, render, name):
        assert not [each for each in render(name).container["volumeMounts"] if "subPath" in each]


def test_user(render):
    assert {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}.items() <= render().pod["spec"]["securityContext"].items()
    openshift = render("persistent").pod["spec"]["securityContext"]
    assert not openshift.keys() & {"runAsUser", "runAsGroup", "fsGroup"}
    assert {"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002}.items() <= render("everything").pod["spec"][
        "securityContext"
    ].items()


def test_one_agent_at_a_time(render):
    spec = render().one("Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


# What the configuration file says, and that the files it names are there.


def test_minimal_configuration(render):
    assert render().config == {
        "cache-bytes": 2 << 30,
        "cache-directory": "/var/cache/genie-agent",
        "command-slots": 4,
        "endpoint": "platform.example.com:443",
        "key-file": "/run/secrets/genie-agent/key/key",
        "log-level": "info",
        "pull-request-slots": 2,
        "shutdown-grace-ms": 20000,
        "state-directory": "/var/lib/genie-agent",
    }


def test_full_configuration(render):
    assert render("everything").config == {
        "author-email": "robot@example.com",
        "author-name": "Platform Robot",
        "ca-file": "/run/secrets/genie-agent/ca/root.pem",
        "cache-bytes": 5 << 30,
        "cache-directory": "/var/cache/genie-agent",
        "command-slots": 8,
        "commands": {
            "restart": {
                "description": "Restarts a deployment",
                "argv": ["/usr/bin/kubectl", "rollout", "restart"],
                "arguments": ["deployment/[a-z0-9-]+"],
                "more-arguments": "--timeout=[0-9]+s",
                "environment": ["KUBECONFIG"],
                "directory": "/tmp",
            }
        },
        "endpoint": "platform.example.com:8443",
        "git-hosts": [
            {
                "api-url": "https://api.github.com",
                "ca-file": "/run/secrets/genie-agent/git/github.com/ca/ca.pem",
                "host": "github.com",
                "forge": "github",
                "token-file": "/run/secrets/genie-agent/git/github.com/token/pat",
                "user": "robot",
            }
        ],
        "key-file": "/run/secrets/genie-agent/key/dga",
        "labels": {"cluster": "production", "region": "eu-west-1"},
        "log-level": "debug",
        "pull-request-limit-ms": 60000,
        "pull-request-slots": 3,
        "shutdown-grace-ms": 120000,
        "signing-key-file": "/run/secrets/genie-agent/signing/id_ed25519",
        "state-directory": "/var/lib/genie-agent",
    }


def test_several_hosts(render):
    hosts = render("hosts").config["git-hosts"]
    folder = "/run/secrets/genie-agent/git"
    assert hosts == [
        {"host": "github.com", "forge": "github", "token-file": f"{folder}/github.com/token/github"},
        {
            "host": "gitlab.example.com:8929",
            "forge": "gitlab",
            "api-url": "https://gitlab.example.com:9443/api/v4",
            "token-file": f"{folder}/gitlab.example.com_8929/token/gitlab",
            "ca-file": f"{folder}/gitlab.example.com_8929/ca/ca.crt",
        },
        {"host": "git.default.svc", "forge": "gitea", "allow-http": True, "token-variable": "GITEA_TOKEN"},
        {"host": "ghe.example.com", "forge": "github", "token-file": "/mnt/secrets-store/ghe"},
    ]


def files_of(config):
    """Every file that a configuration names."""
    for key, value in config.items():
        if key.endswith("-file"):
            yield value
        for each in value if isinstance(value, list) else []:
            if isinstance(each, dict):
                yield from files_of(each)


@pytest.mark.parametrize("name", SETS)
def test_files_are_where_the_configuration_says(render, name):
    rendered = render(name)
    paths = set()
    for mount in rendered.container["volumeMounts"]:
        volume = rendered.volume(mount["name"])
        for item in volume.get("secret", volume.get("configMap", {})).get("items", []):
            paths.add(f"{mount['mountPath']}/{item['path']}")
    assert set(files_of(rendered.config)) - {"/mnt/secrets-store/ghe"} == paths


def test_secrets_by_name(render):
    rendered = render("hosts")
    named = {each["name"]: each.get("secret", each.get("configMap")) for each in rendered.pod["spec"]["volumes"]}
    assert named["agent-key"]["secretName"] == "agent-key"
    assert named["platform-ca"]["name"] == "trust-bundle"
    assert named["git-token-0"]["secretName"] == named["git-token-1"]["secretName"] == "vcs"
    assert named["git-ca-1"]["secretName"] == "corporate-ca"
    assert not named.keys() & {"git-token-2", "git-token-3", "git-ca-0"}


def test_key_from_a_volume_of_ones_own(render):
    rendered = render(agentKey={"file": "/mnt/store/key"})
    assert rendered.config["key-file"] == "/mnt/store/key"
    assert "agent-key" not in rendered.text


@pytest.mark.parametrize("name", SETS)
def test_the_agent_takes_the_configuration(render, tmp_path, name):
    """It reads all of it before it looks at its arguments, of which one is too many: nothing is connected to."""
    (tmp_path / "genie-agent.json").write_text(json.dumps(render(name).config))
    agent = Path(os.environ["GENIE_BUILD_DIR"]) / "tools/genie-agent/genie-agent"
    environment = {"GENIE_AGENT_CONFIG": str(tmp_path / "genie-agent.json")}
    done = subprocess.run([agent, "run", "nothing"], env=environment, capture_output=True, text=True)
    assert done.stderr.startswith("genie-agent: there is no argument `nothing`")


def test_configuration_is_mounted(render):
    rendered = render()
    path = f"{rendered.mount('config')['mountPath']}/genie-agent.json"
    assert rendered.container["args"] == ["run"]
    assert rendered.container["env"] == [{"name": "GENIE_AGENT_CONFIG", "value": path}]
    assert rendered.volume("config")["configMap"]["name"] == rendered.one("ConfigMap")["metadata"]["name"]


def test_extra_configuration_wins(render):
    config = render(extraConfig={"log-level": "error", "x": {"z": 1}}).config
    assert config["log-level"] == "error" and config["x"] == {"z": 1}


def test_changed_configuration_is_another_pod(render):
    def checksum(**values):
        return render(**values).pod["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum(image={"tag": "2"})
    assert checksum() != checksum(logLevel="debug")


# The pod.


def test_state_without_a_claim(render):
    rendered = render()
    assert rendered.volume("state") == {"name": "state", "emptyDir": {"sizeLimit": "1Gi"}}
    assert not rendered.all("PersistentVolumeClaim")


def test_cache_is_limited_by_the_agent_before_the_pod_is_evicted(render):
    rendered = render("everything")
    assert rendered.volume("cache")["emptyDir"] == {"sizeLimit": "6Gi"}
    assert rendered.config["cache-bytes"] < 6 << 30
    limits, volumes = render().container["resources"]["limits"], render().pod["spec"]["volumes"]
    sizes = [int(each["emptyDir"]["sizeLimit"].removesuffix("Gi")) for each in volumes if "emptyDir" in each]
    assert limits["ephemeral-storage"] == "6Gi" and sum(sizes) < 6


def test_the_pod_outlives_the_agents_shutdown(render):
    """20 s for tasks by default, then at most 11 s (agent.c) to stop them, report and say goodbye."""
    assert render().pod["spec"]["terminationGracePeriodSeconds"] == 35
    assert render("everything").pod["spec"]["terminationGracePeriodSeconds"] == 135


def test_state_with_the_charts_claim(render):
    rendered = render("persistent")
    claim = rendered.one("PersistentVolumeClaim")
    assert rendered.volume("state")["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep", "backup": "daily"}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "5Gi"}},
    }


def test_state_with_a_claim_of_ones_own(render):
    rendered = render("everything")
    assert rendered.volume("state")["persistentVolumeClaim"]["claimName"] == "agent-state"
    assert not rendered.all("PersistentVolumeClaim")


def test_image(render):
    version = re.search(r"project\(devopsgenie VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert render().container["image"] == f"genie-agent:{version}"
    assert render(image={"repository": "r.example.com/a", "tag": "t"}).container["image"] == "r.example.com/a:t"
    full = render("everything")
    assert full.container["image"] == "registry.example.com/genie-agent@sha256:" + 4 * "0123456789abcdef"
    assert full.container["imagePullPolicy"] == "Always"
    assert full.pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_what_goes_through_as_it_is(render):
    rendered, values = render("everything"), yaml.safe_load((VALUES / "everything.yaml").read_text())
    spec = rendered.pod["spec"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[key] == values[key]
    assert rendered.container["resources"]["limits"]["memory"] == "1Gi"
    assert rendered.container["envFrom"] == values["extraEnvFrom"]
    assert values["extraEnv"][0] in rendered.container["env"]
    assert values["extraVolumes"][0] in spec["volumes"]
    assert values["extraVolumeMounts"][0] in rendered.container["volumeMounts"]
    assert values["podAnnotations"].items() <= rendered.pod["metadata"]["annotations"].items()
    assert values["podLabels"].items() <= rendered.pod["metadata"]["labels"].items()


def test_service_account(render):
    full = render("everything")
    account = full.one("ServiceAccount")["metadata"]
    assert full.pod["spec"]["serviceAccountName"] == account["name"] == "robot"
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/agent"}
    theirs = render(serviceAccount={"create": False, "name": "theirs"})
    assert theirs.pod["spec"]["serviceAccountName"] == "theirs"
    assert not theirs.all("ServiceAccount")


def test_names(render):
    assert {each["metadata"]["name"] for each in render().objects} == {"prod-genie-agent"}
    assert render("everything").one("Deployment")["metadata"]["name"] == "the-agent"
    assert {each["metadata"]["namespace"] for each in render("everything").objects} == {"genie"}


def test_proxy(render):
    env = {each["name"]: each["value"] for each in render("everything").container["env"]}
    assert env["HTTPS_PROXY"] == env["https_proxy"] == "http://proxy.example.com:3128"
    assert env["NO_PROXY"] == env["no_proxy"] == ".svc,git.example.com"
    assert [each["name"] for each in render().container["env"]] == ["GENIE_AGENT_CONFIG"]


def egress(rendered):
    dns, rest, *more = rendered.one("NetworkPolicy")["spec"]["egress"]
    return dns, rest, more


def test_egress(render):
    dns, rest, more = egress(render(gitHosts=[HOST]))
    assert {(each["protocol"], each["port"]) for each in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert dns["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    assert rest == {"ports": [{"protocol": "TCP", "port": 443}]}
    assert more == []


def test_egress_to_every_port_that_is_used(render):
    _, rest, _ = egress(render("hosts"))
    assert sorted(each["port"] for each in rest["ports"]) == [80, 443, 8443, 8929, 9443]


def test_egress_as_told(render):
    dns, rest, more = egress(render("everything"))
    assert dns["to"] == [{"ipBlock": {"cidr": "169.254.20.10/32"}}] and dns["ports"][0]["port"] == 5353
    assert rest["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert sorted(each["port"] for each in rest["ports"]) == [443, 3128, 8443]
    assert more == [{"ports": [{"protocol": "TCP", "port": 6443}]}]
    assert not render(networkPolicy={"enabled": False}).all("NetworkPolicy")


# Refusals.


@pytest.mark.parametrize(
    "values, says",
    [
        ({"endpoint": None}, "endpoint is missing"),
        ({"agentKey": None}, "agentKey is missing: agentKey.existingSecret names"),
        ({"gitHosts": [HOST, HOST]}, "gitHosts has github.com twice"),
    ],
)
def test_missing_and_doubled_values_are_named(render, values, says):
    with pytest.raises(Refused, match=says):
        render(**values)


def host(**values):
    return {"gitHosts": [HOST | values]}


@pytest.mark.parametrize(
    "values, at",
    [
        ({"endpiont": 2}, "endpiont"),
        ({"slots": {"commands": "2"}}, "slots"),
        ({"slots": {"commands": 101}}, "slots"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"endpoint": "https://platform.example.com"}, "endpoint"),
        ({"endpoint": "platform.example.com"}, "endpoint"),
        ({"agentKey": {"secret": "dga"}}, "agentKey"),
        ({"agentKey": {"existingSecret": "Not_A_Name"}}, "agentKey"),
        ({"agentKey": {"existingSecret": "a", "file": "/b"}}, "agentKey"),
        ({"certificateAuthority": {"existingSecret": "a", "existingConfigMap": "b"}}, "certificateAuthority"),
        ({"agentLabels": {"cluster": 1}}, "agentLabels"),
        (host(token="hunter2"), "token"),
        (host(token={}), "token"),
        (host(token={"value": "hunter2"}), "token"),
        (host(token={"existingSecret": "a", "variable": "B"}), "token"),
        (host(token={"file": "relative"}), "token"),
        (host(forge="bitbucket"), "forge"),
        (host(host="https://github.com"), "host"),
        (host(apiUrl="https://user:hunter2@api.example.com"), "apiUrl"),
        ({"gitHosts": [{"host": "github.com", "forge": "github"}]}, "token"),
        ({"commands": {"x": {"argv": ["sh", "-c", "x"]}}}, "argv"),
        ({"commands": {"x": {}}}, "argv"),
        ({"commands": {"x": {"argv": ["/x"], "shell": True}}}, "shell"),
        ({"proxy": {"https": "http://user:hunter2@proxy.example.com:3128"}}, "proxy"),
        ({"extraEnv": [{"name": "GITHUB_TOKEN", "value": "hunter2"}]}, "extraEnv"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
        ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"securityContext": {"privileged": True}}, "securityContext"),
        ({"persistence": {"size": "big"}}, "size"),
        ({"replicaCount": 2}, "replicaCount"),
        ({"shutdownGraceSeconds": -1}, "shutdownGraceSeconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown_and_mistyped_values_are_refused(render, values, at):
    with pytest.raises(Refused, match="(?s)don't meet the specifications of the schema.*" + at):
        render(**values)


SECRETS = {
    "an agent's key": "dga_0123456789ab_x",
    "GitHub's": "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "GitHub's fine-grained": "github_pat_0123456789",
    "GitLab's": "glpat-0123456789",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA",
    "a password in a URL": "https://user:hunter2@git.example.com",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_in_the_values_is_refused_and_not_repeated(render, secret):
    for values in ({"extraConfig": {"token": secret}}, {"extraEnv": [{"name": "X", "value": secret}]}):
        with pytest.raises(Refused, match="a key, token or password stands in the values") as refusal:
            render(**values)
        assert secret not in str(refusal.value)


def test_no_value_is_a_secret():
    """In values.yaml, whatever sounds like a secret is empty or the name of something."""
    names = {"existingSecret": "", "key": r"key|ca\.crt|signing-key"}

    def sounding(values):
        for key, value in values.items() if isinstance(values, dict) else []:
            if isinstance(value, dict):
                yield from sounding(value)
            elif re.search("(?i)secret|token|password|credential|key", key) and value not in (None, []):
                yield key, value

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    found = list(sounding(values))
    assert found
    for key, value in found:
        assert re.fullmatch(names[key], value), key
    for file in [*CHART.rglob("*"), *VALUES.iterdir()]:
        if file.is_file():
            assert not re.search(r"(dga|dgk|ghp|glpat|github_pat)[_-][A-Za-z0-9]{8}", file.read_text()), file


def test_notes_name_what_must_exist(tmp_path):
    """`helm template` shows no notes, so a copy of the chart has them as a text of some object."""
    shutil.copytree(CHART, tmp_path / "chart")
    notes = (tmp_path / "chart/templates/NOTES.txt").read_text()
    (tmp_path / "chart/templates/notes.yaml").write_text("kind: Notes\nnotes: |\n" + textwrap.indent(notes, "  "))
    values = ["--namespace", "genie", "--values", str(VALUES / "hosts.yaml")]
    notes = Rendered(run_helm("template", "prod", str(tmp_path / "chart"), *values)).one("Notes")["notes"]
    for line in (
        "Secret agent-key with the entry key",
        "ConfigMap trust-bundle with the entry bundle.pem",
        "Secret vcs with the entry github",
        "Secret vcs with the entry gitlab",
    ):
        assert line in notes
    assert "do not rotate its key in the channel" in notes


def test_readme_table_has_every_value():
    """The table of the chart's README names the top-level values, no more and no less."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = (CHART / "README.md").read_text().partition("## Values")[2]
    named = [re.findall(r"`([A-Za-z]+)`", row.split("|")[1]) for row in table.splitlines() if row.startswith("| `")]
    assert sum(named, []) == list(values)


def test_readme_installs(tmp_path):
    """The values file that the README shows is one."""
    (values,) = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.S)
    (tmp_path / "agent.yaml").write_text(values)
    rendered = Rendered(run_helm("template", "agent", str(CHART), "--values", str(tmp_path / "agent.yaml")))
    assert rendered.config["git-hosts"][0]["host"] == "github.com"
