"""A worker whose messages come twice, and again when they are long out of date. What it does is the worker's own."""

import asyncio
import random
import sys

import worker

TWICE, LATE = 0.3, 0.3
REPEATED = ("task_ack", "lease_renew", "side_effect", "log_chunk", "result", "cancel_ack", "progress")


class Session(worker.Session):
    def say(self, **part):
        number = super().say(**part)
        if next(iter(part)) in REPEATED:
            if random.random() < TWICE:
                self.out.put_nowait(self.last_message)  # with the same number: it is dropped
                super().say(**part)  # with another: it is answered as what it is
            if random.random() < LATE:
                asyncio.get_running_loop().call_later(random.uniform(0.01, 3), self.again, part)
        return number

    def again(self, part):
        if not self.move.is_set():
            super().say(**part)


class Chaos(worker.Worker):
    session_kind = Session


if __name__ == "__main__":
    sys.exit(worker.main(Chaos))
