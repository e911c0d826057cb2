"""Starts a genied with an organization in it, and runs Node's tests against it: run.py REPORT [ARGUMENT…]"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from genied import ROOT, Genied  # noqa: E402


def main(report, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        server = Genied(folder)
        try:
            server.start()
            made = server.genie("demo", "--key", server.signing_key)
            assert made.returncode == 0, made.stderr
            environment = {
                **os.environ,
                **dict(line.split("=", 1) for line in made.stdout.splitlines()),
                "GENIE_ENDPOINT": server.endpoint,
                "GENIE_CA_FILE": str(server.ca_file),
                "GENIE_TOKEN": server.token("node", "--service-role", "platform-admin"),
            }
            reporters = ["spec", "stdout"], ["junit", report]
            command = ["node", "--test"]
            for reporter, to in reporters:
                command += [f"--test-reporter={reporter}", f"--test-reporter-destination={to}"]
            tests = sorted(map(str, HERE.glob("*.test.js")))
            return subprocess.run([*command, *arguments, *tests], env=environment, cwd=ROOT).returncode
        finally:
            server.close()


sys.exit(main(*sys.argv[1:]))
