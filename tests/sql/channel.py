"""What the tests of the task channel share: agents with sessions, which say to the database what the server would say
for them."""
import json
import time
import uuid

from harness import DatabaseCase

LEASE = '60 seconds'
ENDS = ('SUCCEEDED', 'FAILED', 'CANCELLED')  # Result.Status, from 1


class Attempt:
    """An attempt as its agent knows it."""

    def __init__(self, worker, task, attempt, fence):
        self.worker, self.task, self.attempt, self.fence = worker, task, int(attempt), int(fence)

    def but(self, **changes):
        """The same with something wrong about it."""
        other = Attempt(self.worker, self.task, self.attempt, self.fence)
        for name, value in changes.items():
            setattr(other, name, value)
        return other


def columns(attempts, prefix='items__attempt__'):
    """Attempts as the parallel arrays of an internal statement."""
    return {prefix + 'organization_id': [a.worker.tenant for a in attempts],
            prefix + 'task_id': [a.task for a in attempts], prefix + 'attempt': [a.attempt for a in attempts],
            prefix + 'fence': [a.fence for a in attempts], prefix + 'agent_id': [a.worker.agent for a in attempts]}


class Worker:
    """An agent of an organization, and a session of it on a replica."""

    def __init__(self, case, organization, labels=None):
        self.case, self.session, self.tenant = case, organization, organization.tenant
        self.labels = labels or {}
        self.replica = case.replica
        made = organization.call(
            'agent_service/create_agent', new_id=str(uuid.uuid4()), display_name='An agent', request_id='',
            key_prefix='dga_' + uuid.uuid4().hex[:12], secret_sha256=bytes(32))
        self.agent = made['uid']
        self.key = organization.value(f"SELECT agent_key_id FROM agent_keys WHERE agent_id = '{self.agent}'")
        self.instance, self.epoch = str(uuid.uuid4()), 0

    def open(self, running=(), instance=None, last_epoch=None, key=None, replica=None):
        """Starts a session; the row that tells of it."""
        self.instance = instance or self.instance
        self.replica = replica or self.replica
        answer = self.session.call(
            'internal/open_session', agent_id=self.agent, agent_key_id=key or self.key, replica_id=self.replica,
            instance_id=self.instance, last_epoch=self.epoch if last_epoch is None else last_epoch, version='1.0',
            labels=json.dumps(self.labels), kinds=[1, 2], lease=LEASE,
            **{k: v for k, v in columns(running, 'running__').items()
               if k in ('running__task_id', 'running__attempt', 'running__fence')})
        if answer and answer['superseded'] == 'f':
            self.epoch = int(answer['session_epoch'])
        return answer

    def claim(self, free=1, kind=2, **changes):
        """The attempts that are offered."""
        worker = {'tenant': self.tenant, 'agent': self.agent, 'epoch': self.epoch, **changes}
        rows = self.session.rows(
            'internal/claim_tasks', replica_id=self.replica, offer_limit='10 seconds',
            items__organization_id=[worker['tenant']], items__agent_id=[worker['agent']],
            items__session_epoch=[worker['epoch']], items__kind=[kind], items__free=[free],
            items__labels=[json.dumps(self.labels)])
        self.offers = [row for row in rows if row['task_id']]
        self.more = len(rows) == len(self.offers)
        return [Attempt(self, row['task_id'], row['attempt'], row['fence']) for row in self.offers]

    def run(self, **task):
        """An attempt that runs, of a new task."""
        if not self.epoch:
            self.open()
        self.case.task(self.session, **task)
        attempt, = self.claim()
        assert self.case.start(attempt) == {1}
        return attempt


