"""Sessions of agents, their keys, and what time does to tasks: one test for each rule."""
import datetime
import time
import unittest
import uuid

from channel import ChannelCase
from harness import QUERIES, Refused, literal

CONTINUE, ABORT_FENCED, RESULT_KNOWN, UNKNOWN, OFFERED = range(1, 6)


def numbers(text):
    return [int(n) for n in text.strip('{}').split(',') if n]


class Sessions(ChannelCase):
    def session_row(self, worker):
        return self.admin.sql(f"SELECT * FROM agent_sessions WHERE agent_id = '{worker.agent}'")[0]

    def told(self, worker):
        """What has happened to the agent: (event, reason)."""
        return [(row['event'], row['reason']) for row in self.admin.sql(
            f"SELECT event, reason FROM agent_events WHERE agent_id = '{worker.agent}' ORDER BY position, sequence")]

    def message(self, worker):
        return worker.session.call('agent_service/get_agent', agent_id=worker.agent)

    def test_a_newer_session_has_a_higher_epoch(self):
        worker = self.worker()
        self.assertEqual([int(worker.open()['session_epoch']) for _ in range(3)], [1, 2, 3])
        self.assertEqual(self.told(worker), [('1', '')] + [('3', '')] * 3)

    def test_there_is_no_session_without_an_agent(self):
        worker = self.worker()
        worker.session.call('agent_service/delete_agent', agent_id=worker.agent, etag='')
        self.assertIsNone(worker.open())

    def test_a_new_instance_takes_over_and_the_old_one_is_told(self):
        worker = self.worker()
        worker.open()
        old, new = worker.instance, str(uuid.uuid4())
        self.assertEqual(worker.open(instance=new, last_epoch=0)['superseded'], 'f')
        answer = worker.open(instance=old, last_epoch=1)
        self.assertEqual((answer['superseded'], answer['session_epoch']), ('t', '2'))
        self.assertEqual(self.session_row(worker)['instance_id'], new)

    def test_the_old_instance_may_return_when_the_new_one_has_gone(self):
        worker = self.worker()
        worker.open()
        old, new = worker.instance, str(uuid.uuid4())
        worker.open(instance=new, last_epoch=0)
        self.admin.sql("UPDATE replicas SET lease_time = now() - interval '1 second'")
        self.assertEqual(worker.open(instance=old, last_epoch=1)['superseded'], 'f', 'its replica is dead')
        self.tick()
        worker.open(instance=new, last_epoch=0)
        self.system.rows('internal/close_sessions', items__organization_id=[worker.tenant],
                         items__agent_id=[worker.agent], items__session_epoch=[worker.epoch], items__reason=['GOODBYE'])
        self.assertEqual(worker.open(instance=old, last_epoch=1)['superseded'], 'f', 'it has said goodbye')

    def test_the_same_instance_is_never_superseded(self):
        worker = self.worker()
        worker.open()
        worker.open()
        self.assertEqual(worker.open(last_epoch=1)['superseded'], 'f')

    def test_closing_is_for_the_session_that_was_meant(self):
        worker = self.worker()
        worker.open()
        worker.open()
        close = lambda epoch, reason: self.system.rows(
            'internal/close_sessions', items__organization_id=[worker.tenant], items__agent_id=[worker.agent],
            items__session_epoch=[epoch], items__reason=[reason])
        close(1, 'CLOSED')
        self.assertIsNone(self.session_row(worker)['disconnect_time'])
        close(2, 'SILENT')
        close(2, 'CLOSED')
        self.assertEqual(self.session_row(worker)['disconnect_reason'], 'SILENT')
        self.assertEqual(self.told(worker)[-1], ('4', 'SILENT'))

    def test_a_dead_replicas_agents_are_no_longer_connected(self):
        worker, other = self.worker(), self.worker()
        worker.open()
        second = str(uuid.uuid4())
        self.tick(replica=second)
        other.open(replica=second)
        self.admin.sql(f"UPDATE replicas SET lease_time = now() - interval '3 seconds' WHERE replica_id = '{second}'")
        dead = self.admin.value(f"SELECT lease_time FROM replicas WHERE replica_id = '{second}'")
        self.assertEqual(self.message(other)['state'], 'DISCONNECTED', 'before anybody has noted it')
        self.tick()
        row = self.session_row(other)
        self.assertEqual((row['disconnect_reason'], row['disconnect_time']), ('REPLICA_LOST', dead))
        self.assertIsNone(self.session_row(worker)['disconnect_time'])
        self.assertEqual(self.admin.value('SELECT count(*) FROM replicas'), '1')
        self.assertEqual(self.told(other)[-1], ('4', 'REPLICA_LOST'))

    def test_a_replica_that_leaves_takes_its_sessions_along(self):
        worker = self.worker()
        worker.open()
        self.system.rows('internal/leave_replica', replica_id=self.replica)
        self.assertEqual(self.session_row(worker)['disconnect_reason'], 'DRAINED')
        self.assertEqual(self.admin.value('SELECT count(*) FROM replicas'), '0')

    # --- What an agent's state is said to be ---

    def test_an_agent_that_never_came(self):
        seen = self.message(self.worker())
        self.assertEqual((seen['state'], seen['state_time'], seen['last_seen_time'], seen['version']),
                         ('DISCONNECTED', None, None, None))

    def test_an_agent_that_is_connected(self):
        worker = self.worker(labels={'zone': 'eu'})
        worker.open()
        seen, row = self.message(worker), self.session_row(worker)
        self.assertEqual((seen['state'], seen['state_time'], seen['version'], seen['labels'], seen['kinds']),
                         ('CONNECTED', row['connect_time'], '1.0', '{"zone": "eu"}', '{1,2}'))
        self.assertEqual(seen['last_seen_time'], row['connect_time'], 'never before it came')
        self.admin.sql("UPDATE replicas SET lease_time = now() + interval '40 seconds'")
        self.assertEqual(self.admin.value(f"SELECT lease_time - interval '15 seconds' FROM replicas"),
                         self.message(worker)['last_seen_time'])

    def test_an_agent_that_has_gone(self):
        worker = self.worker()
        worker.open()
        self.system.rows('internal/close_sessions', items__organization_id=[worker.tenant],
                         items__agent_id=[worker.agent], items__session_epoch=[1], items__reason=['CLOSED'])
        gone = self.session_row(worker)['disconnect_time']
        seen = self.message(worker)
        self.assertEqual((seen['state'], seen['state_time'], seen['last_seen_time']), ('DISCONNECTED', gone, gone))

    def test_an_agent_on_a_replica_that_is_dead(self):
        worker = self.worker()
        worker.open()
        self.admin.sql("UPDATE replicas SET lease_time = now() - interval '1 second'")
        dead = self.admin.value('SELECT lease_time FROM replicas')
        seen = self.message(worker)
        self.assertEqual((seen['state'], seen['state_time'], seen['last_seen_time']), ('DISCONNECTED', dead, dead))

    def test_the_tasks_that_an_agent_has(self):
        worker = self.worker()
        worker.open()
        tasks = [self.task(worker.session) for _ in range(103)]
        self.assertEqual(len(worker.claim(200)), 103)
        listed = self.message(worker)['running_tasks'].strip('{}').split(',')
        self.assertEqual([name.rpartition('/')[2] for name in listed], tasks[:100])
        self.assertTrue(all(name.startswith('organizations/') and '/tasks/' in name for name in listed))

    # --- What becomes of what an agent has ---

    def test_dispositions(self):
        worker = self.worker()
        runs, ended, lost, offered = (worker.run() for _ in range(3)), None, None, None
        runs, ended, lost = runs
        self.append((runs, 1, 0, b'abc'), (runs, 2, 0, b'd'), (ended, 1, 0, b'xy'))
        self.end(ended)
        self.set('task_leases', lost, "lease_time = now() - interval '1 second'")
        self.tick()
        self.task(worker.session)
        self.set('tasks', lost, "next_attempt_time = now() + interval '1 hour'")
        offered, = worker.claim()
        nothing = runs.but(task=str(uuid.uuid4()))
        abroad = self.worker().run()
        wrong = runs.but(fence=runs.fence + 1)
        self.set('task_leases', runs, "lease_time = now() + interval '1 second'")
        before = self.row('task_leases', offered)['lease_time']
        second = str(uuid.uuid4())
        answer = worker.open([runs, ended, lost, offered, nothing, abroad, wrong], replica=second)
        self.assertEqual(numbers(answer['decisions']),
                         [CONTINUE, RESULT_KNOWN, ABORT_FENCED, OFFERED, UNKNOWN, UNKNOWN, ABORT_FENCED])
        self.assertEqual(numbers(answer['stdout_offsets'])[:2], [3, 2])
        self.assertEqual(numbers(answer['stderr_offsets'])[:2], [1, 0])
        lease = self.row('task_leases', runs)
        self.assertEqual((lease['replica_id'], lease['lease_time'] > before), (second, True))
        self.assertEqual((self.row('task_leases', offered)['replica_id'], self.row('task_leases', offered)['lease_time']),
                         (second, before), 'an offer is not made longer')

    def test_without_anything_there_is_nothing_to_say(self):
        answer = self.worker().open()
        self.assertEqual((answer['decisions'], answer['stdout_offsets'], answer['stderr_offsets']), ('{}', '{}', '{}'))

    def test_an_offer_that_the_agent_does_not_know_of_is_taken_back(self):
        worker = self.worker()
        worker.open()
        self.task(worker.session), self.task(worker.session)
        known, unknown = worker.claim(2)
        runs = worker.run()
        worker.open([known])
        self.assertEqual((self.state(known), self.state(unknown), self.state(runs)), ('OFFERED', 'PENDING', 'RUNNING'))
        self.assertEqual(self.row('tasks', unknown)['state_reason'], 'SESSION_ENDED')
        self.assertEqual(self.start(unknown), set())
        self.assertEqual([a.task for a in worker.claim()], [unknown.task])

    def test_another_agents_offers_are_left_alone(self):
        worker = self.worker()
        worker.open()
        self.task(worker.session)
        offered, = worker.claim()
        self.worker(worker.session).open()
        self.assertEqual(self.state(offered), 'OFFERED')

    def test_a_cancel_that_was_lost_on_the_way_comes_again(self):
        worker = self.worker()
        attempt = worker.run()
        self.cancel(worker, attempt)
        second = str(uuid.uuid4())
        answer = worker.open([attempt], replica=second)
        self.assertEqual(numbers(answer['decisions']), [CONTINUE])
        self.assertEqual([row['task_id'] for row in self.tick(replica=second)['CANCEL']], [attempt.task])

    # --- Checks ---

    def check(self, worker, epoch=None, key=None):
        rows = self.system.rows('internal/check_sessions', items__organization_id=[worker.tenant],
                                items__agent_id=[worker.agent], items__session_epoch=[epoch or worker.epoch],
                                items__agent_key_id=[key or worker.key])
        return rows[0] if rows else None

    def rotate(self, worker, in_channel=False, overlap=None):
        return worker.session.call(
            'agent_service/rotate_agent_key', agent_id=worker.agent, etag='', in_channel=in_channel, overlap=overlap,
            new_id=worker.session.value('SELECT uuid_v7()'), key_prefix='dga_' + uuid.uuid4().hex[:12],
            secret_sha256=bytes(32))

    def test_a_good_session_is_not_told(self):
        worker = self.worker()
        worker.open()
        self.assertIsNone(self.check(worker))

    def test_a_session_that_is_not_the_last(self):
        worker = self.worker()
        worker.open(), worker.open()
        told = self.check(worker, epoch=1)
        self.assertEqual((told['current_epoch'], told['ended']), ('2', 'f'))

    def test_a_session_whose_agent_or_key_or_organization_has_ended(self):
        gone, ended, out = self.worker(), self.worker(), self.worker()
        for worker in (gone, ended, out):
            worker.open()
        gone.session.call('agent_service/delete_agent', agent_id=gone.agent, etag='')
        self.rotate(ended, overlap='0 seconds')
        out.session.call('organization_service/delete_organization', etag='')
        for worker in (gone, ended, out):
            self.assertEqual(self.check(worker)['ended'], 't')
        self.assertIsNotNone(self.check(ended, key=str(uuid.uuid4())))

    def test_a_key_that_waits_to_be_handed_over(self):
        worker = self.worker()
        worker.open()
        self.rotate(worker, in_channel=True)
        told = self.check(worker)
        self.assertEqual((told['ended'], told['key_offered']), ('f', 't'))
        self.assertEqual(worker.open()['key_offered'], 't')

    # --- A key that is handed over in the channel ---

    def offer(self, worker, epoch=None):
        """The key's id and its overlap; None where none is wanted."""
        key = worker.session.value('SELECT uuid_v7()')
        row = worker.session.call('internal/offer_key', agent_id=worker.agent, session_epoch=epoch or worker.epoch,
                                  agent_key_id=key, key_prefix='dga_' + uuid.uuid4().hex[:12], secret_sha256=bytes(32))
        return row and (key, row['overlap_ms'])

    def keys(self, worker):
        return {row['agent_key_id']: row for row in self.admin.sql(
            f"SELECT *, round(extract(epoch FROM expire_time - now())) AS rest FROM agent_keys"
            f" WHERE agent_id = '{worker.agent}'")}

    def test_a_key_is_offered_and_the_older_ends_after_its_first_use(self):
        worker = self.worker()
        worker.open()
        self.rotate(worker, in_channel=True, overlap='100 seconds')
        key, overlap = self.offer(worker)
        self.assertEqual(overlap, '100000')
        self.assertEqual((self.keys(worker)[key]['offered'], self.keys(worker)[worker.key]['expire_time']), ('t', None))
        worker.open()
        self.assertEqual(self.keys(worker)[worker.key]['expire_time'], None, 'the old key was used')
        self.assertEqual(worker.open(key=key)['key_offered'], 'f')
        self.assertEqual((self.keys(worker)[key]['offered'], self.keys(worker)[key]['expire_time']), ('f', None))
        self.assertIn(self.keys(worker)[worker.key]['rest'], ('99', '100'))
        self.assertEqual(self.message(worker)['key_offered'], 'f')
        self.assertIsNone(self.offer(worker), 'none is wanted any more')

    def test_an_offer_takes_the_place_of_one_that_was_not_used(self):
        worker = self.worker()
        worker.open()
        self.rotate(worker, in_channel=True)
        first, _ = self.offer(worker)
        second, overlap = self.offer(worker)
        self.assertEqual((set(self.keys(worker)), overlap), ({worker.key, second}, '86400000'))

    def test_no_key_for_a_session_that_is_not_the_last_and_none_that_nobody_asked_for(self):
        worker = self.worker()
        worker.open()
        self.assertIsNone(self.offer(worker))
        self.rotate(worker, in_channel=True)
        worker.open()
        self.assertIsNone(self.offer(worker, epoch=1))
        self.assertEqual(len(self.keys(worker)), 1)

    def test_a_key_that_is_shown_takes_the_place_of_one_that_was_offered(self):
        worker = self.worker()
        worker.open()
        self.rotate(worker, in_channel=True)
        offered, _ = self.offer(worker)
        self.rotate(worker, overlap='50 seconds')
        self.assertNotIn(offered, self.keys(worker))
        self.assertIsNone(self.offer(worker))
        self.assertIn(self.keys(worker)[worker.key]['rest'], ('49', '50'))

    def test_an_overlap_never_makes_a_key_live_longer(self):
        worker = self.worker()
        self.rotate(worker, overlap='50 seconds')
        self.rotate(worker, overlap='500 seconds')
        self.assertIn(self.keys(worker)[worker.key]['rest'], ('49', '50'))

    def test_a_second_rotation_wants_a_key_that_is_newer_than_itself(self):
        worker = self.worker()
        worker.open()
        self.rotate(worker, in_channel=True)
        first, _ = self.offer(worker)
        self.rotate(worker, in_channel=True)
        self.assertEqual(worker.open(key=first)['key_offered'], 't')
        self.assertEqual(self.keys(worker)[first]['offered'], 'f')
        second, _ = self.offer(worker)
        self.assertEqual(set(self.keys(worker)), {worker.key, first, second})
        self.assertEqual(worker.open(key=second)['key_offered'], 'f')

    def test_an_offered_key_is_found_while_it_is_offered(self):
        worker = self.worker()
        worker.open()
        find = lambda prefix: self.system.call('internal/find_agent_key', key_prefix=prefix)
        old = self.keys(worker)[worker.key]['key_prefix']
        self.assertEqual((find(old)['agent_id'], find(old)['agent_key_id']), (worker.agent, worker.key))
        self.rotate(worker, in_channel=True)
        key, _ = self.offer(worker)
        prefix = self.keys(worker)[key]['key_prefix']
        self.assertEqual(find(prefix)['agent_key_id'], key)
        # Made by a transaction that the rotation did not see: it ends with the offer.
        self.admin.sql(f"UPDATE agents SET key_offer_time = NULL WHERE agent_id = '{worker.agent}'")
        self.assertIsNone(find(prefix))


