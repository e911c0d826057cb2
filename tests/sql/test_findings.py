"""The life of a finding: every transition that is allowed and every one that is not, expiry, regression, history."""
import unittest

from harness import DatabaseCase, import_records, literal, result

OPEN, ACKNOWLEDGED, ACCEPTED, RESOLVED = 'OPEN', 'ACKNOWLEDGED', 'ACCEPTED_RISK', 'RESOLVED'
# What a person may do, from which states, to which; and how the others are refused.
DECISIONS = {
    'acknowledge_finding': ({OPEN}, ACKNOWLEDGED, 'FINDING_NOT_OPEN'),
    'reopen_finding': ({ACKNOWLEDGED}, OPEN, 'FINDING_NOT_ACKNOWLEDGED'),
    'accept_risk': ({OPEN, ACKNOWLEDGED}, ACCEPTED, 'FINDING_NOT_ACCEPTABLE'),
    'withdraw_acceptance': ({ACCEPTED}, OPEN, 'FINDING_NOT_ACCEPTED'),
}


class Findings(DatabaseCase):
    def setUp(self):
        self.session_ = self.organization()
        self.account_ = self.account(self.session_)
        self.see('FAIL')
        self.finding = self.session_.value('SELECT finding_id FROM findings')

    def see(self, status):
        return import_records(self.session_, self.account_, [result('a', status=status)])

    def decide(self, decision, etag='', expire_time=None, reason='because'):
        return self.session_.call(f'finding_service/{decision}', finding_id=self.finding, etag=etag, note=reason,
                                  justification=reason, expire_time=expire_time)

    def get(self):
        return self.session_.call('finding_service/get_finding', finding_id=self.finding)

    def events(self):
        return [(e['from_state'], e['to_state'], e['actor'], e['scan'] is not None, e['reason']) for e in
                self.session_.rows('finding_service/list_finding_events', finding_id=self.finding, page_limit=100,
                                   after_event_time=None, after_version=None)]

    def bring_to(self, state):
        {OPEN: lambda: None, ACKNOWLEDGED: lambda: self.decide('acknowledge_finding'),
         ACCEPTED: lambda: self.decide('accept_risk'), RESOLVED: lambda: self.see('PASS')}[state]()
        self.assertEqual(self.get()['state'], state)

    def expire(self):
        """Lets the acceptance's time pass, unnoticed by any trigger."""
        admin = self.session(None)
        admin.sql("SET session_replication_role = replica")
        admin.sql("UPDATE findings SET acceptance_expire_time = now() - interval '1 minute',"
                  f" accept_time = now() - interval '1 hour' WHERE finding_id = {literal(self.finding)}")

    def test_every_transition(self):
        for decision, (allowed, to, refusal) in DECISIONS.items():
            for state in (OPEN, ACKNOWLEDGED, ACCEPTED, RESOLVED):
                with self.subTest(decision=decision, state=state):
                    self.setUp()
                    self.bring_to(state)
                    before, history = self.get(), self.events()
                    answer = self.decide(decision)
                    if state in allowed:
                        self.assertIsNone(answer['refusal'])
                        self.assertEqual({c: answer[c] for c in before}, self.get())
                        self.assertEqual(answer['state'], to)
                        self.assertEqual(answer['note'], 'because')
                        self.assertNotEqual(answer['etag'], before['etag'])
                        self.assertEqual(self.events(), history + [(state, to, 'user:anna', False, 'because')])
                    else:
                        self.assertEqual((answer['refusal'], answer['refusal_state']), (refusal, state))
                        self.assertEqual((self.get(), self.events()), (before, history))

    def test_etag_and_no_such_finding(self):
        etag = self.get()['etag']
        self.assertIsNone(self.decide('acknowledge_finding', etag=etag)['refusal'])
        stale = self.decide('reopen_finding', etag=etag)
        self.assertEqual((stale['refusal'], stale['name']), ('ETAG_MISMATCH', None))
        self.finding = '00000000-0000-7000-8000-000000000000'
        self.assertIsNone(self.decide('acknowledge_finding'))

    def test_acceptance(self):
        accepted = self.decide('accept_risk', expire_time='2099-01-01 00:00+00', reason='Known.')
        self.assertEqual((accepted['acceptance.approver'], accepted['acceptance.justification'],
                          accepted['acceptance.expire_time']), ('user:anna', 'Known.', '2099-01-01 00:00:00+00'))
        withdrawn = self.decide('withdraw_acceptance')
        self.assertEqual([withdrawn[c] for c in withdrawn if c.startswith('acceptance')], [None] * 4)

    def test_expiry_holds_before_anybody_writes_it_down(self):
        self.decide('accept_risk', expire_time='2099-01-01 00:00+00')
        self.expire()
        finding = self.get()
        self.assertEqual((finding['state'], finding['acceptance.approver'], finding['note']), (OPEN, None, None))
        listed, = self.session_.rows('finding_service/list_findings', page_limit=9, after_severity=None,
                                     after_finding_id=None)
        self.assertEqual(listed['state'], OPEN)
        resource, = self.session_.rows('resource_service/list_resources', page_limit=9, after_resource_id=None)
        self.assertEqual((resource['active_findings.high'], resource['active_findings.medium']), ('1', '0'))
        self.assertEqual(self.decide('withdraw_acceptance')['refusal'], 'FINDING_NOT_ACCEPTED')

    def test_a_person_who_acts_on_an_expired_acceptance(self):
        self.decide('accept_risk', expire_time='2099-01-01 00:00+00')
        self.expire()
        self.assertEqual(self.decide('acknowledge_finding')['state'], ACKNOWLEDGED)
        self.assertEqual([e[:3] for e in self.events()],
                         [(ACCEPTED, OPEN, 'system'), (None, OPEN, 'user:anna'), (OPEN, ACCEPTED, 'user:anna'),
                          (OPEN, ACKNOWLEDGED, 'user:anna')])  # in the order of times, and the expiry was set back
        self.assertEqual(self.get()['acceptance.approver'], None)

    def test_the_sweep_writes_an_expiry_down(self):
        self.session_.call('internal/sweep', row_limit=100)  # what other tests have left
        self.decide('accept_risk', expire_time='2099-01-01 00:00+00')
        self.expire()
        before = self.get()
        swept = self.session_.call('internal/sweep', row_limit=100)
        self.assertEqual(swept['expired'], '1')
        after = self.get()
        self.assertEqual({k: v for k, v in after.items() if k not in ('etag', 'update_time', 'note')},
                         {k: v for k, v in before.items() if k not in ('etag', 'update_time', 'note')})
        self.assertIn((ACCEPTED, OPEN, 'system', False, 'expired'), self.events())
        self.assertEqual(self.session_.call('internal/sweep', row_limit=100)['expired'], '0')

    def test_a_scan_that_meets_an_expired_acceptance(self):
        self.decide('accept_risk', expire_time='2099-01-01 00:00+00')
        self.expire()
        self.see('PASS')
        events = self.events()
        self.assertIn((ACCEPTED, OPEN, 'system', False, 'expired'), events)
        self.assertEqual(events[-1], (OPEN, RESOLVED, 'user:anna', True, 'passed'))

    def test_no_row_is_written_with_an_expired_acceptance(self):
        self.decide('accept_risk', expire_time='2099-01-01 00:00+00')
        self.expire()
        import_records(self.session_, self.account_, [result('a', detail='The same, in other words.')])
        row, = self.session_.sql('SELECT state, approver, justification, accept_time, acceptance_expire_time'
                                 f' FROM findings WHERE finding_id = {literal(self.finding)}')
        self.assertEqual(list(row.values()), [OPEN, None, None, None, None])
        self.assertEqual(sorted(e[:3] for e in self.events() if e[0]),
                         [(ACCEPTED, OPEN, 'system'), (OPEN, ACCEPTED, 'user:anna')])

    def test_a_regression(self):
        self.decide('acknowledge_finding')
        self.assertEqual(self.see('PASS')['findings.passed'], '1')
        resolved = self.get()
        self.assertEqual((resolved['state'], resolved['note']), (RESOLVED, None))
        self.assertIsNotNone(resolved['resolve_time'])
        self.assertEqual(self.see('PASS')['findings.passed'], '0')
        self.assertEqual(self.see('FAIL')['findings.regressed'], '1')
        again = self.get()
        self.assertEqual((again['state'], again['regression_count'], again['resolve_time']), (OPEN, '1', None))
        self.assertEqual([e[:2] + e[4:] for e in self.events()],
                         [(None, OPEN, 'found'), (OPEN, ACKNOWLEDGED, 'because'), (ACKNOWLEDGED, RESOLVED, 'passed'),
                          (RESOLVED, OPEN, 'found again')])

    def test_an_acceptance_outlives_a_resolve(self):
        self.decide('accept_risk', expire_time='2099-01-01 00:00+00')
        self.see('PASS')
        self.assertEqual((self.get()['state'], self.get()['acceptance.approver']), (RESOLVED, 'user:anna'))
        self.see('FAIL')
        self.assertEqual((self.get()['state'], self.get()['acceptance.approver']), (ACCEPTED, 'user:anna'))
        self.see('PASS')
        self.expire()
        self.assertEqual(self.get()['acceptance.approver'], None)
        self.see('FAIL')
        self.assertEqual((self.get()['state'], self.get()['regression_count']), (OPEN, '2'))

    def test_the_history_is_in_the_order_of_the_changes(self):
        waited = self.session()
        waited.tenant, waited.caller = self.session_.tenant, self.session_.caller
        waited.send("\\set organization_slug '''acme'''")
        waited.sql('BEGIN')
        waited.sql('SELECT now()')
        self.decide('acknowledge_finding')
        waited.call('finding_service/reopen_finding', finding_id=self.finding, etag='', note='')
        waited.sql('COMMIT')
        self.assertEqual([event[:2] for event in self.events()], [(None, OPEN), (OPEN, ACKNOWLEDGED),
                                                                  (ACKNOWLEDGED, OPEN)])

    def test_last_seen_time(self):
        see = lambda status, day: import_records(self.session_, self.account_, [result('a', status=status)],
                                                 scan_time=f'2026-12-{day} 00:00+00')
        see('FAIL', '01')
        see('FAIL', '02')
        self.assertEqual(self.get()['last_seen_time'], '2026-12-02 00:00:00+00')
        self.assertEqual(self.get()['etag'], '1')
        see('PASS', '03')
        see('PASS', '04')
        self.assertEqual(self.get()['last_seen_time'], '2026-12-02 00:00:00+00')

    def test_decisions_are_audited(self):
        self.decide('accept_risk', reason='Known.')
        row, = self.session_.rows('audit_service/list_audit_events', page_limit=1, after_event_time=None,
                                  after_audit_event_id=None)
        self.assertEqual([row[c] for c in ('caller', 'method', 'operation', 'collection', 'resource_uid', 'row_count')],
                         ['user:anna', 'finding_service/accept_risk', 'UPDATE', 'findings', self.finding, '1'])
        self.assertIn('"state": ["OPEN", "ACCEPTED_RISK"]', row['changes_json'])

    def test_pages(self):
        import_records(self.session_, self.account_,
                       [result(f'c{n}', severity=2 + n % 3) for n in range(7)] + [result('a')])
        whole = self.session_.rows('finding_service/list_findings', page_limit=1000, after_severity=None,
                                   after_finding_id=None)
        self.assertEqual(len(whole), 8)
        key = lambda f: (int(f['severity']), f['uid'])
        self.assertEqual(sorted(whole, key=key, reverse=True), whole)
        pages, after = [], (None, None)
        while page := self.session_.rows('finding_service/list_findings', page_limit=3, after_severity=after[0],
                                         after_finding_id=after[1]):
            pages += page
            after = page[-1]['after_severity'], page[-1]['after_finding_id']
        self.assertEqual(pages, whole)


if __name__ == '__main__':
    unittest.main()
