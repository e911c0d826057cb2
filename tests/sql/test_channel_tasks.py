"""The way of a task through the channel's functions: one test for each rule."""
import json
import threading
import unittest
import uuid

from channel import LEASE, ChannelCase


class Offers(ChannelCase):
    def test_a_task_is_offered_started_and_done(self):
        worker = self.worker()
        worker.open()
        task = self.task(worker.session, payload=b'what to do', idempotency_key='k')
        attempt, = worker.claim()
        offer, = worker.offers
        self.assertEqual((attempt.task, attempt.attempt, offer['payload'], offer['idempotency_key'], offer['kind']),
                         (task, 1, '\\x' + b'what to do'.hex(), 'k', '2'))
        self.assertTrue(0 < int(offer['time_to_live_ms']) <= 86400_000)
        self.assertEqual((self.state(task), self.row('tasks', task)['agent_id']), ('OFFERED', worker.agent))
        self.assertEqual(self.row('task_leases', task)['started'], 'f')
        self.assertIsNone(self.row('task_attempts', task))
        self.assertEqual(self.start(attempt), {1})
        self.assertEqual((self.state(task), self.row('tasks', task)['start_count']), ('RUNNING', '1'))
        self.assertEqual(self.end(attempt, outputs={'a': 'b'}, ends=(3, 4)), ['ACCEPTED'])
        done, told = self.row('tasks', task), self.row('task_attempts', task)
        self.assertEqual((done['state'], json.loads(done['outputs']), done['failure_reason']),
                         ('SUCCEEDED', {'a': 'b'}, ''))
        self.assertIsNotNone(done['end_time'])
        self.assertEqual((told['outcome'], told['stdout_end'], told['stderr_end']), ('SUCCEEDED', '3', '4'))
        self.assertEqual(self.events(task), ['PENDING', 'OFFERED', 'RUNNING', 'SUCCEEDED'])

    def test_a_task_is_offered_once(self):
        worker = self.worker()
        worker.open()
        self.task(worker.session)
        self.assertEqual((len(worker.claim(5)), len(worker.claim(5))), (1, 0))

    def test_no_more_than_is_free(self):
        worker = self.worker()
        worker.open()
        for _ in range(5):
            self.task(worker.session)
        self.assertEqual([len(worker.claim(free)) for free in (0, 2, 2, 2)], [0, 2, 2, 1])

    def test_it_says_when_no_more_wait(self):
        worker = self.worker()
        worker.open()
        self.assertEqual((worker.claim(), worker.more), ([], False))
        for _ in range(3):
            self.task(worker.session)
        self.assertEqual([(len(worker.claim(2)), worker.more) for _ in range(3)], [(2, True), (1, False), (0, False)])
        self.task(worker.session, labels=json.dumps({'zone': 'eu'}))
        self.assertEqual((worker.claim(), worker.more), ([], True), 'it waits, if for another agent')
        self.assertEqual((worker.claim(kind=1), worker.more), ([], False))

    def test_it_says_so_once_an_organization_and_kind(self):
        one, two = self.worker(), self.worker()
        one.open(), two.open()
        self.task(two.session)
        workers, kinds = [one, one, two, two, two], [1, 1, 1, 2, 2]
        rows = self.system.rows(
            'internal/claim_tasks', replica_id=self.replica, offer_limit='10 seconds',
            items__organization_id=[w.tenant for w in workers], items__agent_id=[w.agent for w in workers],
            items__session_epoch=[w.epoch for w in workers], items__kind=kinds, items__free=[1] * 5)
        self.assertEqual([(row['item'], row['kind']) for row in rows if not row['task_id']],
                         [('2', '1'), ('3', '1'), ('5', '2')])

    def test_priority_then_age(self):
        worker = self.worker()
        worker.open()
        tasks = [self.task(worker.session, priority=priority) for priority in (0, 5, 0, -3, 5)]
        order = [tasks[n] for n in (1, 4, 0, 2, 3)]
        self.assertEqual([a.task for a in worker.claim(3)] + [a.task for a in worker.claim(3)], order)

    def test_kinds_and_labels_and_targets(self):
        organization = self.organization()
        plain, eu = self.worker(organization), self.worker(organization, {'zone': 'eu', 'gpu': ''})
        for worker in (plain, eu):
            worker.open()
        wants = self.task(organization, labels=json.dumps({'zone': 'eu'}))
        targeted = self.task(organization, target_agent=f'organizations/x/agents/{plain.agent}')
        other = self.task(organization, kind=1)
        self.task(organization, labels=json.dumps({'zone': 'us'}))
        self.assertEqual([a.task for a in plain.claim(9)], [targeted])
        self.assertEqual([a.task for a in eu.claim(9)], [wants])
        self.assertEqual([a.task for a in plain.claim(9, kind=1)], [other])

    def test_an_agent_sees_its_own_organizations_tasks_only(self):
        here, there = self.worker(), self.worker()
        here.open(), there.open()
        self.task(there.session)
        self.assertEqual(here.claim(9), [])
        # Not even where the server is wrong about the organization: the agent has no session there.
        self.assertEqual(here.claim(9, tenant=there.tenant), [])

    def test_nothing_for_a_session_that_is_not_the_last(self):
        worker = self.worker()
        worker.open()
        worker.open(instance=str(uuid.uuid4()), last_epoch=0)
        self.task(worker.session)
        self.assertEqual(worker.claim(epoch=worker.epoch - 1), [])
        self.system.rows('internal/close_sessions', items__organization_id=[worker.tenant],
                         items__agent_id=[worker.agent], items__session_epoch=[worker.epoch], items__reason=['CLOSED'])
        self.assertEqual(worker.claim(), [])

    def test_not_before_its_time_and_not_after(self):
        worker = self.worker()
        worker.open()
        task = self.task(worker.session)
        for change in ("next_attempt_time = now() + interval '1 minute'",
                       "next_attempt_time = now(), expire_time = now() - interval '1 second'"):
            self.set('tasks', task, change)
            self.assertEqual(worker.claim(), [])
        self.set('tasks', task, "expire_time = now() + interval '1 minute'")
        self.assertEqual(len(worker.claim()), 1)

    def test_items_are_served_in_turn(self):
        """One statement for many sessions, of different organizations and labels."""
        workers = [self.worker(labels={'n': str(n)}) for n in range(3)]
        for n, worker in enumerate(workers):
            worker.open()
            self.task(worker.session, labels=json.dumps({'n': str(n)}))
        rows = self.system.rows(
            'internal/claim_tasks', replica_id=self.replica, offer_limit='10 seconds',
            items__organization_id=[w.tenant for w in workers], items__agent_id=[w.agent for w in workers],
            items__session_epoch=[w.epoch for w in workers], items__kind=[2] * 3, items__free=[1] * 3,
            items__labels=[json.dumps(w.labels) for w in workers])
        offers = [row for row in rows if row['task_id']]
        self.assertEqual([row['item'] for row in offers], ['1', '2', '3'])
        self.assertEqual([self.row('tasks', row['task_id'])['agent_id'] for row in offers], [w.agent for w in workers])

    def test_two_at_once_are_offered_different_tasks(self):
        organization = self.organization()
        one, two = self.worker(organization), self.worker(organization)
        one.open(), two.open()
        first, second = self.task(organization), self.task(organization)
        other = self.session()
        other.sql('BEGIN')
        two.session, same = other, two.session
        self.assertEqual([a.task for a in two.claim()], [first])
        self.assertEqual([a.task for a in one.claim(9)], [second])
        other.sql('COMMIT')
        two.session = same

    # --- Taking an offer ---

    def test_an_acknowledgement_that_comes_again_is_granted_again(self):
        attempt = self.worker().run()
        self.assertEqual(self.start(attempt), {1})
        self.assertEqual(self.row('tasks', attempt)['start_count'], '1')
        self.assertEqual(self.start(attempt, attempt), {1, 2})

    def test_what_is_fenced_is_not_started(self):
        worker = self.worker()
        worker.open()
        other, abroad = self.worker(worker.session), self.worker()
        self.task(worker.session)
        attempt, = worker.claim()
        wrong = (attempt.but(fence=attempt.fence + 1), attempt.but(attempt=2), attempt.but(worker=other),
                 attempt.but(worker=abroad), attempt.but(task=str(uuid.uuid4())))
        self.assertEqual(self.start(*wrong), set())
        self.assertEqual(self.state(attempt), 'OFFERED')
        self.assertEqual(self.start(*wrong, attempt), {6})
        self.assertEqual(self.start(*wrong), set())
        self.assertEqual(self.end(*wrong), ['FENCED'] * 5)
        self.assertEqual(self.state(attempt), 'RUNNING')

    def test_an_ended_attempt_is_not_granted_again(self):
        attempt = self.worker().run()
        self.end(attempt)
        self.assertEqual(self.start(attempt), set())

    # --- Not taking it ---

    def test_a_rejected_offer_waits_again(self):
        worker = self.worker()
        worker.open()
        task = self.task(worker.session)
        attempt, = worker.claim()
        self.assertEqual(self.reject(attempt, message='not now'), {1})
        row = self.row('tasks', task)
        self.assertEqual((row['state'], row['failure_reason'], row['failure_message'], row['start_count']),
                         ('PENDING', 'BUSY', 'not now', '0'))
        self.assertEqual(worker.claim(), [], 'not at once')
        self.set('tasks', task, 'next_attempt_time = now()')
        again, = worker.claim()
        self.assertEqual(again.attempt, 2)
        self.assertGreater(again.fence, attempt.fence)
        self.assertEqual(self.start(attempt), set())
        self.assertEqual(self.reject(again, after='1 hour', reason=''), {1})
        self.assertEqual(self.row('tasks', task)['failure_reason'], 'REJECTED')
        self.assertEqual(self.admin.value(f"SELECT next_attempt_time > now() + interval '59 minutes' FROM tasks"
                                          f" WHERE task_id = '{task}'"), 't')

    def test_a_rejection_for_good_ends_it(self):
        worker = self.worker()
        worker.open()
        task = self.task(worker.session)
        attempt, = worker.claim()
        self.assertEqual(self.reject(attempt, permanent=True, reason='UNSUPPORTED'), {1})
        row = self.row('tasks', task)
        self.assertEqual((row['state'], row['failure_permanent'], row['state_reason']), ('FAILED', 't', 'UNSUPPORTED'))
        self.assertIsNotNone(row['end_time'])
        self.assertEqual(self.reject(attempt), set())

    def test_what_runs_is_not_rejected(self):
        attempt = self.worker().run()
        self.assertEqual(self.reject(attempt), set())
        self.assertEqual(self.state(attempt), 'RUNNING')

    def test_an_offer_that_is_not_answered_waits_again_at_once(self):
        worker = self.worker()
        worker.open()
        task = self.task(worker.session)
        attempt, = worker.claim()
        self.tick()
        self.assertEqual(self.state(task), 'OFFERED')
        self.set('task_leases', task, "lease_time = now() - interval '1 second'")
        self.tick()
        self.assertEqual((self.state(task), self.row('tasks', task)['state_reason']), ('PENDING', 'OFFER_EXPIRED'))
        self.assertEqual(self.start(attempt), set())
        self.assertEqual(len(worker.claim()), 1)
        self.assertEqual(self.row('tasks', task)['start_count'], '0')


