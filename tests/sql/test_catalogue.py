"""What the catalogue says: row-level security on every table, append-only history, keys that begin with the tenant;
and every query file is a statement that PostgreSQL can prepare."""
import re
import unittest

from channel import ChannelCase
from harness import QUERIES, Refused, import_records, literal, result

# Tables that belong to no organization, and reference tables that are looked up by something else first.
SHARED = {'global_services', 'replicas'}
REFERENCE = {'organization_slugs', 'memberships', 'api_key_prefixes', 'agent_key_prefixes'}
# The one form of a tenant's policy, as PostgreSQL writes it back.
POLICY = ("(organization_id = ( SELECT (NULLIF(current_setting('genie.organization_id'::text, true), ''::text))::uuid"
          ' AS "nullif"))')
# The migrator's own.
BOOKKEEPING = {'schema_migrations'}


class Catalogue(ChannelCase):
    def tables(self, admin):
        return {row['relname']: row for row in admin.sql("""
            SELECT relname, relrowsecurity, relforcerowsecurity, relispartition FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')""")
                if row['relname'] not in BOOKKEEPING}

    def test_row_level_security_everywhere(self):
        admin = self.session(None)
        policies = {}
        for row in admin.sql("SELECT tablename, roles::text, qual, with_check FROM pg_policies"):
            policies.setdefault(row['tablename'], []).append(row)
        for name, table in self.tables(admin).items():
            with self.subTest(name):
                self.assertEqual((table['relrowsecurity'], table['relforcerowsecurity']), ('t', 't'))
                if table['relispartition'] == 't':
                    self.assertEqual(admin.value(f"SELECT count(*) FROM information_schema.role_table_grants"
                                                 f" WHERE table_name = '{name}' AND grantee = 'genie_app'"), '0')
                elif name not in SHARED:
                    for policy in policies[name]:
                        if policy['roles'] != '{genie_system}':
                            self.assertEqual(policy['roles'], '{genie_app}')
                            self.assertEqual(' '.join(policy['qual'].split()), POLICY)
                            self.assertEqual(policy['with_check'], None)
        self.assertEqual(admin.value("SELECT count(*) FROM pg_roles WHERE rolname IN ('genie_app', 'genie_system')"
                                     " AND (rolsuper OR rolbypassrls OR rolcanlogin)"), '0')
        self.assertEqual(admin.value("SELECT pg_has_role('genie_app', 'genie_system', 'USAGE')"), 'f')

    def test_keys_and_indexes_begin_with_the_organization(self):
        admin = self.session(None)
        for row in admin.sql("""
                SELECT t.relname AS table, i.relname AS index, a.attname AS first FROM pg_index x
                  JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
                  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
                 WHERE t.relnamespace = 'public'::regnamespace"""):
            if row['table'] not in SHARED | REFERENCE | BOOKKEEPING:
                self.assertEqual(row['first'], 'organization_id', row)
        for row in admin.sql("""
                SELECT conrelid::regclass AS table, conname, a.attname AS first FROM pg_constraint
                  JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = conkey[1] WHERE contype = 'f'"""):
            self.assertEqual(row['first'], 'organization_id', row)

    def test_no_two_indexes_can_be_mistaken_for_each_other(self):
        """The planner multiplies what an organization and, say, an account select, though one implies the other. Of two
        indexes that begin with both it may take the wrong one, and read all that the account has."""
        self.assertEqual(self.session(None).sql("""
            SELECT a.indexrelid::regclass AS one, b.indexrelid::regclass AS other FROM pg_index a
              JOIN pg_index b ON b.indrelid = a.indrelid AND b.indexrelid > a.indexrelid
                             AND b.indkey[0] = a.indkey[0] AND b.indkey[1] = a.indkey[1]
              JOIN pg_class c ON c.oid = a.indrelid AND c.relnamespace = 'public'::regnamespace
             WHERE a.indpred IS NULL AND b.indpred IS NULL"""), [])

    def everything_about_a_task(self, organization):
        """A row in each table of agents and tasks."""
        attempt = self.worker(organization).run()
        self.note((attempt, 'a', 'b'))
        self.append((attempt, 1, 0, b'a'))

    def test_another_tenant_sees_and_writes_nothing(self):
        acme = self.organization()
        account = self.account(acme)
        import_records(acme, account, [result('a_check')])
        acme.call('api_key_service/create_api_key', new_id=acme.value('SELECT uuid_v7()'),
                  key_prefix='dgk_abcdefghijkl', secret_sha256=bytes(32), display_name='A key', role=2,
                  caller_role=5, request_id='', expire_time=None)
        acme.call('cloud_account_service/set_cloud_account_credentials', cloud_account_id=account, provider='AWS', credentials_account='',
                  credentials_id=acme.value('SELECT uuid_v7()'), data_key_id=acme.value('SELECT uuid_v7()'),
                  kek_id='k', wrapped_data_key=b'w', ciphertext=b'c', etag='')
        self.everything_about_a_task(acme)
        other = self.organization()
        admin = self.session(None)
        for name, table in self.tables(admin).items():
            if table['relispartition'] == 't':
                continue
            with self.subTest(name):
                grants = admin.value(f"""
                    SELECT concat_ws(',',
                      CASE WHEN has_any_column_privilege('genie_app', '{name}', 'SELECT') THEN 'SELECT' END,
                      CASE WHEN has_table_privilege('genie_app', '{name}', 'INSERT') THEN 'INSERT' END,
                      CASE WHEN has_table_privilege('genie_app', '{name}', 'UPDATE') THEN 'UPDATE' END,
                      CASE WHEN has_table_privilege('genie_app', '{name}', 'DELETE') THEN 'DELETE' END)""").split(',')
                if name in SHARED:
                    self.assertEqual(grants, ['SELECT'])
                    continue
                foreign = f'FROM {name} WHERE organization_id = {literal(acme.tenant)}'
                if name not in ('import_runs', 'import_batches'):
                    self.assertNotEqual(admin.value(f'SELECT count(*) {foreign}'), '0', 'nothing there to hide')
                for tenant in (other.tenant, ''):
                    other.sql(f"SELECT set_config('genie.organization_id', '{tenant}', false)")
                    if 'SELECT' in grants:
                        self.assertEqual(other.value(f'SELECT count(organization_id) {foreign}'), '0')
                    if 'DELETE' in grants:
                        other.sql(f'DELETE {foreign}')
                    if 'UPDATE' in grants:
                        other.sql(f'UPDATE {name} SET organization_id = {literal(other.tenant)}'
                                  f' WHERE organization_id = {literal(acme.tenant)}')
                    if 'INSERT' in grants:
                        columns = admin.value(f"SELECT string_agg(quote_ident(attname), ',') FROM pg_attribute"
                                              f" WHERE attrelid = '{name}'::regclass AND attnum > 0")
                        row = admin.sql(f'SELECT {columns} {foreign} LIMIT 1')
                        if row:
                            values = ', '.join('NULL' if v is None else literal(v) for v in row[0].values())
                            with self.assertRaisesRegex(Refused, 'row-level security'):
                                other.sql(f'INSERT INTO {name} ({columns}) VALUES ({values})')
                if 'SELECT' in grants and name not in ('import_runs', 'import_batches'):
                    acme.sql(f"SELECT set_config('genie.organization_id', {literal(acme.tenant)}, false)")
                    self.assertNotEqual(acme.value(f'SELECT count(organization_id) FROM {name}'), '0')

    def test_history_is_append_only(self):
        session = self.organization()
        import_records(session, self.account(session), [result('a_check')])
        self.everything_about_a_task(session)
        for table in ('finding_events', 'audit_events', 'task_events', 'agent_events'):
            self.assertNotEqual(session.value(f'SELECT count(*) FROM {table}'), '0')
            for statement in (f'DELETE FROM {table}', f"UPDATE {table} SET event_time = now()", f'TRUNCATE {table}',
                              f'INSERT INTO {table} SELECT * FROM {table}'):
                with self.assertRaisesRegex(Refused, 'permission denied'):
                    session.sql(statement)

    def test_every_query_prepares(self):
        session = self.session()
        for number, file in enumerate(sorted(QUERIES.glob('*/*.sql'))):
            with self.subTest(str(file.relative_to(QUERIES))):
                text = file.read_text(encoding='utf-8')
                self.assertRegex(text, r'^-- \S')
                body = '\n'.join(line for line in text.splitlines() if not line.startswith('--'))
                names = []

                def number_of(match):
                    if match[1] not in names:
                        names.append(match[1])
                    return f'${names.index(match[1]) + 1}'
                body = ''.join(part if part.startswith("'") else re.sub(r'(?<![:\w]):([a-z]\w*)', number_of, part)
                               for part in re.split(r"('(?:[^']|'')*')", body))
                session.sql(f'PREPARE q{number} AS {body.rstrip().rstrip(";")}')

    def test_system_functions_are_not_for_everyone(self):
        admin = self.session(None)
        for row in admin.sql("""SELECT p.oid::regprocedure AS function, proacl::text, proconfig::text,
                                       rolname FROM pg_proc p JOIN pg_roles r ON r.oid = proowner
                                 WHERE prosecdef AND pronamespace = 'public'::regnamespace"""):
            self.assertEqual(row['rolname'], 'genie_system', row)
            self.assertNotIn('=X/', row['proacl'].replace('genie_system=X/', '').replace('genie_app=X/', ''), row)
            self.assertIn('search_path=public, pg_temp', row['proconfig'], row)


if __name__ == '__main__':
    unittest.main()
