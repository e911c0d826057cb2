"""The real scans, imported in their order, lead to what was worked out from the files alone."""
import hashlib
import json
import unittest

from harness import DATA, DatabaseCase, import_records, read_ocsf

SCANS = ['aws-123456789012-scan1', 'aws-123456789012-scan2', 'aws-123456789012-scan3-partial-s3-iam']
FAILING = "'OPEN', 'ACKNOWLEDGED'"


def digest(rows):
    return hashlib.sha256('\n'.join(json.dumps(r, ensure_ascii=False) for r in sorted(rows)).encode()).hexdigest()


@unittest.skipUnless(DATA.is_dir(), f'no scan results in {DATA}')
class RealScans(DatabaseCase):
    def findings(self, session, condition):
        """Identities, as expected.json writes them."""
        rows = session.sql(f"""
            SELECT a.account_uid, c.check_key, r.resource_uid, r.region, f.ordinal
              FROM findings f JOIN cloud_accounts a USING (organization_id, cloud_account_id)
              JOIN resources r USING (organization_id, cloud_account_id, resource_id)
              JOIN checks c USING (organization_id, check_id)
             WHERE {condition}""")
        return {(*list(row.values())[:4], int(row['ordinal'])) for row in rows}

    def agree(self, key, rows):
        if key in self.expected['lists']:
            self.assertEqual(sorted(rows), [tuple(identity) for identity in self.expected['lists'][key]], key)
        self.assertEqual(len(rows), self.expected['counts'][key], key)
        self.assertEqual(digest(rows), self.expected['sha256_of_sorted_json_lines'][key], key)

    def test_three_scans(self):
        with open(DATA / 'expected.json', encoding='utf-8') as file:
            self.expected = json.load(file)['modes']['ordinal']
        counts = self.expected['counts']
        session = self.organization()
        account = self.account(session)
        for number, name in enumerate(SCANS, 1):
            with self.subTest(name):
                scan = import_records(session, account, list(read_ocsf(name)), scan_time=f'2026-11-2{number} 12:00+00')
                tag, uid = f'scan{number}', scan['uid']
                made = f"f.state_scan_id = '{uid}'"
                event = lambda c: f"""EXISTS (SELECT FROM finding_events e WHERE e.organization_id = f.organization_id
                    AND e.finding_id = f.finding_id AND e.scan_id = '{uid}' AND {c})"""
                self.assertEqual(scan['state'], 'COMPLETED')
                self.assertEqual(int(scan['pair_count']), self.expected['coverage'][f'{tag}_pairs'])
                self.assertEqual(int(scan['results.pass']) + int(scan['results.fail']) + int(scan['results.manual']),
                                 counts[f'{tag}.identities'])
                self.assertEqual(int(scan['results.fail']), counts[f'{tag}.fail'])
                active = self.findings(session, f'f.state IN ({FAILING})')
                seen = self.findings(session, f"""f.state IN ({FAILING}) AND EXISTS (
                    SELECT FROM account_coverage v WHERE v.cloud_account_id = f.cloud_account_id
                     AND v.check_id = f.check_id AND v.scope_region = r.scope_region AND v.scan_id = '{uid}')""")
                self.agree(f'{tag}.fail', seen)
                if number == 1:
                    self.assertEqual(int(scan['findings.created']), counts['scan1.fail'])
                    self.assertEqual(active, seen)
                    continue
                self.agree(f'{tag}.open_after', active)
                self.agree(f'{tag}.new_fail', self.findings(session, made + " AND f.state = 'OPEN'"))
                self.agree(f'{tag}.resolved_now_pass', self.findings(session, made + " AND f.state_reason = 'passed'"))
                self.agree(f'{tag}.absent_pair_covered_may_be_resolved',
                           self.findings(session, made + " AND f.state_reason = 'not reported'"))
                self.agree(f'{tag}.still_failing', seen - self.findings(session, event("e.to_state = 'OPEN'")))
                self.agree(f'{tag}.absent_pair_not_covered_must_stay_open', active - seen)
                self.assertEqual(int(scan['findings.unchanged']), counts[f'{tag}.still_failing'])
                self.assertEqual(int(scan['findings.passed']), counts[f'{tag}.resolved_now_pass'])
                self.assertEqual(int(scan['findings.unreported']),
                                 counts[f'{tag}.absent_pair_covered_may_be_resolved'])
                self.assertEqual(int(scan['findings.created']) + int(scan['findings.regressed']),
                                 counts[f'{tag}.new_fail'])
                self.assertEqual(int(scan['findings.regressed']), 0)
        # The same file again: nothing but the list of scans.
        tables = ('findings', 'finding_events', 'resources', 'checks', 'audit_events')
        state = lambda: [session.value(f'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {t} t'
                                       + (" WHERE collection <> 'scans'" if t == 'audit_events' else ''))
                         for t in tables]
        before = state()
        again = import_records(session, account, list(read_ocsf(SCANS[-1])), scan_time='2026-11-23 12:00+00')
        self.assertEqual(state(), before)
        self.assertEqual(int(again['findings.unchanged']), counts['scan3.fail'])
        self.assertEqual(session.value("SELECT count(*) FROM audit_events WHERE collection = 'scans'"), '4')

    def test_other_files_twice(self):
        """The smaller files, in accounts of their own: what the manifest counts, and nothing new the second time."""
        for name, provider, uid, counts in (
                ('kubernetes-demo-scan1', 'KUBERNETES', 'demo-context', (1266, 980, 10, 0)),
                ('aws-extra-mutelist', 'AWS', '123456789012', (217, 271, 0, None)),
                ('aws-extra-unix-timestamp', 'AWS', '123456789012', (4, 6, 0, 0)),
                ('aws-extra-region-eu-west-1', 'AWS', '123456789012', (4, 6, 0, 0)),
                ('aws-extra-fail-only', 'AWS', '123456789012', (0, 6, 0, 0))):
            with self.subTest(name):
                session = self.organization()
                account = self.account(session, uid, provider)
                records = list(read_ocsf(name))
                muted = sum(r['result']['muted'] and r['result']['status'] == 2 for r in records)
                first = import_records(session, account, records)
                self.assertEqual([int(first[f'results.{c}']) for c in ('pass', 'fail', 'manual')], list(counts[:3]))
                self.assertEqual(int(first['results.muted']), muted if counts[3] is None else counts[3])
                self.assertEqual(int(first['findings.created']), counts[1])
                again = import_records(session, account, records)
                self.assertEqual([int(again[f'findings.{c}']) for c in
                                  ('created', 'unchanged', 'passed', 'unreported', 'regressed')],
                                 [0, counts[1], 0, 0, 0])

    def test_the_region_that_was_asked_for_splits_no_resource(self):
        session = self.organization()
        account = self.account(session)
        for name in ('aws-extra-unix-timestamp', 'aws-extra-region-eu-west-1'):
            import_records(session, account, list(read_ocsf(name)))
        self.assertEqual(session.value("SELECT count(*) FROM resources WHERE resource_uid LIKE 'arn:aws:iam:%'"), '1')


if __name__ == '__main__':
    unittest.main()
