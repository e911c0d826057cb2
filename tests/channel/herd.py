"""Many agents in one process, each on a connection of its own, that do nothing but stay connected: they say Hello,
beat, and come back as they are told to. A line on standard output whenever the number of those that stand has changed.

    python herd.py --endpoint HOST:PORT --ca FILE --keys FILE
"""

import argparse
import asyncio
import contextlib
import random
import time
import uuid
from pathlib import Path

import grpc
from devopsgenie.v1 import task_channel_service_pb2 as pb
from devopsgenie.v1 import task_channel_service_pb2_grpc as rpc
from devopsgenie.v1 import task_service_pb2 as tasks


class Herd:
    def __init__(self, endpoint, ca, keys):
        self.endpoint, self.ca, self.keys, self.standing, self.ends = endpoint, Path(ca).read_bytes(), keys, 0, {}
        self.dialling = asyncio.Semaphore(20)  # this machine's, not the platform's: handshakes are costly on both sides

    async def member(self, key):
        hello = pb.Hello(protocol_versions=[1], instance_id=str(uuid.uuid4()), kinds=[tasks.COMMAND], version="herd")
        failures = 0
        while True:
            wait, stood, drained = None, False, False
            credentials = grpc.composite_channel_credentials(
                grpc.ssl_channel_credentials(self.ca), grpc.access_token_call_credentials(key)
            )
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(self.endpoint, credentials, options) as channel:
                code = "OK"
                try:
                    async with self.dialling:
                        call = rpc.TaskChannelServiceStub(channel).Connect()
                        await call.write(pb.WorkerMessage(seq=1, hello=hello))
                        message = await asyncio.wait_for(call.read(), 30)
                    beat = None
                    while message is not grpc.aio.EOF:
                        part = message.WhichOneof("part")
                        if part == "welcome":
                            stood, failures = True, 0
                            self.standing += 1
                            hello.session_token = message.welcome.session_token
                            beat = message.welcome.heartbeat_interval.ToTimedelta().total_seconds()
                        elif part == "retry_later":
                            wait = message.retry_later.after.ToTimedelta().total_seconds()
                        elif part == "drain":
                            wait, drained = message.drain.reconnect_in.ToTimedelta().total_seconds(), True
                        if drained:
                            await asyncio.sleep(wait)
                            wait = 0
                            break
                        message = await self.hear(call, beat)
                except grpc.RpcError as error:
                    code = error.code().name
                except asyncio.TimeoutError:
                    code = "TIMEOUT"
                self.standing -= stood
                self.ends[code] = self.ends.get(code, 0) + 1
            failures += 1
            await asyncio.sleep(random.uniform(0, min(5, 0.2 * 2**failures)) if wait is None else wait)

    async def hear(self, call, beat):
        """The next message; meanwhile it beats."""
        reading, seq = asyncio.ensure_future(call.read()), 1
        while True:
            done, _ = await asyncio.wait([reading], timeout=beat * 0.8 if beat else None)
            if done:
                return reading.result()
            seq = self.seq = getattr(self, "seq", seq) + 1
            with contextlib.suppress(asyncio.InvalidStateError):
                await call.write(pb.WorkerMessage(seq=seq, heartbeat=pb.Heartbeat()))

    async def live(self):
        members = [asyncio.create_task(self.member(key)) for key in self.keys]
        told = None
        while True:
            if (now := (self.standing, sum(self.ends.values()))) != told:
                told = now
                print(f"{time.monotonic():.2f} {self.standing} {self.ends}", flush=True)
            await asyncio.sleep(0.1)
            for member in members:
                if member.done():
                    member.result()


def main():
    parser = argparse.ArgumentParser()
    for name in ("--endpoint", "--ca", "--keys"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()

    async def live():
        await Herd(options.endpoint, options.ca, Path(options.keys).read_text().split()).live()

    asyncio.run(live())


if __name__ == "__main__":
    main()
