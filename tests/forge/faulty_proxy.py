"""An HTTP proxy in front of a git host, over TLS, that injects faults, and can answer the REST API of another host.

`api(method, path, headers, body)` gives (status, JSON), or None for what goes to the git host: git itself.
"""

import contextlib
import http.client
import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fault:
    """What happens to the next `times` requests whose "METHOD PATH" matches.

    forward: the git host gets the request all the same. status None: the answer never comes (hang), or is cut (cut).
    """

    def __init__(self, pattern, status=None, headers=None, body=b"", forward=False, times=1, cut=False):
        self.pattern, self.status, self.headers, self.body = re.compile(pattern), status, headers or {}, body
        self.forward, self.times, self.cut = forward, times, cut
        self.happened = threading.Event()


class FaultyProxy:
    def __init__(self, upstream, context, certificate, key, api=None):
        self.api = api
        self.faults, self.requests, self.lock = [], [], threading.Lock()
        self.closing = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.fault_for(f"{self.command} {self.path}")
                answer = None
                said = proxy.api(self.command, self.path, self.headers, body) if proxy.api else None
                if said:
                    answer = said[0], [("Content-Type", "application/json")], json.dumps(said[1]).encode()
                elif not fault or fault.forward or fault.cut:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                    connection = http.client.HTTPSConnection(upstream, context=context, timeout=60)
                    connection.request(self.command, self.path, body, headers)
                    response = connection.getresponse()
                    answer = response.status, response.getheaders(), response.read()
                    connection.close()
                if fault and fault.status:
                    answer = fault.status, list(fault.headers.items()), fault.body
                elif fault and not fault.cut:
                    fault.happened.set()
                    proxy.closing.wait()
                    self.close_connection = True
                    return
                self.answer(*answer, cut=bool(fault and fault.cut))
                if fault:
                    fault.happened.set()

            def answer(self, status, headers, body, cut):
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)
                self.close_connection = self.close_connection or cut

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(certificate, key)
        self.server.socket = server_context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def fault_for(self, request):
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and fault.pattern.search(request):
                    fault.times -= 1
                    return fault
        return None

    def add(self, *arguments, **options):
        fault = Fault(*arguments, **options)
        with self.lock:
            self.faults.append(fault)
        return fault

    def count(self, pattern):
        with self.lock:
            return sum(1 for request in self.requests if re.search(pattern, request))

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def in_front_of(gitea, api=None):
    proxy = FaultyProxy(gitea.host, gitea.context, gitea.folder / "server.pem", gitea.folder / "server-key.pem", api)
    try:
        yield proxy
    finally:
        proxy.close()
