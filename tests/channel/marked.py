"""Runs a shell script as a task's command, and tells the history what no agent can: that it ran, and what it wrote.

    python marked.py HISTORY SCRIPT JOB

Each run has a name of its own, which is the first line of both its outputs; so the log that the platform has of an
attempt tells which run it was.
"""

import base64
import json
import os
import selectors
import subprocess
import sys
import time

history, script, job = sys.argv[1:]
run = os.urandom(8).hex()
file = os.open(history, os.O_WRONLY | os.O_APPEND)


def record(what, **fields):
    event = {"t": time.monotonic(), "what": what, "who": f"run {run}", "run": run, "job": job, **fields}
    os.write(file, json.dumps(event).encode() + b"\n")


def write(number, data):
    """To the history first: what the agent has is written down."""
    record("wrote", stream="STDOUT" if number == 1 else "STDERR", data=base64.b64encode(data).decode())
    while data:
        data = data[os.write(number, data) :]


record("began")
for number in (1, 2):
    write(number, f"run {run}\n".encode())
child = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
with selectors.DefaultSelector() as selector:
    selector.register(child.stdout, selectors.EVENT_READ, 1)
    selector.register(child.stderr, selectors.EVENT_READ, 2)
    while selector.get_map():
        for key, _ in selector.select():
            if data := os.read(key.fd, 1 << 16):
                write(key.data, data)
            else:
                selector.unregister(key.fileobj)
status = child.wait()
record("stopped")
sys.exit(status)