class Ends(ChannelCase):
    def test_a_failure_waits_and_is_tried_again_as_often_as_it_may(self):
        worker = self.worker()
        attempt = worker.run(max_attempts=2)
        self.assertEqual(self.end(attempt, status='FAILED', reason='RATE_LIMITED', message='slow down'), ['ACCEPTED'])
        row = self.row('tasks', attempt)
        self.assertEqual((row['state'], row['failure_reason'], row['failure_message'], row['end_time']),
                         ('PENDING', 'RATE_LIMITED', 'slow down', None))
        self.assertEqual(worker.claim(), [])
        self.set('tasks', attempt, 'next_attempt_time = now()')
        again, = worker.claim()
        self.start(again)
        self.assertEqual(self.end(again, status='FAILED'), ['ACCEPTED'])
        row = self.row('tasks', attempt)
        self.assertEqual((row['state'], row['failure_reason'], row['start_count']), ('DEAD', 'FAILED', '2'))
        self.assertIsNotNone(row['end_time'])

    def test_a_failure_for_good_is_not_tried_again(self):
        attempt = self.worker().run()
        self.end(attempt, status='FAILED', reason='MERGE_CONFLICT', permanent=True)
        self.assertEqual((self.state(attempt), self.row('tasks', attempt)['failure_permanent']), ('FAILED', 't'))

    def test_the_agent_may_say_when(self):
        attempt = self.worker().run()
        self.end(attempt, status='FAILED', after='30 minutes')
        self.assertEqual(self.admin.value(
            f"SELECT next_attempt_time BETWEEN now() + interval '29 minutes' AND now() + interval '30 minutes'"
            f" FROM tasks WHERE task_id = '{attempt.task}'"), 't')

    def test_the_wait_doubles_up_to_an_hour(self):
        waits = [self.admin.value(f'SELECT extract(epoch FROM task_backoff({n}))::int')
                 for n in (0, 1, 2, 3, 9, 10, 1000)]
        self.assertEqual(waits, ['10', '10', '20', '40', '2560', '3600', '3600'])

    def test_a_result_that_comes_again_is_a_duplicate(self):
        attempt, result = self.worker().run(), str(uuid.uuid4())
        self.assertEqual(self.end(attempt, result_id=result), ['ACCEPTED'])
        self.assertEqual(self.end(attempt, result_id=result), ['DUPLICATE'])
        self.assertEqual(self.end(attempt, result_id=str(uuid.uuid4())), ['FENCED'])
        self.assertEqual(self.events(attempt)[-2:], ['RUNNING', 'SUCCEEDED'])

    def test_a_result_twice_in_one_batch_is_one_and_a_duplicate(self):
        """The agent's connection broke, and it sent the result again, before the first was written."""
        attempt, result = self.worker().run(), str(uuid.uuid4())
        self.assertEqual(sorted(self.end(attempt, attempt, result_id=result)), ['ACCEPTED', 'DUPLICATE'])

    def test_a_result_that_is_being_written_elsewhere_is_a_duplicate(self):
        """The same, with the first on another replica."""
        attempt, result, other = self.worker().run(), str(uuid.uuid4()), self.session()
        other.sql('BEGIN')
        self.assertEqual(self.end(attempt, result_id=result, session=other), ['ACCEPTED'])
        answers = []
        second = threading.Thread(target=lambda: answers.append(self.end(attempt, result_id=result)))
        second.start()
        self.wait_for_lock()
        other.sql('COMMIT')
        second.join()
        self.assertEqual(answers, [['DUPLICATE']])

    def test_a_result_of_an_attempt_that_was_taken_back_is_fenced(self):
        worker = self.worker()
        attempt = worker.run()
        self.set('task_leases', attempt, "lease_time = now() - interval '1 second'")
        self.tick()
        self.assertEqual(self.end(attempt), ['FENCED'])
        self.assertEqual(self.state(attempt), 'PENDING')

    def test_a_stop_that_nobody_asked_for_is_a_failure(self):
        attempt = self.worker().run(max_attempts=1)
        self.end(attempt, status='CANCELLED')
        self.assertEqual((self.state(attempt), self.row('tasks', attempt)['failure_reason']), ('DEAD', 'STOPPED'))

    def test_a_success_clears_the_failure_before(self):
        worker = self.worker()
        attempt = worker.run()
        self.end(attempt, status='FAILED', reason='RATE_LIMITED', after='0 seconds')
        again, = worker.claim()
        self.start(again)
        self.end(again)
        row = self.row('tasks', attempt)
        self.assertEqual((row['failure_reason'], row['failure_message'], row['failure_permanent']), ('', '', 'f'))


