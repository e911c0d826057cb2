"""An agent of this build, as a process."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from platform_double import DEADLINE_SECONDS, ROOT

BUILD = Path(os.environ.get("GENIE_BUILD_DIR") or ROOT / "build/debug")
AGENT = BUILD / "tools/genie-agent/genie-agent"
SCRIPTED = BUILD / "tests/agent/genie-agent-scripted"


class Agent:
    """`folder` holds its configuration, key, state and log. Scripted, its PULL_REQUEST does what the task's body says."""

    def __init__(self, folder, platform, program=SCRIPTED, environment=None, **options):
        self.folder, self.platform, self.program = Path(folder), platform, program
        self.state = self.folder / "state"
        self.log = self.folder / "agent.log"
        self.key_file = self.folder / "key"
        self.key_file.write_text(platform.key + "\n")
        self.options = {
            "endpoint": platform.endpoint, "ca-file": str(platform.folder / "ca.pem"), "key-file": str(self.key_file),
            "state-directory": str(self.state), "log-level": "debug", "commands": {}, **options,
        }  # fmt: skip
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def command(self, verb="run", *arguments):
        config = self.folder / "config.json"
        config.write_text(json.dumps(self.options))
        return [str(self.program), verb, "--config", str(config), *map(str, arguments)]

    def start(self, *arguments):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command("run", *arguments), env=self.environment, stdout=log, stderr=log, cwd=self.folder
            )
        return self

    def check(self, *arguments):
        return subprocess.run(
            self.command("check", *arguments), env=self.environment, text=True, capture_output=True, timeout=120
        )

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """What it had said until then has been heard when this returns. It is the platform's only agent."""
        self.process.kill()
        status = self.process.wait()
        assert status in (0, -signal.SIGKILL), f"the agent had ended with status {status}:\n{self.said()[-6000:]}"
        self.platform.wait(lambda: all(stream.agent_closed for stream in self.platform.streams), "the streams' ends")

    def wait(self):
        return self.process.wait(DEADLINE_SECONDS)

    def stop(self):
        """Ends it in order; a sanitizer's report or a crash fails the test."""
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert status == 0, f"the agent ended with status {status}:\n{self.said()[-6000:]}"

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self):
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            try:
                self.stop()
            finally:
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait()
        assert "Sanitizer" not in self.said(), self.said()[-6000:]


def eventually(condition, what="the condition"):
    """For what no history tells, such as a file."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)
    return found
