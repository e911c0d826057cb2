"""Imports: batches, leases, coverage, partial scans, descriptions, identities."""
import unittest

from harness import DatabaseCase, Import, import_records, literal, result


def states(session):
    """From (check, resource uid) to state."""
    return {(r['check'], r['resource_uid']): r['state'] for r in
            session.rows('finding_service/list_findings', page_limit=1000, after_severity=None, after_finding_id=None)}


class Imports(DatabaseCase):
    def setUp(self):
        self.session_ = self.organization()
        self.account_ = self.account(self.session_)

    def scan(self, *records, **header):
        return import_records(self.session_, self.account_, list(records), **header)

    # Batches and leases.

    def test_a_batch_sent_twice_counts_once(self):
        import_ = Import(self.session_, self.account_)
        records = [result('a'), result('b', status='PASS')]
        for _ in range(2):
            ack = import_.batch(1, records)
            self.assertEqual((ack['refusal'], ack['next_record']), (None, '3'))
        scan = import_.end(2)
        self.assertEqual((scan['results.fail'], scan['results.pass'], scan['findings.created']), ('1', '1', '1'))

    def test_a_gap_and_an_overlap_are_refused(self):
        import_ = Import(self.session_, self.account_)
        import_.batch(1, [result('a'), result('b')])
        for first in (4, 2):
            ack = import_.batch(first, [result('c'), result('d')])
            self.assertEqual((ack['refusal'], ack['refusal_next_record']), ('BATCH_OUT_OF_ORDER', '3'))

    def test_the_end_counts_the_records(self):
        import_ = Import(self.session_, self.account_)
        import_.batch(1, [result('a')])
        end = import_.end(5)
        self.assertEqual((end['refusal'], end['refusal_next_record'], end['name']), ('IMPORT_INCOMPLETE', '2', None))
        self.assertEqual(states(self.session_), {})
        self.assertIsNone(import_.end(1)['refusal'])
        self.assertEqual(import_.end(1)['refusal'], 'SCAN_NOT_RUNNING')
        self.assertEqual(import_.batch(2, [result('b')])['refusal'], 'SCAN_NOT_RUNNING')

    def test_the_same_request_goes_on(self):
        request = self.session_.value('SELECT gen_random_uuid()')
        first = Import(self.session_, self.account_, request_id=request)
        first.batch(1, [result('a'), result('b')])
        again = Import(self.session_, self.account_, request_id=request)
        self.assertEqual((again.scan, again.started['next_record']), (first.scan, '3'))
        self.assertEqual(again.end(2)['results.fail'], '2')

    def test_one_running_scan_for_an_account(self):
        first = Import(self.session_, self.account_)
        second = Import(self.session_, self.account_)
        self.assertEqual(second.started['refusal'], 'SCAN_RUNNING')
        self.session_.rows('internal/release_import', scan_id=first.scan)
        third = Import(self.session_, self.account_)
        self.assertIsNone(third.started['refusal'])
        scan = self.session_.call('scan_service/get_scan', scan_id=first.scan)
        self.assertEqual((scan['state'], scan['failure']), ('FAILED', 'abandoned'))
        self.assertEqual(first.batch(1, [result('a')])['refusal'], 'SCAN_NOT_RUNNING')

    def test_no_such_account(self):
        self.assertIsNone(Import(self.session_, '00000000-0000-7000-8000-000000000000').started)

    def test_staging_lost_in_a_crash_begins_again(self):
        request = self.session_.value('SELECT gen_random_uuid()')
        first = Import(self.session_, self.account_, request_id=request)
        first.batch(1, [result('a')])
        self.session(None).sql('TRUNCATE import_runs, import_batches')  # as PostgreSQL does after a crash
        self.assertEqual(first.batch(2, [result('b')])['refusal'], 'SCAN_NOT_RUNNING')
        again = Import(self.session_, self.account_, request_id=request)
        self.assertEqual((again.scan, again.started['next_record']), (first.scan, '1'))

    def test_nothing_is_seen_before_the_end(self):
        Import(self.session_, self.account_).batch(1, [result('a')])
        self.assertEqual(states(self.session_), {})
        self.assertEqual(self.session_.rows('resource_service/list_resources', page_limit=9, after_resource_id=None),
                         [])

    # What a scan resolves.

    def test_absent_is_resolved_where_the_pair_is_reported(self):
        self.scan(result('a', 'r1'), result('a', 'r2'), result('b', 'r1'))
        scan = self.scan(result('a', 'r1'))
        self.assertEqual(states(self.session_), {('a', 'r1'): 'OPEN', ('a', 'r2'): 'RESOLVED', ('b', 'r1'): 'OPEN'})
        self.assertEqual((scan['findings.unreported'], scan['findings.unchanged']), ('1', '1'))

    def test_whole_account(self):
        self.scan(result('a', 'r1'), result('b', 'r1'))
        self.scan(result('a', 'r1'), extent='WHOLE_ACCOUNT')
        self.assertEqual(states(self.session_), {('a', 'r1'): 'OPEN', ('b', 'r1'): 'RESOLVED'})
        # The pair that was resolved without a result is not taken for unchanged when the same results come back.
        again = self.scan(result('a', 'r1'), result('b', 'r1'))
        self.assertEqual(states(self.session_)['b', 'r1'], 'OPEN')
        self.assertEqual((again['findings.regressed'], again['findings.unchanged']), ('1', '1'))

    def test_listed_services_and_regions(self):
        self.scan(result('a', 'r1'), result('b', 'r1', region='us-east-1'), result('c', 'r1', service='s3'),
                  result('d', 'r1', service='iam', region='us-east-1'))
        self.scan(extent='LISTED', services=['ec2', 'iam'], regions=['eu-west-1'])
        self.assertEqual(states(self.session_), {('a', 'r1'): 'RESOLVED', ('b', 'r1'): 'OPEN', ('c', 'r1'): 'OPEN',
                                                 ('d', 'r1'): 'RESOLVED'})
        # Results beside what is listed count, but resolve by passing only.
        self.scan(result('c', 'r2', service='s3'), result('b', 'r1', 'PASS', region='us-east-1'), extent='LISTED',
                  services=['ec2'])
        self.assertEqual(states(self.session_)['c', 'r1'], 'OPEN')
        self.assertEqual(states(self.session_)['c', 'r2'], 'OPEN')
        self.assertEqual(states(self.session_)['b', 'r1'], 'RESOLVED')

    def test_interrupted_resolves_what_passed(self):
        self.scan(result('a', 'r1'), result('a', 'r2'), result('a', 'r3'), scan_time='2026-11-01 00:00+00')
        scan = self.scan(result('a', 'r1', 'PASS'), result('a', 'r2'), interrupted=True,
                         scan_time='2026-11-02 00:00+00')
        self.assertEqual((scan['partial'], scan['findings.passed'], scan['findings.unreported']), ('t', '1', '0'))
        self.assertEqual(states(self.session_), {('a', 'r1'): 'RESOLVED', ('a', 'r2'): 'OPEN', ('a', 'r3'): 'OPEN'})
        seen = {f['resource_uid']: f['last_seen_time'][:10] for f in self.session_.rows(
            'finding_service/list_findings', page_limit=9, after_severity=None, after_finding_id=None)}
        self.assertEqual(seen, {'r1': '2026-11-01', 'r2': '2026-11-02', 'r3': '2026-11-01'})
        # The same results, whole this time.
        scan = self.scan(result('a', 'r1', 'PASS'), result('a', 'r2'), scan_time='2026-11-03 00:00+00')
        self.assertEqual((scan['findings.unreported'], scan['findings.unchanged']), ('1', '1'))

    def test_a_refused_record_makes_a_scan_partial(self):
        self.scan(result('a', 'r1'), result('a', 'r2'))
        import_ = Import(self.session_, self.account_)
        import_.batch(1, [result('a', 'r1')], refused=[2])
        scan = import_.end(2)
        self.assertEqual((scan['partial'], scan['results.refused'], scan['results.fail']), ('t', '1', '1'))
        self.assertEqual(states(self.session_)['a', 'r2'], 'OPEN')

    def test_manual_leaves_a_finding_as_it_is_and_counts_as_seen(self):
        self.scan(result('a'), scan_time='2026-11-01 00:00+00')
        scan = self.scan(result('a', status='MANUAL'), scan_time='2026-11-02 00:00+00')
        self.assertEqual((scan['findings.unchanged'], scan['results.manual']), ('1', '1'))
        finding, = self.session_.rows('finding_service/list_findings', page_limit=9, after_severity=None,
                                      after_finding_id=None)
        self.assertEqual((finding['state'], finding['last_seen_time'][:10]), ('OPEN', '2026-11-02'))
        self.assertEqual(self.scan(result('a', status='MANUAL'))['findings.unchanged'], '1')

    def test_an_empty_scan(self):
        self.scan(result('a'))
        scan = self.scan()
        self.assertEqual((scan['state'], scan['pair_count']), ('COMPLETED', '0'))
        self.assertEqual(states(self.session_), {('a', 'res-1'): 'OPEN'})

    # Identity.

    def test_several_records_of_one_check_on_one_resource(self):
        self.scan(result('a', name='key 2', detail='old'), result('a', name='key 1', detail='older'),
                  result('a', name='key 1', detail='none', status='PASS'))
        rows = self.session_.sql('SELECT ordinal, status_detail FROM findings ORDER BY ordinal')
        self.assertEqual([tuple(r.values()) for r in rows], [('1', 'older'), ('2', 'old')])
        again = self.scan(result('a', name='key 1', detail='none', status='PASS'),
                          result('a', name='key 1', detail='older'), result('a', name='key 2', detail='old'))
        self.assertEqual((again['findings.unchanged'], again['findings.created']), ('2', '0'))

    def test_the_region_of_a_global_service_tells_nothing_apart(self):
        self.scan(result('a', service='iam', region='us-east-1'), result('b', region='us-east-1'))
        scan = self.scan(result('a', service='iam', region='eu-west-1'), result('b', region='eu-west-1'))
        self.assertEqual((scan['findings.unchanged'], scan['findings.created'], scan['findings.unreported']),
                         ('1', '1', '0'))
        self.assertEqual(self.session_.value("SELECT region FROM resources WHERE scope_region = ''"), 'us-east-1')

    def test_two_accounts_share_nothing(self):
        other = self.account(self.session_, '210987654321')
        self.scan(result('a'))
        scan = import_records(self.session_, other, [result('a', status='PASS')], extent='WHOLE_ACCOUNT')
        self.assertEqual(scan['findings.passed'], '0')
        self.assertEqual(states(self.session_), {('a', 'res-1'): 'OPEN'})

    def test_texts_of_any_length_and_content(self):
        nasty = ['', 'x' * 4000, 'x' * 3999 + 'y', 'a,b|"c"\\', '\x01\x7f<b>=cmd()', '結算 🔑',
                 "' OR 1=1 --", '{a,NULL}']
        self.scan(*(result('a', uid, detail='d' * 16000) for uid in nasty))
        self.assertEqual({uid for _, uid in states(self.session_)}, set(nasty))
        self.assertEqual(self.scan(*(result('a', uid, detail='d' * 16000) for uid in nasty))['findings.unchanged'], '8')

    # Descriptions.

    def describe(self, name, metadata, **more):
        record = result('a', **more)
        record['resource'] = {'uid': 'res-1', 'region': 'eu-west-1', 'display_name': name, 'type': 'T', 'service': 's',
                              'labels': ['k:v:w'], 'metadata_json': metadata}
        record['check'] = {'check': 'a', 'service': 'ec2', 'title': f'Title of {name}', 'description': '', 'risk': '',
                           'remediation': '', 'reference_urls': ['https://example.com'], 'compliance_json': '{}'}
        return record

    def test_the_order_of_descriptions_decides_nothing(self):
        records = [self.describe('B', '{"a": 1}'), self.describe('C', '{"a": 2}', detail='Two'),
                   self.describe('A', '{}', detail='Three')]
        self.scan(*records)
        before = self.session_.sql('SELECT * FROM resources'), self.session_.sql('SELECT * FROM checks')
        self.assertEqual((before[0][0]['display_name'], before[0][0]['labels']), ('B', '{k:v:w}'))
        self.scan(*reversed(records))
        after = self.session_.sql('SELECT * FROM resources'), self.session_.sql('SELECT * FROM checks')
        self.assertEqual(after, before)

    def test_a_resource_of_a_global_service_is_described_under_any_region(self):
        record = self.describe('Root', '{}', service='iam', region='us-east-1')
        record['resource']['region'] = 'us-east-1'
        self.scan(record)
        self.assertEqual(self.session_.sql('SELECT display_name, scope_region, region FROM resources'),
                         [{'display_name': 'Root', 'scope_region': '', 'region': 'us-east-1'}])

    def test_a_changed_description_is_written_where_no_result_changed(self):
        self.scan(self.describe('A', '{}'))
        scan = self.scan(self.describe('B', '{}'))
        self.assertEqual(scan['findings.unchanged'], '1')
        finding, = self.session_.rows('finding_service/list_findings', page_limit=9, after_severity=None,
                                      after_finding_id=None)
        self.assertEqual((finding['resource_display_name'], finding['title']), ('B', 'Title of B'))
        self.scan(result('a'))  # not described: what is known stays
        self.assertEqual(self.session_.value('SELECT display_name FROM resources'), 'B')

    def test_what_nobody_describes_is_known_by_its_key(self):
        self.scan(result('a'))
        finding, = self.session_.rows('finding_service/list_findings', page_limit=9, after_severity=None,
                                      after_finding_id=None)
        self.assertEqual((finding['title'], finding['service'], finding['resource_display_name']), ('', 'ec2', ''))
        self.scan(self.describe('A', '{}'))
        self.assertEqual(self.session_.value('SELECT title FROM checks'), 'Title of A')

    # What a scan writes.

    def test_the_scanner_owns_its_words(self):
        self.scan(result('a', severity=4, detail='x'))
        finding = self.session_.value('SELECT finding_id FROM findings')
        self.session_.call('finding_service/acknowledge_finding', finding_id=finding, note='on it', etag='')
        self.scan(result('a', severity=6, detail='y', muted=True))
        after = self.session_.call('finding_service/get_finding', finding_id=finding)
        self.assertEqual([after[c] for c in ('severity', 'status_detail', 'muted', 'state', 'note')],
                         ['6', 'y', 't', 'ACKNOWLEDGED', 'on it'])
        self.assertEqual(len(self.session_.rows('finding_service/list_finding_events', finding_id=finding, page_limit=9,
                                                after_event_time=None, after_version=None)), 2)

    def test_an_import_is_one_audit_record(self):
        self.scan(result('a'), result('b'))
        self.scan(result('a', status='PASS'), result('b'))
        rows = self.session_.sql("SELECT collection, operation, row_count FROM audit_events"
                                 " WHERE method LIKE 'internal/%'")
        self.assertEqual([tuple(r.values()) for r in rows], [('scans', 'INSERT', '1')] * 2)

    def test_a_quiet_rescan_writes_next_to_nothing(self):
        records = [result(f'check-{n % 5}', f'res-{n}') for n in range(2000)]
        written = []
        for _ in range(2):
            import_ = Import(self.session_, self.account_)
            import_.send(records)
            written.append(self.session_.wal_bytes('internal/complete_import', scan_id=import_.scan,
                                                   record_count=len(records), interrupted=False))
        self.assertGreater(written[0], 20 * len(records))
        self.assertLess(written[1], 20 * len(records))

    def test_the_staging_area_is_emptied(self):
        self.scan(result('a'))
        admin = self.session(None)
        self.assertEqual(admin.value(f"SELECT count(*) FROM import_batches WHERE organization_id = "
                                     f"{literal(self.session_.tenant)}"), '0')
        self.assertEqual(admin.value(f"SELECT count(*) FROM import_runs WHERE organization_id = "
                                     f"{literal(self.session_.tenant)}"), '0')

    def test_coverage_knows_how_many_are_active(self):
        """active_count and digests agree with the findings, whatever was imported."""
        import random
        chance = random.Random(1)
        for _ in range(12):
            records = [result(f'c{c}', f'r{r}', chance.choice(('PASS', 'FAIL', 'FAIL', 'MANUAL')))
                       for c in range(3) for r in range(6) if chance.random() < 0.7]
            scan = self.scan(*records, interrupted=chance.random() < 0.3,
                             extent=chance.choice((None, 'WHOLE_ACCOUNT')))
            wrong = self.session_.sql("""
                SELECT v.check_id, v.active_count, count(f) FROM account_coverage v
                  LEFT JOIN (SELECT f.*, r.scope_region FROM findings f
                               JOIN resources r USING (organization_id, cloud_account_id, resource_id)
                              WHERE f.state <> 'RESOLVED') f
                 USING (organization_id, cloud_account_id, check_id, scope_region)
                 GROUP BY v.check_id, v.active_count HAVING count(f) <> v.active_count""")
            self.assertEqual(wrong, [])
            self.assertEqual(self.session_.value("""
                SELECT count(*) FROM findings f JOIN resources r USING (organization_id, resource_id)
                 WHERE NOT EXISTS (SELECT FROM account_coverage v WHERE v.cloud_account_id = f.cloud_account_id
                                      AND v.check_id = f.check_id AND v.scope_region = r.scope_region)"""), '0')
            expected = {(r['result']['check'], r['result']['resource_uid']) for r in records
                        if r['result']['status'] == 2}
            failing = {k for k, v in states(self.session_).items() if v != 'RESOLVED'}
            self.assertLessEqual(expected, failing)
            passed = {(r['result']['check'], r['result']['resource_uid']) for r in records
                      if r['result']['status'] == 1}
            self.assertFalse(passed & failing)
            if scan['partial'] == 'f' and scan['coverage.extent'] == 'WHOLE_ACCOUNT':
                seen = {(r['result']['check'], r['result']['resource_uid']) for r in records}
                self.assertLessEqual(failing, seen)

    def test_a_finding_costs_one_look_at_its_resource(self):
        """The foreign key's plan is kept with the session, and may have been made while there was next to nothing."""
        def reads():
            self.session_.sql('SELECT pg_stat_force_next_flush()')
            return int(self.session_.value(
                "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'resources'"))
        self.scan(result('a'))
        before = reads()
        self.scan(*(result('a', f'r{r}') for r in range(3000)))
        self.assertLess(reads() - before, 3 * 3000)


if __name__ == '__main__':
    unittest.main()