class Leases(ChannelCase):
    def test_renewal_extends_the_lease_and_tells_progress(self):
        attempt = self.worker().run()
        self.set('task_leases', attempt, "lease_time = now() + interval '1 second'")
        self.assertNotIn('LOST', self.tick(attempt, percent=40, step='pushing'))
        lease = self.row('task_leases', attempt)
        self.assertEqual((lease['progress_percent'], lease['progress_step']), ('40', 'pushing'))
        self.assertEqual(self.admin.value(f"SELECT lease_time > now() + interval '{LEASE}' - interval '5 seconds'"
                                          f" FROM task_leases WHERE task_id = '{attempt.task}'"), 't')

    def test_a_renewal_without_a_lease_is_told(self):
        worker = self.worker()
        attempt, other = worker.run(), self.worker()
        wrong = (attempt.but(fence=1 << 60), attempt, attempt.but(worker=other))
        lost = self.tick(*wrong)['LOST']
        self.assertEqual(self.items(lost), {1, 3})
        self.assertEqual((lost[0]['task_id'], lost[0]['attempt'], lost[0]['fence']),
                         (attempt.task, '1', str(1 << 60)))

    def test_an_offer_is_not_renewed(self):
        worker = self.worker()
        worker.open()
        self.task(worker.session)
        attempt, = worker.claim()
        self.assertEqual(self.items(self.tick(attempt)['LOST']), {1})

    def test_a_renewal_moves_the_lease_to_the_agents_replica(self):
        attempt, second = self.worker().run(), str(uuid.uuid4())
        self.tick(attempt, replica=second)
        self.assertEqual(self.row('task_leases', attempt)['replica_id'], second)

    def test_a_lost_lease_waits_and_is_dead_when_attempts_are_spent(self):
        worker = self.worker()
        attempt = worker.run(max_attempts=2)
        for state in ('PENDING', 'DEAD'):
            self.set('task_leases', attempt, "lease_time = now() - interval '1 second'")
            self.tick()
            row, told = self.row('tasks', attempt), self.row('task_attempts', attempt)
            self.assertEqual((row['state'], row['failure_reason'], row['failure_permanent'], told['outcome']),
                             (state, 'LEASE_LOST', 'f', 'LEASE_LOST'))
            self.assertIsNotNone(told['end_time'])
            if state == 'PENDING':
                self.assertIsNone(row['end_time'])
                self.set('tasks', attempt, 'next_attempt_time = now()')
                attempt, = worker.claim()
                self.start(attempt)
        self.assertIsNotNone(row['end_time'])

    def test_a_lease_that_holds_is_left_alone(self):
        attempt = self.worker().run()
        for _ in range(3):
            self.tick()
        self.assertEqual(self.state(attempt), 'RUNNING')

    def test_a_clock_that_is_set(self):
        """By an hour, ahead or back: the other replica lives, an attempt's lease lasts as before, and so does a wait."""
        worker, second = self.worker(), str(uuid.uuid4())
        attempt, waits = worker.run(), self.task(worker.session)
        for passed in ('1 hour', '-1 hour'):
            self.tick(replica=second), self.tick()
            for table, column in (('replicas', 'lease_time'), ('task_leases', 'lease_time'),
                                  ('tasks_live', 'next_attempt_time')):
                self.admin.sql(f"UPDATE {table} SET {column} = {column} - interval '{passed}'")
            self.assertEqual([row['other_replica_id'] for row in self.tick()['REPLICA']], [second])
            self.assertEqual(self.state(attempt), 'RUNNING')
            left = self.admin.value(f"SELECT extract(epoch FROM lease_time - now()) FROM task_leases"
                                    f" WHERE task_id = '{attempt.task}'")
            self.assertTrue(50 < float(left) <= 66, left)
            self.assertEqual(self.admin.value(f"SELECT next_attempt_time < now() + interval '5 seconds' FROM tasks"
                                              f" WHERE task_id = '{waits}'"), 't')

    def test_a_clock_that_nobody_looked_at(self):
        """A replica that is new cannot tell: what has lapsed meanwhile has."""
        attempt = self.worker().run()
        self.tick()
        for table in ('replicas', 'task_leases'):
            self.admin.sql(f"UPDATE {table} SET lease_time = lease_time - interval '1 hour'")
        self.tick(replica=str(uuid.uuid4()))
        self.assertEqual(self.state(attempt), 'PENDING')

    def test_waiting_tasks_are_told_by_their_organization(self):
        with_some, without = self.worker(), self.worker()
        without.run()
        self.task(with_some.session), self.task(with_some.session)
        self.assertEqual([row['organization_id'] for row in self.tick()['PENDING']], [with_some.tenant])

    def test_replicas_know_each_other(self):
        second = str(uuid.uuid4())
        self.assertEqual([row['other_replica_id'] for row in self.tick(replica=second)['REPLICA']], [self.replica])
        self.assertEqual([row['other_replica_id'] for row in self.tick()['REPLICA']], [second])
        self.system.rows('internal/leave_replica', replica_id=second)
        self.assertNotIn('REPLICA', self.tick())