class Time(ChannelCase):
    """The sweep's part, and partitions."""

    def sweep(self):
        for _ in range(3):
            self.system.call('internal/sweep', row_limit=1000)

    def test_what_waits_too_long_is_dead(self):
        worker = self.worker()
        worker.open()
        late, due = self.task(worker.session), self.task(worker.session)
        self.set('tasks', late, "expire_time = now() - interval '1 second'")
        self.sweep()
        row = self.row('tasks', late)
        self.assertEqual((row['state'], row['state_reason'], row['failure_reason'], self.state(due)),
                         ('DEAD', 'TIME_TO_LIVE', 'TIME_TO_LIVE', 'PENDING'))
        self.assertIsNotNone(row['end_time'])
        self.assertIsNone(self.retry(worker, late)['refusal'])
        self.assertEqual(self.state(late), 'PENDING')

    def test_a_failure_is_not_hidden_by_the_time(self):
        worker = self.worker()
        attempt = worker.run()
        self.end(attempt, status='FAILED', reason='RATE_LIMITED')
        self.set('tasks', attempt, "expire_time = now() - interval '1 second'")
        self.sweep()
        row = self.row('tasks', attempt)
        self.assertEqual((row['state'], row['state_reason'], row['failure_reason']),
                         ('DEAD', 'TIME_TO_LIVE', 'RATE_LIMITED'))

    def test_what_is_offered_or_runs_is_not_late(self):
        worker = self.worker()
        runs = worker.run()
        self.task(worker.session)
        offered, = worker.claim()
        for attempt in (runs, offered):
            self.set('tasks', attempt, "expire_time = now() - interval '1 second'")
        self.sweep()
        self.assertEqual((self.state(runs), self.state(offered)), ('RUNNING', 'OFFERED'))

    def test_what_ended_a_week_ago_is_filed(self):
        worker = self.worker()
        old, new = worker.run(), worker.run()
        for attempt in (old, new):
            self.end(attempt)
        self.set('tasks', old, "end_time = now() - interval '8 days'")
        before = worker.session.call('task_service/get_task', task_id=old.task)
        events = self.events(old)
        self.sweep()
        self.assertEqual(self.admin.value('SELECT count(*) FROM tasks_live'), '1')
        self.assertEqual(worker.session.call('task_service/get_task', task_id=old.task), before)
        self.assertEqual(self.events(old), events, 'that is no change of it')
        self.assertEqual(self.retry(worker, old)['refusal'], 'TASK_NOT_RETRYABLE')
        listed = worker.session.rows('task_service/list_tasks', after_task_id=None, page_limit=10)
        self.assertEqual([row['uid'] for row in listed], [new.task, old.task])
        self.assertEqual(self.end(old), ['FENCED'])

    def test_what_was_filed_long_ago_has_no_attempts_and_no_journal(self):
        worker = self.worker()
        long_ago = f'{int((time.time() - 50 * 86400) * 1000):012x}'
        old_id = lambda: f'{long_ago[:8]}-{long_ago[8:]}-7000-8000-{uuid.uuid4().hex[:12]}'
        filed, lately, live = (worker.run(new_id=old_id()) for _ in range(3))
        new = worker.run()
        for attempt in (filed, lately, live, new):
            self.note((attempt, 'k', 'r'))
        for attempt, days in ((filed, 31), (lately, 29), (new, 8)):
            self.end(attempt)
            self.set('tasks', attempt, f"end_time = now() - interval '{days} days'")
        self.sweep()
        for attempt, kept in ((filed, False), (lately, True), (live, True), (new, True)):
            self.assertEqual((self.row('task_attempts', attempt) is not None,
                              self.row('task_effects', attempt) is not None), (kept, kept))
        self.assertEqual(worker.session.call('task_service/get_task', task_id=filed.task)['state'], 'SUCCEEDED')

    def test_keys_that_have_ended_are_removed(self):
        """But for an agent's newest, which says what it had."""
        worker = self.worker()
        for n, overlap in enumerate(('1 hour', '0 seconds', '0 seconds')):  # ids grow, as UUIDv7 do
            worker.session.call('agent_service/rotate_agent_key', agent_id=worker.agent,
                                new_id=f'ffffffff-0000-7000-8000-00000000000{n}',
                                key_prefix='dga_' + uuid.uuid4().hex[:12], secret_sha256=bytes(32), in_channel=False,
                                overlap=overlap, etag='')
        keys = lambda: self.admin.value(f"SELECT count(*) FROM agent_keys WHERE agent_id = '{worker.agent}'")
        before = int(keys())
        self.admin.sql(f"UPDATE agent_keys SET expire_time = now() - interval '1 second'"
                       f" WHERE agent_id = '{worker.agent}' AND expire_time IS NOT NULL")
        self.assertGreater(before, 1)
        self.sweep()
        self.assertEqual(keys(), '1')
        self.admin.sql(f"UPDATE agent_keys SET expire_time = now() WHERE agent_id = '{worker.agent}'")
        self.sweep()
        self.assertEqual(keys(), '1')

    def test_a_sweep_looks_at_some_organizations_at_a_time(self):
        """All of them have their turn, a slice every ten seconds."""
        self.worker(), self.worker(), self.worker()
        count = int(self.admin.value('SELECT count(*) FROM organizations'))
        seen = []
        for turn in range((count + 1) // 2):
            rows = self.admin.sql(f'SELECT organization_id FROM swept_organizations(2, {turn})')
            seen += [row['organization_id'] for row in rows]
        self.assertEqual(len(seen), count)
        self.assertEqual(len(set(seen)), count)

    def test_a_lists_pages_read_no_payload(self):
        """A whole row in the page would drag every payload along."""
        worker = self.worker()
        self.task(worker.session)
        worker.session.sql('SET enable_seqscan = off')
        text = (QUERIES / 'task_service/list_tasks.sql').read_text()
        for name, value in (('organization_id', worker.tenant), ('organization_slug', 'x'), ('page_limit', 5)):
            text = text.replace(':' + name, literal(value))
        text = text.replace(':after_task_id', 'NULL')
        plan = '\n'.join(next(iter(row.values())) for row in worker.session.sql(
            'EXPLAIN (VERBOSE, COSTS off) ' + text.rstrip().rstrip(';')))
        self.assertNotIn('payload', plan)
        self.assertNotIn('.*', plan)

    def test_partitions_are_made_ahead_and_take_what_the_default_holds(self):
        name = self.admin.value("SELECT to_char(now() AT TIME ZONE 'UTC', '\"task_logs_\"YYYY_MM_DD')")
        self.assertEqual(self.admin.value(f"SELECT count(*) FROM pg_class WHERE relname = '{name}'"), '1')
        worker = self.worker()
        attempt = worker.run()
        self.admin.sql(f"INSERT INTO task_logs SELECT organization_id, task_id, 1, 1, n, now() + n * interval '1 day', ''"
                       f" FROM task_leases, generate_series(1, 5) n")
        held = lambda: int(self.admin.value('SELECT count(*) FROM task_logs_default'))
        self.assertEqual(held(), 3)
        self.admin.sql("SELECT make_time_partitions('task_logs', 'log_time', 'day', 4)")
        self.assertEqual((held(), self.admin.value('SELECT count(*) FROM task_logs')), (1, '5'))
        self.assertEqual(self.admin.value("SELECT make_time_partitions('task_logs', 'log_time', 'day', 4)"), '0')
        self.assertEqual(attempt.worker.session.value('SELECT count(*) FROM task_logs'), '5')
        self.admin.sql('DELETE FROM task_logs')

    def test_partitions_are_shut_off_like_their_parent(self):
        for row in self.admin.sql("""
                SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS shut, pg_get_userbyid(c.relowner) AS owner,
                       has_table_privilege('genie_app', c.oid, 'SELECT') AS readable
                  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r'
                   AND inhparent IN ('tasks'::regclass, 'task_logs'::regclass, 'task_events'::regclass,
                                     'agent_events'::regclass)"""):
            self.assertEqual((row['shut'], row['owner'], row['readable']), ('t', 'genie_system', 'f'), row)

    def test_logs_go_when_the_last_of_their_day_is_old(self):
        days = {}
        for age in (29, 30, 31, 32):
            day = self.admin.value(f"SELECT to_char((now() - interval '{age} days') AT TIME ZONE 'UTC', 'YYYY_MM_DD')")
            date = datetime.date(*map(int, day.split('_')))
            days[age] = f'task_logs_{day}'
            self.admin.sql(f"CREATE TABLE {days[age]} PARTITION OF task_logs FOR VALUES FROM ('{date}Z')"
                           f" TO ('{date + datetime.timedelta(1)}Z')")
            self.admin.sql(f'ALTER TABLE {days[age]} OWNER TO genie_system')
            self.addCleanup(self.admin.sql, f'DROP TABLE IF EXISTS {days[age]}')
        self.assertEqual(self.admin.value("SELECT drop_old_logs('30 days')"), '2')
        left = {row['relname'] for row in self.admin.sql("SELECT relname FROM pg_class WHERE relname LIKE 'task_logs_2%'")}
        self.assertEqual({age for age, name in days.items() if name in left}, {29, 30})

    def test_logs_that_are_being_read_go_the_next_time(self):
        for date in ('2020-01-01', '2020-01-02'):
            name = 'task_logs_' + date.replace('-', '_')
            self.admin.sql(f"CREATE TABLE {name} PARTITION OF task_logs FOR VALUES FROM ('{date}Z') TO ('{date} 24:00Z')")
            self.admin.sql(f'ALTER TABLE {name} OWNER TO genie_system')
            self.addCleanup(self.admin.sql, f'DROP TABLE IF EXISTS {name}')
        reader = self.session(None)
        reader.sql('BEGIN')
        reader.sql('SELECT count(*) FROM task_logs_2020_01_02')
        dropped = int(self.admin.value("SELECT drop_old_logs('30 days')"))
        left = int(self.admin.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'task_logs_2020%' AND relkind = 'r'"))
        self.assertEqual(dropped + left, 2, 'it says what it did')
        self.assertGreater(left, 0)
        reader.sql('COMMIT')
        self.admin.value("SELECT drop_old_logs('30 days')")
        self.assertEqual(self.admin.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'task_logs_2020%'"
                                          " AND relkind = 'r'"), '0')

    def test_what_looks_across_organizations_is_not_for_requests(self):
        session = self.organization()
        for call in ("lapse_leases(1)", "sweep_tasks(1, '{}')", "sweep_remains(1, '{}')", "drop_old_logs('1 day')",
                     "make_time_partitions('task_logs', 'log_time', 'day', 1)"):
            with self.assertRaisesRegex(Refused, 'permission denied'):
                session.sql('SELECT ' + call)


if __name__ == '__main__':
    unittest.main()
