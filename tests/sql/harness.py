"""What the SQL tests share: a database with the migrations in it, and psql sessions that run the query files as they
stand. Standard library and psql only.

GENIE_TEST_DATABASE_URL  a superuser's connection to a server where databases can be made
GENIE_TEST_DATA          the folder of the real scan results; by default tests/data
"""
import csv
import gzip
import io
import json
import os
import pathlib
import subprocess
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIGRATIONS = sorted((ROOT / 'storage/migrations').glob('*.sql'))
QUERIES = ROOT / 'storage/queries'
URL = os.environ.get('GENIE_TEST_DATABASE_URL')
DATA = pathlib.Path(os.environ.get('GENIE_TEST_DATA', ROOT / 'tests/data'))
END = '--end of answer--'


class Refused(Exception):
    """PostgreSQL refused a statement."""

    def __init__(self, text):
        super().__init__(text)
        self.constraint = next((line.split(':', 1)[1].strip() for line in text.splitlines()
                                if line.startswith('CONSTRAINT NAME:')), None)


def literal(value):
    """A value as SQL."""
    if value is None:
        return 'NULL'
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::bytea"
    if isinstance(value, list):
        return literal('{' + ','.join(element(v) for v in value) + '}')
    return "'" + str(value).replace("'", "''") + "'"


def element(value):
    """A value in an array's text."""
    if value is None:
        return 'NULL'
    if isinstance(value, bytes):
        value = '\\x' + value.hex()
    text = {True: 't', False: 'f'}[value] if isinstance(value, bool) else \
        json.dumps(value) if isinstance(value, list) else str(value)
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'


