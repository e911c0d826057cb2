"""Organizations, members, API keys, accounts, and what only the system does."""
import unittest
import uuid

from channel import ChannelCase
from harness import Import, Refused, import_records, literal, result


class Organizations(ChannelCase):
    def create(self, session, slug, request_id=''):
        session.tenant = str(uuid.uuid4())
        return session.call('organization_service/create_organization', new_id=session.tenant, organization_slug=slug,
                            display_name='An organization', owner_email='Anna@Example.com', request_id=request_id)

    def member(self, session, email, role, request_id=''):
        return session.call('member_service/create_member', new_id=session.value('SELECT uuid_v7()'), email=email,
                            role=role, request_id=request_id)

    def list_(self, session, kind, subject='', email='', deleted=False):
        return [o['name'] for o in session.rows(
            'organization_service/list_organizations', caller_kind=kind, caller_subject=subject, caller_email=email,
            show_deleted=deleted, after_slug=None, page_limit=1000)]

    def find(self, session, slug, subject, email=''):
        return session.call('internal/find_member', organization_slug=slug, subject=subject, email=email)

    def age(self, organization):
        admin = self.session(None)
        admin.sql(f"UPDATE organizations SET purge_time = now() - interval '1 second'"
                  f" WHERE organization_id = {literal(organization)}")

    def test_slugs_are_taken_once(self):
        session = self.session()
        self.create(session, 'taken')
        self.assertEqual(self.create(session, 'taken')['refusal'], 'ORGANIZATION_EXISTS')

    def test_a_repeat_gives_the_first(self):
        session, request = self.session(), str(uuid.uuid4())
        first = self.create(session, 'repeated', request)
        again = self.create(session, 'repeated', request)
        self.assertEqual(again, first)
        session.tenant = first['uid']
        session.send("\\set organization_slug '''repeated'''")
        self.assertEqual(self.member(session, 'b@example.com', 1, request),
                         self.member(session, 'c@example.com', 5, request))

    def test_update_delete_undelete(self):
        session = self.organization('gone')
        etag = session.call('organization_service/get_organization')['etag']
        update = lambda etag: session.call('organization_service/update_organization', update_mask=['display_name'],
                                           display_name='New', etag=etag)
        self.assertEqual(update(etag)['display_name'], 'New')
        self.assertEqual(update(etag)['refusal'], 'ETAG_MISMATCH')
        call = lambda method: session.call(f'organization_service/{method}_organization', etag='')
        self.assertEqual(call('undelete')['refusal'], 'ORGANIZATION_NOT_DELETED')
        deleted = call('delete')
        self.assertEqual((deleted['state'], deleted['purge_time'] is None), ('DELETED', False))
        self.assertEqual(call('delete')['refusal'], 'ORGANIZATION_DELETED')
        found = session.call('internal/find_organization', organization_slug='gone')
        self.assertEqual((found['organization_id'], found['organization_deleted']), (session.tenant, 't'))
        self.assertNotIn('organizations/gone', self.list_(session, 'platform-admin'))
        self.assertIn('organizations/gone', self.list_(session, 'platform-admin', deleted=True))
        self.assertEqual(call('undelete')['state'], 'ACTIVE')
        call('delete')
        self.age(session.tenant)
        self.assertIsNone(call('undelete'))
        self.assertIsNone(session.call('organization_service/get_organization'))
        self.assertIsNone(session.call('internal/find_organization', organization_slug='gone'))

    def test_a_purge_leaves_nothing(self):
        session, other = self.organization('purged'), self.organization('kept')
        for each in (session, other):
            account = self.account(each)
            each.call('cloud_account_service/set_cloud_account_credentials', cloud_account_id=account, provider='AWS',
                      credentials_id=str(uuid.uuid4()), data_key_id=str(uuid.uuid4()), kek_id='k', credentials_account='',
                      wrapped_data_key=b'w', ciphertext=b'c', etag='')
            import_records(each, account, [result('a', f'r{n}') for n in range(20)])
            self.key(each, 'dgk_' + uuid.uuid4().hex[:12])
            Import(each, account).batch(1, [result('b')])
            attempt = self.worker(each).run()
            self.note((attempt, 'a', 'b'))
            self.append((attempt, 1, 0, b'a'))
            self.task(each)
        session.call('organization_service/delete_organization', etag='')
        self.age(session.tenant)
        session.call('internal/sweep', row_limit=7)
        admin = self.session(None)
        count = lambda table, tenant: int(admin.value(
            f'SELECT count(*) FROM {table} WHERE organization_id = {literal(tenant)}'))
        # The keys go at once, the rest in portions.
        self.assertEqual((count('organization_keys', session.tenant), count('credentials', session.tenant)), (0, 0))
        self.assertEqual(count('findings', session.tenant), 13)
        for _ in range(100):
            if session.call('internal/sweep', row_limit=7)['purged'] == '1':
                break
        for table in admin.sql("SELECT DISTINCT table_name AS name FROM information_schema.columns"
                               " WHERE table_schema = 'public' AND column_name = 'organization_id'"):
            self.assertEqual(count(table['name'], session.tenant), 0, table)
        self.assertEqual((count('findings', other.tenant), count('organization_keys', other.tenant)), (20, 1))
        self.create(self.session(), 'purged')

    def test_who_sees_which_organizations(self):
        one, two = self.organization('list-one', 'boss@example.com'), self.organization('list-two', 'x@example.com')
        self.assertEqual(self.list_(one, 'user', 'sub-1', 'boss@example.com'), ['organizations/list-one'])
        self.assertEqual(self.list_(one, 'user', 'sub-1', ''), [])
        self.find(one, 'list-one', 'sub-1', 'boss@example.com')
        self.assertEqual(self.list_(one, 'user', 'sub-1', ''), ['organizations/list-one'])
        self.assertEqual(self.list_(one, 'user', 'sub-2', 'boss@example.com'), [])  # bound to another subject
        self.assertEqual(self.list_(two, 'api_key'), ['organizations/list-two'])
        self.assertLess({'organizations/list-one', 'organizations/list-two'}, set(self.list_(one, 'platform-admin')) | {''})
        self.assertEqual(self.list_(one, ''), [])

    def test_binding(self):
        session = self.organization('binding', 'owner@example.com')
        self.assertIsNone(self.find(session, 'binding', 'sub-a'))
        self.assertIsNone(self.find(session, 'binding', 'sub-a', 'other@example.com'))
        bound = self.find(session, 'binding', 'sub-a', 'owner@example.com')
        self.assertEqual((bound['organization_id'], bound['role']), (session.tenant, '5'))
        self.assertEqual(self.find(session, 'binding', 'sub-a')['role'], '5')
        self.assertIsNone(self.find(session, 'binding', 'sub-b', 'owner@example.com'))
        # A subject that is bound already stays with its membership, whatever its address says.
        self.member(session, 'second@example.com', 1)
        self.assertEqual(self.find(session, 'binding', 'sub-a', 'second@example.com')['role'], '5')

    def test_members(self):
        session = self.organization(owner='owner@example.com')
        member = self.member(session, 'New@Example.com', 2)
        self.assertEqual(member['email'], 'new@example.com')
        with self.assertRaises(Refused) as refused:
            self.member(session, 'new@example.com', 1)
        self.assertEqual(refused.exception.constraint, 'member_exists')
        update = lambda role, etag='': session.call('member_service/update_member', member_id=member['uid'], role=role,
                                                    etag=etag, update_mask=['role'])
        self.assertEqual(update(3)['role'], '3')
        self.assertEqual(update(4, member['etag'])['refusal'], 'ETAG_MISMATCH')
        delete = lambda etag: session.call('member_service/delete_member', member_id=member['uid'], etag=etag)
        self.assertEqual(delete('99')['refusal'], 'ETAG_MISMATCH')
        self.assertIsNone(delete('')['refusal'])
        self.assertIsNone(delete(''))

    def owner(self, session):
        return session.value("SELECT member_id FROM members WHERE role = 5 ORDER BY member_id LIMIT 1")

    def test_the_last_owner_stays(self):
        session = self.organization()
        owner = self.owner(session)
        for attempt in (lambda: session.call('member_service/delete_member', member_id=owner, etag=''),
                        lambda: session.call('member_service/update_member', member_id=owner, role=4, etag='',
                                             update_mask=['role'])):
            with self.assertRaises(Refused) as refused:
                attempt()
            self.assertEqual(refused.exception.constraint, 'last_owner')
        self.member(session, 'b@example.com', 5)
        self.assertIsNone(session.call('member_service/delete_member', member_id=owner, etag='')['refusal'])

    def test_two_owners_who_go_at_the_same_time(self):
        first = self.organization()
        mine = self.owner(first)
        other = self.member(first, 'b@example.com', 5)['uid']
        second = self.session()
        second.tenant = first.tenant
        for session in (first, second):
            session.sql(f"SELECT set_config('genie.organization_id', {literal(first.tenant)}, false)")
        first.sql('BEGIN')
        first.start('member_service/delete_member', member_id=mine, etag='', organization_id=first.tenant)
        first.answer()
        pid = second.value('SELECT pg_backend_pid()')
        second.start('member_service/delete_member', member_id=other, etag='', organization_id=first.tenant)
        second.psql.stdin.flush()
        watch = self.session(None)
        while watch.value(f"SELECT wait_event_type FROM pg_stat_activity WHERE pid = {pid}") != 'Lock':
            pass
        first.sql('COMMIT')
        with self.assertRaises(Refused) as refused:
            second.answer()
        self.assertEqual(refused.exception.constraint, 'last_owner')
        self.assertEqual(first.value('SELECT count(*) FROM members WHERE role = 5'), '1')

    # API keys.

    def key(self, session, prefix, role=2, caller_role=4, request_id=''):
        return session.call('api_key_service/create_api_key', new_id=session.value('SELECT uuid_v7()'),
                            key_prefix=prefix, secret_sha256=bytes(range(32)), display_name='A key', role=role,
                            caller_role=caller_role, request_id=request_id, expire_time=None)

    def test_api_keys(self):
        session = self.organization('keys')
        request = str(uuid.uuid4())
        key = self.key(session, 'dgk_keykeykeykey', request_id=request)
        self.assertEqual((key['refusal'], key['creator'], key['role']), (None, 'user:anna', '2'))
        self.assertEqual(self.key(session, 'dgk_otherotherot', request_id=request), key)
        above = self.key(session, 'dgk_highhighhigh', role=5)
        self.assertEqual((above['refusal'], above['name']), ('ROLE_ABOVE_CALLER', None))
        found = session.call('internal/find_api_key', key_prefix='dgk_keykeykeykey')
        self.assertEqual((found['organization_slug'], found['role'], found['revoked']), ('keys', '2', 'f'))
        self.assertIsNone(session.call('internal/find_api_key', key_prefix='dgk_highhighhigh'))
        revoke = lambda etag='': session.call('api_key_service/revoke_api_key', api_key_id=key['uid'], etag=etag, caller_role=2)
        self.assertEqual(revoke('77')['refusal'], 'ETAG_MISMATCH')
        self.assertIsNotNone(revoke()['revoke_time'])
        self.assertEqual(revoke(), revoke())
        self.assertEqual(session.call('internal/find_api_key', key_prefix='dgk_keykeykeykey')['revoked'], 't')
        self.assertEqual(len(session.rows('api_key_service/list_api_keys', after_api_key_id=None, page_limit=9)), 1)

    def test_last_use_is_written_once_a_day_and_is_no_change(self):
        session = self.organization()
        key = self.key(session, 'dgk_useduseduse')
        touch = lambda: session.call('internal/touch_api_keys', organization_ids=[session.tenant],
                                     api_key_ids=[key['uid']])['touched']
        audited = session.value('SELECT count(*) FROM audit_events')
        self.assertEqual((touch(), touch()), ('1', '0'))
        after = session.call('api_key_service/get_api_key', api_key_id=key['uid'])
        self.assertEqual(after['etag'], key['etag'])
        self.assertRegex(after['last_use_time'], r' 00:00:00\+00$')
        self.assertEqual(session.value('SELECT count(*) FROM audit_events'), audited)

    # Accounts.

    def test_the_form_of_an_account_uid(self):
        session = self.organization()
        forms = {
            'AWS': (['123456789012'], ['12345678901', '1234567890123', '12345678901a', '123456789012\n']),
            'AZURE': (['0b0e6a5c-1111-4222-8333-0123456789ab'], ['0b0e6a5c', '{0b0e6a5c-1111-4222-8333-0123456789ab}']),
            'GCP': (['my-project-1'], ['short', 'My-project', 'my-project-', '1project', 'p' * 31]),
            'KUBERNETES': (['demo-context', 'arn:aws:eks:x/y', 'größe'], ['a b', 'a\x01b', 'x' * 254, '']),
            'GITHUB': (['acme-corp', 'A1'], ['-a', 'a-', 'a--b', 'a_b', 'x' * 40])}
        for provider, (good, bad) in forms.items():
            for uid in good + bad:
                with self.subTest(provider=provider, uid=uid):
                    account = session.call('cloud_account_service/create_cloud_account', new_id=str(uuid.uuid4()),
                                           provider=provider, account_uid=uid, display_name='x', request_id='')
                    self.assertEqual(account['refusal'], None if uid in good else 'ACCOUNT_UID_INVALID')
                    if uid in good:
                        self.assertEqual(account['external_id'] != '', provider == 'AWS')
        with self.assertRaises(Refused) as refused:
            self.account(session)
        self.assertEqual(refused.exception.constraint, 'cloud_account_exists')

    def test_credentials_replace_each_other(self):
        session = self.organization()
        account = self.account(session)
        seal = lambda provider='AWS', etag='': session.call(
            'cloud_account_service/set_cloud_account_credentials', cloud_account_id=account, provider=provider,
            credentials_id=str(uuid.uuid4()), data_key_id=str(uuid.uuid4()), kek_id='kek', credentials_account='', etag=etag,
            wrapped_data_key=b'\x01wrapped', ciphertext=b'\x02sealed')
        wrong = seal('GCP')
        self.assertEqual((wrong['refusal'], wrong['refusal_provider'], wrong['refusal_credentials_provider']),
                         ('CREDENTIALS_PROVIDER_MISMATCH', 'AWS', 'GCP'))
        self.assertIsNotNone(seal()['credentials_time'])
        self.assertEqual(seal(etag='1')['refusal'], 'ETAG_MISMATCH')
        seal()
        admin = self.session(None)
        where = f'WHERE organization_id = {literal(session.tenant)}'
        self.assertEqual(admin.value(f'SELECT count(*) FROM credentials {where}'), '1')
        self.assertEqual(admin.value(f'SELECT count(*) FROM organization_keys {where}'), '1')
        audit = admin.value(f"SELECT string_agg(changes_json, ' ') FROM audit_events {where}")
        for secret in (b'wrapped'.hex(), b'sealed'.hex(), 'ciphertext', 'secret_sha256', 'wrapped_data_key'):
            self.assertNotIn(secret, audit)
        with self.assertRaisesRegex(Refused, 'permission denied'):
            session.sql('SELECT ciphertext FROM credentials')

    def test_deleting_an_account(self):
        session = self.organization()
        account, other = self.account(session), self.account(session, '210987654321')
        import_records(session, account, [result('a')])
        import_records(session, other, [result('a')])
        delete = lambda etag='': session.call('cloud_account_service/delete_cloud_account', cloud_account_id=account,
                                              etag=etag)
        running = Import(session, account)
        self.assertEqual(delete()['refusal'], 'SCAN_RUNNING')
        self.assertEqual(delete('9')['refusal'], 'ETAG_MISMATCH')
        session.rows('internal/release_import', scan_id=running.scan)
        self.assertIsNone(delete()['refusal'])
        self.assertIsNone(delete())
        for table in ('findings', 'finding_events', 'resources', 'scans', 'account_coverage', 'scan_results'):
            self.assertEqual(session.value(f'SELECT count(*) FROM {table}'), '1', table)

    # Audit and the sweep.

    def test_audit(self):
        session = self.organization()
        member = self.member(session, 'b@example.com', 2)['uid']
        session.call('member_service/update_member', member_id=member, role=3, etag='', update_mask=['role'])
        session.call('member_service/update_member', member_id=member, role=3, etag='', update_mask=['role'])
        session.call('member_service/delete_member', member_id=member, etag='')
        events = [(e['operation'], e['collection'], e['changes_json']) for e in session.rows(
            'audit_service/list_audit_events', page_limit=3, after_event_time=None, after_audit_event_id=None)]
        self.assertEqual([e[:2] for e in events], [('DELETE', 'members'), ('UPDATE', 'members'), ('INSERT', 'members')])
        self.assertEqual(events[1][2], '{"role": [2, 3]}')
        self.assertIn('"email": "b@example.com"', events[0][2])
        session.sql("INSERT INTO members (organization_id, member_id, email, role)"
                    f" SELECT {literal(session.tenant)}, uuid_v7(), n || '@example.com', 1"
                    " FROM generate_series(1, 3) n")
        many = session.rows('audit_service/list_audit_events', page_limit=1, after_event_time=None,
                            after_audit_event_id=None)[0]
        self.assertEqual((many['row_count'], many['resource_uid'], many['changes_json']), ('3', '', ''))

    def test_the_sweep_fails_abandoned_imports(self):
        session = self.organization()
        import_ = Import(session, self.account(session))
        import_.batch(1, [result('a')])
        self.assertEqual(session.call('internal/sweep', row_limit=100)['abandoned'], '0')
        admin = self.session(None)
        admin.sql("UPDATE import_runs SET lease_time = now() - interval '11 minutes'"
                  f" WHERE organization_id = {literal(session.tenant)}")
        self.assertEqual(session.call('internal/sweep', row_limit=100)['abandoned'], '1')
        self.assertEqual(session.call('scan_service/get_scan', scan_id=import_.scan)['state'], 'FAILED')
        self.assertEqual(
            admin.value(f"SELECT count(*) FROM import_batches WHERE scan_id = {literal(import_.scan)}"), '0')

    def test_partitions_are_made_ahead_and_take_over_from_the_default(self):
        session = self.organization()
        admin = self.session(None)
        admin.sql("INSERT INTO audit_events (organization_id, event_time, caller, method, request_id, operation,"
                  f" collection, resource_uid, row_count, changes_json) SELECT {literal(session.tenant)},"
                  " date_trunc('month', now()) + interval '2 months 3 days', '', '', '', '', 'late', '', 1, ''")
        last = admin.value("SELECT max(relname) FROM pg_class WHERE relname ~ '^audit_events_[0-9_]+$'")
        admin.sql(f'ALTER TABLE audit_events DETACH PARTITION {last}')
        admin.sql(f'INSERT INTO audit_events SELECT * FROM {last}')
        admin.sql(f'DROP TABLE {last}')
        self.assertEqual(admin.value("SELECT count(*) FROM audit_events_default WHERE collection = 'late'"), '1')
        self.assertEqual(session.call('internal/sweep', row_limit=100)['partitions'], '1')
        self.assertEqual(admin.value("SELECT count(*) FROM audit_events_default"), '0')
        self.assertEqual(admin.value(f"SELECT count(*) FROM {last} WHERE collection = 'late'"), '1')


if __name__ == '__main__':
    unittest.main()