class Effects(ChannelCase):
    def test_the_journal_is_handed_to_the_next_attempt(self):
        worker = self.worker()
        attempt = worker.run()
        self.assertEqual(self.note((attempt, 'branch', 'b'), (attempt, 'pull_request', '7')), {1, 2})
        self.end(attempt, status='FAILED', after='0 seconds')
        again, = worker.claim()
        self.assertEqual((worker.offers[0]['effect_keys'], worker.offers[0]['effect_references'],
                          worker.offers[0]['effect_attempts']), ('{branch,pull_request}', '{b,7}', '{1,1}'))
        self.start(again)
        self.assertEqual(self.note((again, 'branch', 'c')), {1})
        self.assertEqual(self.admin.value(f"SELECT string_agg(concat(key, reference, attempt), ',' ORDER BY key)"
                                          f" FROM task_effects WHERE task_id = '{attempt.task}'"),
                         'branchc2,pull_request71')

    def test_the_journal_outlives_a_retry(self):
        worker = self.worker()
        attempt = worker.run(max_attempts=1)
        self.note((attempt, 'branch', 'b'))
        self.end(attempt, status='FAILED')
        self.assertIsNone(self.retry(worker, attempt)['refusal'])
        worker.claim()
        self.assertEqual(worker.offers[0]['effect_keys'], '{branch}')

    def test_the_last_of_one_key_in_a_batch_counts(self):
        attempt = self.worker().run()
        self.assertEqual(self.note((attempt, 'k', '1'), (attempt, 'k', '2')), {1, 2})
        self.assertEqual(self.row('task_effects', attempt)['reference'], '2')

    def test_nothing_of_what_is_fenced_is_noted(self):
        worker = self.worker()
        worker.open()
        self.task(worker.session)
        offered, = worker.claim()
        self.assertEqual(self.note((offered, 'k', 'not started')), set())
        self.start(offered)
        other = self.worker(worker.session)
        self.assertEqual(self.note((offered.but(fence=offered.fence + 1), 'k', 'x'),
                                   (offered.but(worker=other), 'k', 'x')), set())
        self.end(offered)
        self.assertEqual(self.note((offered, 'k', 'ended')), set())
        self.assertIsNone(self.row('task_effects', offered))

    def test_a_task_has_at_most_100(self):
        attempt = self.worker().run()
        self.assertEqual(len(self.note(*((attempt, f'k{n}', '') for n in range(98)))), 98)
        # In one batch as well, and what is known already may still change.
        some = [(attempt, f'n{n}', '') for n in range(5)] + [(attempt, 'k1', 'changed')]
        self.assertEqual(self.note(*some), {1, 2, 6})
        self.assertEqual(self.admin.value(f"SELECT count(*) FROM task_effects WHERE task_id = '{attempt.task}'"), '100')