class Session:
    """One psql, as a role, for a tenant."""

    def __init__(self, url, role='genie_app'):
        self.psql = subprocess.Popen(
            ['psql', '-X', '-q', '-v', 'VERBOSITY=verbose', '-d', url], text=True, encoding='utf-8',
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.send("\\pset format csv\n\\pset null '\\\\N'")
        self.send("SET timezone = 'UTC'; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;")
        if role:
            self.send(f'SET ROLE {role};')
        self.answer()
        self.tenant = self.caller = ''

    def close(self):
        self.psql.communicate('\\q\n')

    def send(self, text):
        self.psql.stdin.write(text + '\n')

    def answer(self):
        """Rows of the last statement sent, as dictionaries of texts."""
        self.send(f'\\echo {END}')
        self.psql.stdin.flush()
        lines = []
        while (line := self.psql.stdout.readline()) != END + '\n':
            if not line:
                raise Refused('psql ended: ' + ''.join(lines))
            lines.append(line)
        text = ''.join(lines)
        if 'ERROR:' in text:
            raise Refused(text.partition('QUERY:')[0])
        rows = list(csv.reader(io.StringIO(text)))
        # csv gives an empty line, a row whose one column is empty, as no column at all.
        return [dict(zip(rows[0], (None if v == '\\N' else v for v in row or ['']))) for row in rows[1:]]

    def sql(self, statement):
        self.send(statement + ';')
        return self.answer()

    def value(self, statement):
        row, = self.sql(statement)
        return next(iter(row.values()))

    def start(self, query, explain='', **parameters):
        """Sends a query file without waiting for its answer."""
        for name, value in parameters.items():
            text = literal(value).replace('\\', '\\\\').replace("'", "''").replace('\n', '\\n')
            self.send(f"\\set {name} '{text}'")
        self.send(explain + (QUERIES / f'{query}.sql').read_text())

    def rows(self, query, explain='', **parameters):
        """Runs a query file as a call would: tenant and caller are settings, parameters come by \\set."""
        self.sql(f"SELECT set_config('genie.organization_id', {literal(self.tenant)}, false),"
                 f" set_config('genie.caller', {literal(self.caller)}, false),"
                 f" set_config('genie.method', {literal(query)}, false)")
        self.start(query, explain, **{'organization_id': self.tenant or None, 'caller_id': self.caller, **parameters})
        return self.answer()

    def call(self, query, **parameters):
        """The one row of a query file; None where there is none."""
        rows = self.rows(query, **parameters)
        assert len(rows) < 2, rows
        return rows[0] if rows else None

    def wal_bytes(self, query, **parameters):
        """Runs a query file; what it wrote to the write-ahead log, whatever other sessions write there."""
        row, = self.rows(query, 'EXPLAIN (ANALYZE, WAL, FORMAT JSON) ', **parameters)
        return json.loads(row['QUERY PLAN'])[0]['Plan']['WAL Bytes']


def admin(statement):
    subprocess.run(['psql', '-X', '-q', '-d', URL, '-c', statement], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def database_url(name):
    """The URL of another database on the same server; keeps host, user and options."""
    scheme, rest = URL.split('://', 1)
    authority, _, path = rest.partition('/')
    options = path.partition('?')[2]
    return f'{scheme}://{authority}/{name}' + (f'?{options}' if options else '')


@unittest.skipUnless(URL, 'GENIE_TEST_DATABASE_URL is not set')
class DatabaseCase(unittest.TestCase):
    """A fresh database for each class; sessions that a test opens are closed after it."""

    @classmethod
    def setUpClass(cls):
        cls.name = 'genie_test_' + uuid.uuid4().hex[:12]
        admin(f'CREATE DATABASE {cls.name}')
        cls.addClassCleanup(admin, f'DROP DATABASE {cls.name} WITH (FORCE)')
        cls.url = database_url(cls.name)
        for migration in MIGRATIONS:
            subprocess.run(['psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', cls.url, '-f', migration],
                           check=True, stdout=subprocess.DEVNULL)

    def session(self, role='genie_app'):
        session = Session(self.url, role)
        self.addCleanup(session.close)
        return session

    def organization(self, slug=None, owner='owner@example.com'):
        """Makes an organization; a session that acts in it."""
        session = self.session()
        slug = slug or f'acme-{uuid.uuid4().hex[:8]}'
        organization = str(uuid.uuid4())
        session.tenant, session.caller = organization, 'service:admin'
        made = session.call('organization_service/create_organization', new_id=organization, organization_slug=slug,
                            display_name=slug.title(), owner_email=owner, request_id='')
        self.assertEqual(made['name'], f'organizations/{slug}')
        session.caller = 'user:anna'
        session.send(f"\\set organization_slug '''{slug}'''")
        return session

    def account(self, session, uid='123456789012', provider='AWS'):
        return session.call('cloud_account_service/create_cloud_account', new_id=str(uuid.uuid4()), provider=provider,
                            account_uid=uid, display_name='An account', request_id='')['uid']


def read_ocsf(name):
    """Results and descriptions of a scan results file, as the batches of an import have them."""
    with gzip.open(DATA / f'{name}.ocsf.json.gz', 'rt', encoding='utf-8') as file:
        for number, record in enumerate(json.load(file), 1):
            resource = record['resources'][0]
            cloud = record.get('cloud') or {}
            region = resource.get('region') or cloud.get('region') or resource.get('namespace') or ''
            service = record['finding_info']['analytic']['category']
            remediation = record.get('remediation') or {}
            yield {
                'record': number,
                'result': {
                    'check': record['metadata']['event_code'], 'service': service, 'resource_uid': resource['uid'],
                    'region': region, 'resource_display_name': resource['name'],
                    'status': {'PASS': 1, 'FAIL': 2, 'MANUAL': 3}[record['status_code']],
                    'severity': {0: 1, 99: 1}.get(record['severity_id'], record['severity_id'] + 1),
                    'status_detail': record['status_detail'], 'muted': record.get('status_id') == 3},
                'check': {
                    'check': record['metadata']['event_code'], 'service': service,
                    'title': record['finding_info']['title'], 'description': record['finding_info']['desc'],
                    'risk': record.get('risk_details') or '', 'remediation': remediation.get('desc') or '',
                    'reference_urls': remediation.get('references') or [],
                    'compliance_json': json.dumps(record['unmapped'].get('compliance') or {}, sort_keys=True)},
                'resource': {
                    'uid': resource['uid'], 'region': region, 'display_name': resource['name'],
                    'type': resource['type'], 'service': resource['group']['name'], 'labels': resource['labels'],
                    'metadata_json': json.dumps(resource.get('data') or {}, ensure_ascii=False)}}


RESULT = ('check', 'service', 'resource_uid', 'region', 'resource_display_name', 'status', 'severity', 'status_detail',
          'muted')
CHECK = ('check', 'service', 'title', 'description', 'risk', 'remediation', 'reference_urls', 'compliance_json')
RESOURCE = ('uid', 'region', 'display_name', 'type', 'service', 'labels', 'metadata_json')


def result(check, uid='res-1', status='FAIL', region='eu-west-1', service='ec2', detail='It is bad.', name='One',
           severity=5, muted=False):
    """A record with one result and no descriptions."""
    return {'result': {'check': check, 'service': service, 'resource_uid': uid, 'region': region,
                       'resource_display_name': name, 'status': {'PASS': 1, 'FAIL': 2, 'MANUAL': 3}[status],
                       'severity': severity, 'status_detail': detail, 'muted': muted}}


class Import:
    """Sends records in as the server does."""

    def __init__(self, session, account, scan_time='2026-11-23 12:00:00+00', extent=None, services=None, regions=None,
                 request_id=None, scanner='Prowler'):
        self.session = session
        self.described = set()
        self.started = session.call(
            'internal/start_import', cloud_account_id=account, new_id=session.value('SELECT uuid_v7()'),
            scanner=scanner, scanner_version='5.46.0', scan_time=scan_time, request_id=request_id or str(uuid.uuid4()),
            coverage__extent=extent, coverage__services=services, coverage__regions=regions)
        self.scan = self.started and self.started['scan_id']

    def batch(self, first_record, records, refused=()):
        new = {'check': [], 'resource': []}
        for record in records:
            for kind, list_ in new.items():
                text = json.dumps(record.get(kind), sort_keys=True)
                if kind in record and text not in self.described:
                    self.described.add(text)
                    list_.append(record[kind])
        parameters = {f'evaluations__{field}': [r['result'][field] for r in records] for field in RESULT}
        parameters |= {f'checks__{field}': [c[field] for c in new['check']] for field in CHECK}
        parameters |= {f'resources__{field}': [r[field] for r in new['resource']] for field in RESOURCE}
        return self.session.call('internal/import_batch', scan_id=self.scan, first_record=first_record,
                                 record_count=len(records) + len(refused), refused__record=list(refused), **parameters)

    def send(self, records, size=1000):
        """Sends all records from 1; how many there are."""
        for at in range(0, len(records), size):
            ack = self.batch(at + 1, records[at:at + size])
            assert ack['refusal'] is None, ack
        return len(records)

    def end(self, record_count, interrupted=False):
        return self.session.call('internal/complete_import', scan_id=self.scan, record_count=record_count,
                                 interrupted=interrupted)


def import_records(session, account, records, interrupted=False, **header):
    """Imports records in full; the scan."""
    import_ = Import(session, account, **header)
    return import_.end(import_.send(records), interrupted)
