"""genie-agent check, --help and --version: a line for each thing, what is wrong and what to do."""

import contextlib
import http.server
import socket
import socketserver
import subprocess
import threading
from email.utils import formatdate

import pytest
from agent import AGENT


@pytest.fixture
def checked(make_agent):
    """checked(**options) runs `check`; its status, and its lines by what they are about."""

    def checked(environment=None, **options):
        options = {"commands": {"true": {"argv": ["/bin/true"]}}, **options}
        agent = make_agent(AGENT, environment, **options)
        done = agent.check()
        assert "dga_" not in done.stdout + done.stderr
        lines = {}
        for line in done.stdout.splitlines():
            verdict, _, rest = line.partition(" ")
            what, _, text = rest.strip().partition(": ")
            lines[what] = (verdict, text)
        return done.returncode, lines, done.stderr

    return checked


def test_all_is_well(checked):
    status, lines, _ = checked()
    assert status == 0, lines
    assert {verdict for verdict, _ in lines.values()} == {"ok"}
    assert set(lines) == {"configuration", "state", "TLS", "key"}
    assert "organizations/acme/agents/one" in lines["key"][1] and "clock" in lines["TLS"][1]


def test_a_wrong_key(platform, checked):
    platform.keys.clear()
    status, lines, _ = checked()
    assert status == 1 and lines["key"][0] == "WRONG" and "rotate" in lines["key"][1]
    assert lines["TLS"][0] == "ok"


def test_no_key(checked, tmp_path):
    status, lines, _ = checked(**{"key-file": str(tmp_path / "none")})
    assert status == 1 and "No such file" in lines["key"][1]