class Logs(ChannelCase):
    def log(self, attempt, stream=1):
        text = self.admin.value(f"SELECT coalesce(string_agg(data, '' ORDER BY log_offset), '') FROM task_logs"
                                f" WHERE task_id = '{attempt.task}' AND stream = {stream}")
        return bytes.fromhex(text[2:])

    def test_pieces_follow_each_other(self):
        attempt = self.worker().run()
        self.assertEqual(self.append((attempt, 1, 0, b'abc'), (attempt, 1, 3, b'de'), (attempt, 2, 0, b'\0\xff')),
                         [(5, 2)])
        self.assertEqual(self.append((attempt, 1, 5, b'f', True)), [(6, 2)])
        self.assertEqual((self.log(attempt), self.log(attempt, 2)), (b'abcdef', b'\0\xff'))
        self.assertEqual(self.row('task_attempts', attempt)['stdout_end'], '6')

    def test_a_hole_or_a_repeat_changes_nothing_and_tells_where_to_go_on(self):
        attempt = self.worker().run()
        self.append((attempt, 1, 0, b'abc'))
        for offset in (0, 2, 4, 1 << 40):
            self.assertEqual(self.append((attempt, 1, offset, b'xyz')), [(3, 0)])
        # All of an attempt's pieces, or none.
        self.assertEqual(self.append((attempt, 1, 3, b'def'), (attempt, 2, 1, b'x')), [(3, 0)])
        self.assertEqual(self.log(attempt), b'abc')

    def test_of_what_two_sessions_say_at_once_one_goes_in(self):
        attempt = self.worker().run()
        rows = self.append_rows((attempt, 1, 0, b'abc'), (attempt, 1, 0, b'ab', False, 2), (attempt, 1, 3, b'de'),
                                (attempt, 1, 2, b'c', True, 2))
        self.assertEqual(sorted(int(row['item']) for row in rows), [1, 2])
        self.assertEqual({row['stdout_offset'] for row in rows}, {str(len(self.log(attempt)))})
        self.assertIn(self.log(attempt), (b'abcde', b'abc'))

    def test_an_empty_piece_that_ends_it(self):
        attempt = self.worker().run()
        self.assertEqual(self.append((attempt, 2, 0, b'', True)), [(0, 0)])
        told = self.row('task_attempts', attempt)
        self.assertEqual((told['stdout_end'], told['stderr_end']), (None, '0'))
        self.assertIsNone(self.row('task_logs', attempt))

    def test_nothing_is_taken_behind_the_end_of_a_part(self):
        attempt = self.worker().run()
        self.append((attempt, 1, 0, b'abc', True))
        self.assertEqual(self.append((attempt, 1, 3, b'd')), [(3, 0)])
        self.assertEqual(self.append((attempt, 1, 3, b'', True), (attempt, 2, 0, b'e')), [(3, 1)])
        self.end(attempt, ends=(9, 3))
        self.assertEqual(self.append((attempt, 2, 1, b'fgh')), [(3, 1)], 'not even what is before the end')
        self.assertEqual(self.append((attempt, 2, 1, b'fg')), [(3, 3)])
        row = self.row('task_attempts', attempt)
        self.assertEqual((self.log(attempt), self.log(attempt, 2)), (b'abc', b'efg'))
        self.assertEqual((row['stdout_end'], row['stderr_end']), ('3', '3'), 'what was told first holds')

    def test_the_end_of_a_part_is_told_with_what_is_refused(self):
        attempt = self.worker().run()
        self.append((attempt, 2, 0, b'abc', True))
        row, = self.append_rows((attempt, 2, 3, b'd'))
        self.assertEqual((row['stdout_end'], row['stderr_end']), (None, '3'))

    def test_a_result_may_leave_an_end_open(self):
        attempt = self.worker().run()
        self.end(attempt, ends=(None, 0))
        self.assertEqual(self.append((attempt, 1, 0, b'abc')), [(3, 0)])
        self.assertEqual(self.append((attempt, 2, 0, b'abc')), [(3, 0)])

    def test_attempts_do_not_mind_each_other(self):
        organization = self.organization()
        one, two = self.worker(organization).run(), self.worker(organization).run()
        self.append((two, 1, 0, b'12'))
        self.assertEqual(sorted(self.append((one, 1, 0, b'a'), (two, 1, 0, b'x'))), [(1, 0), (2, 0)])

    def test_a_log_goes_on_after_the_result(self):
        attempt = self.worker().run()
        self.end(attempt, ends=(3, 0))
        self.assertEqual(self.append((attempt, 1, 0, b'abc')), [(3, 0)])

    def test_nothing_of_what_is_fenced_is_taken(self):
        worker = self.worker()
        attempt, other = worker.run(), self.worker(worker.session)
        nobody = [(None, None)]
        self.assertEqual(self.append((attempt.but(fence=attempt.fence + 1), 1, 0, b'x')), nobody)
        self.assertEqual(self.append((attempt.but(worker=other), 1, 0, b'x')), nobody)
        # Not in one batch with what is good either.
        self.assertEqual(sorted(self.append((attempt, 1, 0, b'abc'), (attempt.but(worker=other), 1, 0, b'x')),
                                key=str), [(3, 0), (None, None)])
        self.assertEqual(self.log(attempt), b'abc')

    def test_nothing_of_an_attempt_that_was_taken_back_is_taken(self):
        attempt = self.worker().run()
        self.append((attempt, 1, 0, b'abc'))
        self.set('task_leases', attempt, "lease_time = now() - interval '1 second'")
        self.tick()
        self.assertEqual(self.append((attempt, 1, 3, b'x')), [(None, None)])
        self.assertEqual(self.log(attempt), b'abc')

    def read(self, attempt, number=0, stream=0, stdout=0, stderr=0):
        return attempt.worker.session.rows('internal/read_task_log', task_id=attempt.task, attempt=number,
                                           log_stream=stream, stdout_offset=stdout, stderr_offset=stderr)

    def test_reading_begins_within_a_piece(self):
        attempt = self.worker().run()
        self.append((attempt, 1, 0, b'abc'), (attempt, 1, 3, b'def'), (attempt, 2, 0, b'err'))
        rows = self.read(attempt, stdout=4)
        self.assertEqual([(row['stream'], row['log_offset'], row['attempt']) for row in rows],
                         [('1', '3', '1'), ('2', '0', '1')])
        self.assertEqual([row['log_offset'] for row in self.read(attempt, stream=1)], ['0', '3'])
        none, = self.read(attempt, stream=1, stdout=6)
        self.assertEqual((none['data'], none['task_ended'], none['started'], none['attempt_ended']),
                         (None, 'f', 't', 'f'))
        self.assertEqual(self.read(attempt.but(task=str(uuid.uuid4()))), [])

    def test_reading_tells_that_more_of_an_ended_log_comes(self):
        attempt = self.worker().run()
        self.append((attempt, 1, 0, b'ab'))
        self.end(attempt, ends=(3, 0))
        self.assertEqual(self.read(attempt)[0]['more_comes'], 't')
        self.append((attempt, 1, 2, b'c'))
        row = self.read(attempt)[0]
        self.assertEqual((row['more_comes'], row['task_ended'], row['attempt_ended']), ('f', 't', 't'))