class ChannelCase(DatabaseCase):
    """Tests of the channel's functions. Numbers of items count from 1."""

    def setUp(self):
        # Functions of the channel see all organizations: what a test before this one has left is put away.
        self.admin = self.session(None)
        for table in ('task_leases', 'task_attempts', 'task_effects', 'task_logs', 'task_keys', 'tasks', 'replicas'):
            self.admin.sql(f'DELETE FROM {table}')
        self.system = self.session()
        self.replica = str(uuid.uuid4())
        self.tick()

    def worker(self, organization=None, labels=None):
        return Worker(self, organization or self.organization(), labels)

    def task(self, session, **fields):
        """A new task of kind COMMAND; its id."""
        fields = {'kind': 2, 'payload': b'payload', 'labels': '{}', 'target_agent': '', 'priority': 0,
                  'time_to_live': None, 'max_attempts': 0, 'idempotency_key': '', 'request_id': '', **fields}
        new_id = fields.pop('new_id', None) or session.value('SELECT uuid_v7()')
        made = session.call('task_service/create_task', new_id=new_id, **fields)
        assert made['refusal'] is None, made
        return made['uid']

    def row(self, table, task):
        """The row of a task in a table; None where there is none."""
        rows = self.admin.sql(f"SELECT * FROM {table} WHERE task_id = '{getattr(task, 'task', task)}'")
        return rows[-1] if rows else None

    def state(self, task):
        return self.row('tasks', task)['state']

    def events(self, task):
        """The states that a task has been in."""
        rows = self.admin.sql(f"SELECT to_state FROM task_events WHERE task_id = '{getattr(task, 'task', task)}'"
                              f" ORDER BY position, sequence")
        return [row['to_state'] for row in rows]

    def set(self, table, task, change):
        """Lets time pass, or whatever else a test cannot wait for."""
        self.admin.sql(f"UPDATE {table} SET {change} WHERE task_id = '{getattr(task, 'task', task)}'")

    @staticmethod
    def items(rows):
        return {int(row['item']) for row in rows}

    def start(self, *attempts, session=None):
        return self.items((session or self.system).rows(
            'internal/start_tasks', replica_id=self.replica, lease=LEASE, **columns(attempts, 'items__')))

    def reject(self, *attempts, reason='BUSY', message='', permanent=False, after=None):
        count = len(attempts)
        return self.items(self.system.rows(
            'internal/reject_tasks', **columns(attempts), items__reason=[reason] * count,
            items__message=[message] * count, items__permanent=[permanent] * count, items__after=[after] * count))

    def end(self, *attempts, status='SUCCEEDED', result_id=None, reason='', message='', permanent=False, after=None,
            outputs=None, ends=(0, 0), session=None):
        """What became of each result (ResultAck.Status)."""
        count = len(attempts)
        result_id = result_id or str(uuid.uuid4())
        rows = (session or self.system).rows(
            'internal/end_tasks', **columns(attempts), items__result_id=[result_id] * count,
            items__status=[ENDS.index(status) + 1] * count, items__reason=[reason] * count,
            items__message=[message] * count, items__permanent=[permanent] * count, items__after=[after] * count,
            items__outputs=[json.dumps(outputs or {})] * count, items__stdout_end=[ends[0]] * count,
            items__stderr_end=[ends[1]] * count)
        answers = {int(row['item']): ('ACCEPTED', 'DUPLICATE', 'FENCED')[int(row['status']) - 1] for row in rows}
        return [answers[n] for n in range(1, count + 1)]

    def note(self, *effects):
        """Effects are (attempt, key, reference); the items that are noted."""
        return self.items(self.system.rows(
            'internal/note_effects', **columns([e[0] for e in effects]), items__key=[e[1] for e in effects],
            items__reference=[e[2] for e in effects]))

    def append_rows(self, *pieces):
        """Pieces are (attempt, stream, offset, data[, eof[, epoch]])."""
        return self.system.rows(
            'internal/append_logs', **columns([p[0] for p in pieces]), items__stream=[p[1] for p in pieces],
            items__log_offset=[p[2] for p in pieces], items__data=[p[3] for p in pieces],
            items__eof=[len(p) > 4 and p[4] for p in pieces],
            items__session_epoch=[p[5] if len(p) > 5 else 1 for p in pieces])

    def append(self, *pieces):
        """How far each attempt's log is then: (stdout, stderr)."""
        return [tuple(None if row[part] is None else int(row[part]) for part in ('stdout_offset', 'stderr_offset'))
                for row in self.append_rows(*pieces)]

    def answer(self, *attempts, answer):
        return self.items(self.system.rows('internal/answer_cancels', **columns(attempts),
                                           items__answer=[answer] * len(attempts)))

    def tick(self, *attempts, percent=0, step='', replica=None, replica_lease='15 seconds', session=None):
        """A replica's second: rows by what they tell."""
        count = len(attempts)
        rows = (session or self.system).rows(
            'internal/channel_tick', replica_id=replica or self.replica, replica_lease=replica_lease, lease=LEASE,
            **columns(attempts), items__percent=[percent] * count, items__step=[step] * count)
        told = {}
        for row in rows:
            told.setdefault(row['what'], []).append(row)
        return told

    def cancel(self, worker, attempt, mode='', grace=None, etag=''):
        return worker.session.call('task_service/cancel_task', task_id=getattr(attempt, 'task', attempt), etag=etag,
                                   mode=mode, grace=grace, reason='')

    def retry(self, worker, attempt, etag=''):
        return worker.session.call('task_service/retry_task', task_id=getattr(attempt, 'task', attempt), etag=etag)

    def wait_for_lock(self):
        """Waits until some session waits for a lock."""
        deadline = time.monotonic() + 20
        while self.admin.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                               " AND datname = current_database()") == '0':
            self.assertLess(time.monotonic(), deadline)

    def consistent(self):
        """What always holds: leases are there for what is offered or runs and for nothing else, with the same fence."""
        rows = self.admin.sql("""
            SELECT t.task_id, t.state, l.started FROM tasks t
              FULL JOIN task_leases l USING (organization_id, task_id, attempt, fence, agent_id)
             WHERE (t.state IN ('OFFERED', 'RUNNING', 'CANCELLING')) IS DISTINCT FROM (l.task_id IS NOT NULL)
                OR l.started IS DISTINCT FROM CASE t.state WHEN 'OFFERED' THEN false WHEN 'RUNNING' THEN true
                                                           WHEN 'CANCELLING' THEN true END""")
        self.assertEqual(rows, [])

    def tearDown(self):
        self.consistent()
