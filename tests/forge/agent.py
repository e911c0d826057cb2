"""Runs PULL_REQUEST tasks as an agent does, one process each, with the program `pull-request` (driver.c)."""

import hashlib
import json
import os
import secrets
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("GENIE_BUILD_DIR") or ROOT / "build/debug") / "tests/forge/pull-request"
DEADLINE_SECONDS = 120


def branch_of(organization, key):
    """For keys that may stand in a branch's name."""
    return f"devopsgenie/{key}-{hashlib.sha256(f'{organization}/{key}'.encode()).hexdigest()[:16]}"


class Task:
    """A task: what is noted of it outlives its attempts."""

    def __init__(self, agent, payload, key=None, organization="acme"):
        self.agent, self.payload, self.organization = agent, payload, organization
        self.key = key or "k" + secrets.token_hex(6)
        self.branch = branch_of(organization, self.key)
        self.folder = agent.folder / f"task-{secrets.token_hex(4)}"
        self.folder.mkdir()
        self.log_file, self.effects_file = self.folder / "log", self.folder / "effects"
        self.attempt = 0
        self.said = []

    @property
    def log(self):
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def effects(self):
        return json.loads(self.effects_file.read_text()) if self.effects_file.exists() else {}

    def start(self, settings=None, env=None, **job):
        """Begins an attempt; a Popen."""
        self.attempt += 1
        job |= {
            "task": f"organizations/{self.organization}/tasks/1", "idempotency_key": self.key, "attempt": self.attempt,
            "log": str(self.log_file), "effects": str(self.effects_file),
        }
        said = {"settings": {**self.agent.settings, **(settings or {})}, "job": job, "payload": self.payload}
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | (env or {})
        process = subprocess.Popen(
            [str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        process.stdin.write(json.dumps(said))
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process):
        """The result of an attempt; None where its process was killed."""
        try:
            out, err = process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        self.said += [out, err]
        if process.returncode == -9:
            return None
        assert process.returncode == 0, f"status {process.returncode}\n{out}{err}\n{self.log}"
        return json.loads(out)

    def run(self, settings=None, env=None, **job):
        return self.finish(self.start(settings, env, **job))

    def succeed(self, *arguments, **job):
        result = self.run(*arguments, **job)
        assert result["status"] == "SUCCEEDED", (result, self.log)
        return result["outputs"]

    def fail(self, reason, *arguments, permanent=True, **job):
        result = self.run(*arguments, **job)
        assert (result["status"], result.get("reason"), result["permanent"]) == ("FAILED", reason, permanent), (result, self.log)
        return result


class Agent:
    def __init__(self, folder, host, token, forge="GITEA", ca_file=None, **more):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.token_file = folder / "token"
        self.cache = folder / "cache"
        self.rotate(token)
        self.settings = {
            "hosts": [{"name": host, "forge": forge, "token_file": str(self.token_file), **more}],
            "cache_folder": str(self.cache), "cache_limit_bytes": 200 << 20,
            "author_name": "DevOps Genie", "author_email": "genie@forge.example",
            "connect_limit_ms": 10000, "stall_limit_ms": 20000, "request_limit_ms": 20000,
        }
        if ca_file:
            self.settings["hosts"][0]["ca_file"] = str(ca_file)

    def rotate(self, token):
        self.token_file.write_text(token + "\n")

    def task(self, url, key=None, organization="acme", **payload):
        payload.setdefault("title", "A better file")
        if not {"files", "unified_diff", "helm_values"} & set(payload):
            payload["files"] = [{"path": "new.txt", "content": "new\n"}]
        return Task(self, {"repository_url": url, **payload}, key, organization)