class Cancels(ChannelCase):
    def told(self, **options):
        return [(row['task_id'], row['mode'], row['grace_ms']) for row in self.tick(**options).get('CANCEL', [])]

    def test_an_offer_is_taken_back(self):
        worker = self.worker()
        worker.open()
        self.task(worker.session)
        attempt, = worker.claim()
        cancelled = self.cancel(worker, attempt)
        self.assertEqual((cancelled['refusal'], cancelled['state']), (None, 'CANCELLED'))
        self.assertIsNotNone(cancelled['end_time'])
        self.assertIsNone(self.row('task_leases', attempt))
        self.assertEqual((self.start(attempt), self.reject(attempt), self.end(attempt)), (set(), set(), ['FENCED']))
        self.assertEqual(self.events(attempt), ['PENDING', 'OFFERED', 'CANCELLED'])

    def test_what_runs_is_told_until_it_has_answered(self):
        worker = self.worker()
        attempt = worker.run()
        self.assertEqual(self.cancel(worker, attempt, grace='5 seconds')['state'], 'CANCELLING')
        for _ in range(2):
            self.assertEqual(self.told(), [(attempt.task, '1', '5000')])
        self.assertEqual([row['task_id'] for row in self.system.rows(
            'internal/find_cancels', replica_id=self.replica, organization_ids=[worker.tenant])], [attempt.task])
        self.assertEqual(self.system.rows('internal/find_cancels', replica_id=self.replica,
                                          organization_ids=[str(uuid.uuid4())]), [])
        self.assertEqual(self.answer(attempt, answer=1), {1})
        self.assertEqual(len(self.told()), 1, 'stopping is no end')
        self.assertEqual(self.answer(attempt, answer=2), {1})
        self.assertEqual((self.told(), self.row('tasks', attempt)['cancel_answer']), ([], '2'))
        self.assertEqual(self.end(attempt, status='CANCELLED'), ['ACCEPTED'])
        self.assertEqual((self.state(attempt), self.row('tasks', attempt)['failure_reason']), ('CANCELLED', ''))

    def test_the_other_replicas_agents_are_not_told_by_this_one(self):
        worker = self.worker()
        attempt = worker.run()
        self.cancel(worker, attempt)
        second = str(uuid.uuid4())
        self.assertEqual(self.told(replica=second), [])
        self.tick(attempt, replica=second)
        self.assertEqual((len(self.told(replica=second)), self.told()), (1, []))

    def test_a_cancel_that_comes_too_late(self):
        worker = self.worker()
        for status, state in (('SUCCEEDED', 'SUCCEEDED'), ('FAILED', 'FAILED')):
            attempt = worker.run()
            self.cancel(worker, attempt)
            self.answer(attempt, answer=3)
            self.assertEqual(self.end(attempt, status=status, reason='X'), ['ACCEPTED'])
            self.assertEqual(self.state(attempt), state, 'cancelling is never followed by another attempt')

    def test_a_cancelled_task_whose_agent_is_lost_is_not_confirmed(self):
        worker = self.worker()
        attempt = worker.run()
        self.cancel(worker, attempt)
        self.set('task_leases', attempt, "lease_time = now() - interval '1 second'")
        self.tick()
        row = self.row('tasks', attempt)
        self.assertEqual((row['state'], row['failure_reason']), ('CANCEL_UNCONFIRMED', 'LEASE_LOST'))
        self.assertIsNotNone(row['end_time'])
        self.assertIsNone(self.retry(worker, attempt)['refusal'])
        self.assertEqual(self.row('tasks', attempt)['cancel_mode'], None)

    def test_a_second_cancel_can_only_be_harder_and_quicker(self):
        worker = self.worker()
        attempt = worker.run()
        first = self.cancel(worker, attempt, mode='GRACEFUL', grace='20 seconds')
        same = self.cancel(worker, attempt, mode='GRACEFUL', grace='60 seconds')
        self.assertEqual(same | {'refusal_state': 'RUNNING'}, first)
        shorter = self.cancel(worker, attempt, grace='10 seconds')
        harder = self.cancel(worker, attempt, mode='FORCED', grace='60 seconds')
        last = self.cancel(worker, attempt, mode='GRACEFUL', grace='60 seconds')
        self.assertEqual([(c['cancellation.mode'], c['cancellation.grace']) for c in (first, shorter, harder, last)],
                         [('1', '00:00:20'), ('1', '00:00:10'), ('2', '00:00:10'), ('2', '00:00:10')])
        self.assertEqual(last, harder)
        self.assertEqual({c['cancellation.cancel_time'] for c in (first, shorter, harder)},
                         {first['cancellation.cancel_time']})
        self.assertEqual(self.events(attempt)[-1:], ['CANCELLING'])

    def test_a_cancel_that_says_no_grace_keeps_the_one_before(self):
        worker = self.worker()
        attempt = worker.run()
        first = self.cancel(worker, attempt, mode='GRACEFUL', grace='60 seconds')
        harder = self.cancel(worker, attempt, mode='FORCED')
        same = self.cancel(worker, attempt)
        self.assertEqual([c['cancellation.grace'] for c in (first, harder, same)], ['00:01:00'] * 3)
        self.assertEqual(same, harder)

    def test_a_result_answers_the_cancel(self):
        """Where the agent has not, or its answer comes behind its result."""
        worker = self.worker()
        for before in (None, 1, 2, 3):
            for status, told in (('CANCELLED', '2'), ('SUCCEEDED', '3'), ('FAILED', '3')):
                attempt = worker.run()
                self.cancel(worker, attempt)
                if before:
                    self.answer(attempt, answer=before)
                self.end(attempt, status=status)
                self.assertEqual(self.row('tasks', attempt)['cancel_answer'],
                                 str(before) if before in (2, 3) else told)
        attempt = worker.run()
        self.end(attempt)
        self.assertEqual(self.row('tasks', attempt)['cancel_answer'], '0', 'nobody has asked')

    def test_an_answer_is_not_taken_back(self):
        worker = self.worker()
        attempt = worker.run()
        self.cancel(worker, attempt)
        for answer, noted in ((1, '1'), (2, '2'), (1, '2'), (0, '2')):
            self.answer(attempt, answer=answer)
            self.assertEqual(self.row('tasks', attempt)['cancel_answer'], noted)

    def test_only_what_is_new_is_told_again(self):
        worker = self.worker()
        attempt = worker.run()
        self.cancel(worker, attempt, grace='20 seconds')
        self.set('task_leases', attempt, 'cancelling = false')  # as if it had been told for good
        self.cancel(worker, attempt, grace='30 seconds')
        self.assertEqual(self.told(), [])
        self.cancel(worker, attempt, mode='FORCED', grace='20 seconds')
        self.assertEqual(self.told(), [(attempt.task, '2', '20000')])
        self.answer(attempt, answer=2)
        self.cancel(worker, attempt, grace='1 second')
        self.assertEqual(self.told(), [], 'it has said that it has stopped')

    def test_a_cancel_sees_an_offer_and_a_start_that_are_being_written(self):
        """The cancel begins before they are committed, and waits: it must find the lease that they have made."""
        worker = self.worker()
        worker.open()
        for started, state in ((False, 'CANCELLED'), (True, 'CANCELLING')):
            task = self.task(worker.session)
            writer, same = self.session(), worker.session
            writer.sql('BEGIN')
            worker.session = writer
            attempt, = worker.claim()
            worker.session = same
            if started:
                self.assertEqual(self.start(attempt, session=writer), {1})
            answers = []
            cancel = threading.Thread(target=lambda: answers.append(self.cancel(worker, task)))
            cancel.start()
            self.wait_for_lock()
            writer.sql('COMMIT')
            cancel.join()
            self.assertEqual(answers[0]['state'], state)
            self.consistent()
            if started:
                self.assertEqual(self.told(), [(task, '1', '30000')])

    def test_an_answer_to_what_was_not_asked_is_not_noted(self):
        worker = self.worker()
        attempt = worker.run()
        self.assertEqual(self.answer(attempt, answer=2), set())
        self.cancel(worker, attempt)
        self.assertEqual(self.answer(attempt.but(fence=attempt.fence + 1), answer=2), set())
        self.assertEqual(self.answer(attempt.but(worker=self.worker(worker.session)), answer=2), set())
        self.assertEqual(len(self.told()), 1)