def certificate(folder, *options):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *options]
    command += ["-subj", "/CN=other", "-keyout", folder / "key.pem", "-out", folder / "other.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return str(folder / "other.pem")


def test_a_wrong_authority(checked, tmp_path):
    status, lines, _ = checked(**{"ca-file": certificate(tmp_path)})
    assert status == 1 and lines["TLS"][0] == "WRONG"
    assert "unable to get local issuer certificate" in lines["TLS"][1] and "set ca-file" in lines["TLS"][1]


def test_a_wrong_name(platform, checked):
    status, lines, _ = checked(endpoint=f"127.0.0.2:{platform.port}")
    assert status == 1 and lines["TLS"][0] == "WRONG"


def test_nothing_listens(checked):
    status, lines, _ = checked(endpoint="127.0.0.1:1")
    assert status == 1 and "cannot be reached: Connection refused" in lines["TLS"][1]


@pytest.fixture
def proxy(platform):
    """An HTTP proxy, which leads to the platform whatever it is asked for."""

    def pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.server.asked.append(self.rfile.readline().decode().split()[:2])
            while self.rfile.readline().strip():
                pass
            self.wfile.write(f"HTTP/1.1 {self.server.status} .\r\n\r\n".encode())
            if self.server.status == 200:
                with socket.create_connection(("127.0.0.1", platform.port)) as other:
                    threading.Thread(target=pass_on, args=(other, self.connection), daemon=True).start()
                    pass_on(self.connection, other)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.asked, server.status = True, [], 200
    server.environment = {"https_proxy": f"http://user:sesame@127.0.0.1:{server.server_address[1]}"}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_by_a_proxy(platform, checked, proxy):
    """As the agent itself goes: https_proxy, but for no_proxy and this machine, which is not known by this name."""
    endpoint = f"LOCALHOST:{platform.port}"
    status, lines, _ = checked(proxy.environment, endpoint=endpoint)
    assert status == 0, lines
    assert proxy.asked == [["CONNECT", endpoint]] * 2  # TLS and key
    proxy.status = 403
    status, lines, errors = checked(proxy.environment, endpoint=endpoint)
    assert status == 1 and "by the proxy that the environment names: " in lines["TLS"][1] and "403" in lines["TLS"][1]
    assert "sesame" not in str(lines) + errors
    count = len(proxy.asked)
    assert checked({**proxy.environment, "no_proxy": "LOCALHOST"}, endpoint=endpoint)[0] == 0
    assert checked(proxy.environment)[0] == 0
    assert len(proxy.asked) == count


def test_a_port_without_tls(checked, git_host):
    status, lines, _ = checked(endpoint=git_host.endpoint)
    assert status == 1 and "no TLS" in lines["TLS"][1]


def test_a_command_that_is_not_there(checked):
    status, lines, _ = checked(commands={"x": {"argv": ["/no/such"]}})
    assert status == 1 and lines["configuration"][0] == "WRONG" and "/no/such" in lines["configuration"][1]


def test_nothing_to_do(checked):
    status, lines, _ = checked(commands={})
    assert status == 1 and "nothing to do" in lines["configuration"][1]


def test_while_the_agent_runs(checked, make_agent, platform):
    running = make_agent().start()
    platform.stands()
    status, lines, _ = checked(**{"state-directory": str(running.state)})
    assert status == 0, lines
    assert lines["state"] == ("ok", f"{running.state} is used by a running genie-agent (process {running.process.pid})")
    running.stop()
    status, lines, _ = checked(**{"state-directory": str(running.state)})
    assert (status, lines["state"]) == (0, ("ok", f"{running.state} can be written"))


def test_a_state_directory_that_cannot_be_made(checked, tmp_path):
    (tmp_path / "file").touch()
    status, lines, _ = checked(**{"state-directory": str(tmp_path / "file/state")})
    assert status == 1 and lines["state"][0] == "WRONG" and "Not a directory" in lines["state"][1]


def test_a_key_that_was_offered_in_the_channel(checked, make_agent, platform, v1):
    """It is the one that the agent uses."""
    running = make_agent().start()
    stream = platform.stands()
    platform.keys.add("dga_new")
    stream.say(key_offer=v1.KeyOffer(key="dga_new", overlap=platform.ms(60000)))
    platform.stands(2)
    state = {"state-directory": str(running.state)}
    status, lines, _ = checked(**state)
    known = "the platform knows the one that it has offered as organizations/acme/agents/one"
    assert (status, lines["key"]) == (0, ("ok", known))
    platform.keys.remove(platform.key)
    status, lines, _ = checked(**state)
    assert status == 0 and lines["key"][0] == "ok"
    assert lines["key"][1].startswith(known + "; it refuses the configured one")
    platform.keys.clear()
    status, lines, _ = checked(**state)
    assert status == 1 and lines["key"][0] == "WRONG" and "rotate" in lines["key"][1]
    platform.keys.add("dga_configured")  # the offer was void
    status, lines, _ = checked(**state)
    assert (status, lines["key"]) == (0, ("ok", "the platform knows it as organizations/acme/agents/one"))


@pytest.fixture
def git_host():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            good = self.headers["Authorization"] == "Bearer the-token" and self.path == "/api/v1/user"
            self.send_response_only(200 if good else 401)
            self.send_header("Date", formatdate(timeval=self.server.time, usegmt=True))
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.time, server.endpoint = None, f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def host(git_host, **changes):
    rule = {"host": git_host.endpoint, "forge": "gitea", "allow-http": True, "token-variable": "GIT_TOKEN", **changes}
    return {"git-hosts": [{name: value for name, value in rule.items() if value}]}


def test_a_git_host(checked, git_host):
    status, lines, _ = checked({"GIT_TOKEN": "the-token"}, **host(git_host))
    assert status == 0, lines
    assert lines[git_host.endpoint][0] == "ok" and lines["clock"][0] == "ok"


def test_a_git_host_refuses_the_token(checked, git_host):
    status, lines, errors = checked({"GIT_TOKEN": "another-token"}, **host(git_host))
    assert status == 1 and lines[git_host.endpoint] == ("WRONG", "it refuses the token: make a new one")
    assert "another-token" not in str(lines) + errors


def test_a_clock_that_is_wrong(checked, git_host):
    git_host.time = 1000000000
    status, lines, _ = checked({"GIT_TOKEN": "the-token"}, **host(git_host))
    assert status == 1 and lines["clock"][0] == "WRONG" and "set this machine's clock" in lines["clock"][1]


def test_a_token_that_is_missing(checked, git_host, tmp_path):
    status, lines, _ = checked(**host(git_host))
    assert status == 1 and "GIT_TOKEN" in lines[git_host.endpoint][1]
    missing = {"token-variable": None, "token-file": str(tmp_path / "none")}
    status, lines, _ = checked(**host(git_host, **missing))
    assert status == 1 and "No such file" in lines[git_host.endpoint][1]


def test_a_wrong_configuration(checked):
    status, lines, errors = checked(**{"no-such-option": 1})
    assert status == 1 and not lines
    assert errors.endswith("there is no option `no-such-option`; see genie-agent --help\n") and errors.count("\n") == 1


def test_help_and_version():
    def said(*arguments):
        return subprocess.run([AGENT, *arguments], text=True, capture_output=True)

    assert said("--version").stdout.startswith("genie-agent ")
    helped = said("--help")
    assert helped.returncode == 0 and "GENIE_AGENT_KEY" in helped.stdout and "--state-directory" in helped.stdout
    assert "--key " not in helped.stdout  # a key in an argument would be in every list of processes
    assert said().returncode == 2
    refused = said("run", "--key", "dga_x")
    assert refused.returncode == 2 and "dga_x" not in refused.stderr and "a secret does not belong" in refused.stderr
    assert said("run").stderr == "genie-agent: no endpoint: give --endpoint HOST:PORT or set GENIE_AGENT_ENDPOINT\n"
    assert said("run", "--endpoint", "a:1").stderr.startswith("genie-agent: no key")