class Order(ChannelCase):
    """Rows are locked in one order, whatever order the items have: nobody waits in a circle."""

    def setUp(self):
        super().setUp()
        worker = self.worker()
        self.first, self.second = sorted((worker.run(), worker.run()), key=lambda attempt: attempt.task)
        for session in (self.system, worker.session):  # as on large tables: item by item, through the index
            for plan in ('hashjoin', 'mergejoin', 'seqscan', 'bitmapscan'):
                session.sql(f'SET enable_{plan} = off')

    def holds_nothing_while_it_waits(self, table, call):
        """Something else holds the first row; the call, whose items come the other way round, waits for it."""
        holder, witness = self.session(None), self.session(None)
        lock = lambda attempt, how: f"SELECT FROM {table} WHERE task_id = '{attempt.task}' FOR UPDATE {how}"
        holder.sql('BEGIN')
        holder.sql(lock(self.first, ''))
        answers = []
        waiter = threading.Thread(target=lambda: answers.append(call(self.second, self.first)))
        waiter.start()
        try:
            self.wait_for_lock()
            witness.sql(lock(self.second, 'NOWAIT'))
        finally:
            holder.sql('COMMIT')
            waiter.join()
        return answers[0]

    def test_sessions_of_a_replica_that_died(self):
        """One that begins anew holds its session's row, and wants its leases: who waits for the row has locked none."""
        self.admin.sql("UPDATE replicas SET lease_time = now() - interval '1 second'")
        holder, witness = self.session(None), self.session(None)
        holder.sql('BEGIN')
        holder.sql('SELECT FROM agent_sessions FOR UPDATE')
        waiter = threading.Thread(target=lambda: self.tick(self.first, self.second, replica=str(uuid.uuid4())))
        waiter.start()
        try:
            self.wait_for_lock()
            witness.sql('SELECT FROM task_leases FOR UPDATE NOWAIT')
        finally:
            holder.sql('COMMIT')
            waiter.join()

    def test_renewals(self):
        self.assertNotIn('LOST', self.holds_nothing_while_it_waits('task_leases', self.tick))

    def test_results(self):
        ended = lambda *attempts: self.end(*attempts)
        self.assertEqual(self.holds_nothing_while_it_waits('tasks', ended), ['ACCEPTED'] * 2)

    def test_results_and_leases(self):
        ended = lambda *attempts: self.end(*attempts)
        self.assertEqual(self.holds_nothing_while_it_waits('task_leases', ended), ['ACCEPTED'] * 2)

    def test_logs(self):
        append = lambda *attempts: self.append(*((attempt, 1, 0, b'x') for attempt in attempts))
        self.assertEqual(self.holds_nothing_while_it_waits('task_attempts', append), [(1, 0)] * 2)

    def test_results_and_attempts(self):
        ended = lambda *attempts: self.end(*attempts)
        self.assertEqual(self.holds_nothing_while_it_waits('task_attempts', ended), ['ACCEPTED'] * 2)

    def test_answers(self):
        worker = self.first.worker
        for attempt in (self.first, self.second):
            self.cancel(worker, attempt)
        answer = lambda *attempts: self.answer(*attempts, answer=2)
        self.assertEqual(self.holds_nothing_while_it_waits('tasks', answer), {1, 2})

    def test_sessions(self):
        worker = self.first.worker
        self.holds_nothing_while_it_waits('task_leases', lambda *attempts: worker.open(attempts))


if __name__ == '__main__':
    unittest.main()
