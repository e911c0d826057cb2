"""Measures the rows that tools/bench names, which has prepared the database: server and yardstick in turns.

Standard library only. Progress goes to stderr, results to stdout.
"""
import argparse
import contextlib
import glob
import json
import os
import re
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import time

CONNECTIONS, IN_FLIGHT, LIST_IN_FLIGHT, CLIENTS, PAGE = 8, 32, 4, 8, 50
EVALUATIONS = 100_000
MANY_AGENTS, BESIDE_AGENTS, SOME_AGENTS = 10_000, 5_000, 1_000
TASK_AGENTS, TASKS_UNDER_WAY, LOG_AGENTS, LOG_BYTES = 100, 1_000, 10, 16 << 20
HEARTBEAT_SECONDS = 20
WARM_UP_SECONDS = 2
TICK = os.sysconf('SC_CLK_TCK')

# row: unit, whether more is better, least, aim. The ratio is to the yardstick, or the value itself where there is none.
LIMITS = {
    'get-finding': ('requests/s', True, .55, .75),
    'get-finding-latency': ('µs', False, 4, 2.5),
    'list-findings': ('rows/s', True, .5, .8),
    'list-findings-deep': ('rows/s', True, .5, .8),
    'import-first': ('evaluations/s', True, .3, .5),
    'import-again': ('evaluations/s', True, 2, 5),
    'import-again-wal': ('bytes/evaluation', False, 20, 20),
    'memory-idle': ('MB', False, 60, 40),
    'start': ('ms', False, 500, 200),
    'task-start': ('ms', False, 5, 5),
    'task-start-p99': ('ms', False, 20, 10),
    'task-rate': ('tasks/s', True, .25, .5),
    'log-intake': ('MB/s', True, .3, .6),
    'agent-memory': ('kB', False, 110, 70),
    'agent-memory-10000': ('kB', False, 110, 70),
    'agent-cpu': ('% of a core', False, 10, 5),
    'agent-statements': ('statements/s', False, 2, 2),
    'unary-beside-streams': ('requests/s', True, .95, 1),
    'reconnect': ('s', False, 10, 5),
    'reconnect-refused': ('s', False, 1, 1),
}


def say(text):
    print(text, file=sys.stderr, flush=True)


class Failure(Exception):
    """What a measurement cannot go on after; its text says what happened."""


def process_cpu(pid, children=False):
    """Seconds of CPU that a process has used; with those of its ended and living children."""
    def used(path, count):
        with open(path, encoding='ascii', errors='replace') as file:
            fields = file.read().rpartition(')')[2].split()
        return int(fields[1]), sum(map(int, fields[11:11 + count])) / TICK
    total = used(f'/proc/{pid}/stat', 4 if children else 2)[1]
    for path in glob.glob('/proc/[0-9]*/stat') if children else []:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parent, seconds = used(path, 2)
            total += seconds if parent == pid else 0
    return total


def run(command, **options):
    """Runs a program; its output, and the seconds of CPU that it used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise Failure(f'{os.path.basename(command[0])}: {(done.stderr or done.stdout).strip()[-2000:]}')
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Bench:
    def __init__(self, options):
        self.options = options
        self.server = None
        with open(f'{options.scratch}/keys', encoding='ascii') as file:
            self.keys = [line.split()[0] for line in file]
        with open(f'{options.scratch}/organization-keys', 'w', encoding='ascii') as file:
            file.write('\n'.join(self.keys[:options.organizations]) + '\n')
        with open(f'{options.scratch}/agent-keys', encoding='ascii') as file:
            agents = [(line.split()[0], number // 50) for number, line in enumerate(file)]
        with open(f'{options.scratch}/agents', 'w', encoding='ascii') as file:
            file.writelines(f'{key} {self.keys[organization]} bench-{organization}\n' for key, organization in agents)
        self.spare = options.organizations  # the next one that has not been used

    # The server.

    def start_server(self, again=False):
        """Starts genied; the seconds until it said that it was ready. `again`: where the last one was."""
        if not again:
            with socket.socket() as free:
                free.bind(('127.0.0.1', 0))
                self.endpoint = '127.0.0.1:%d' % free.getsockname()[1]
        at = self.options.scratch
        with open(f'{at}/genied.log', 'w', encoding='utf-8') as log:
            begin = time.monotonic()
            self.server = subprocess.Popen(
                [f'{self.options.built}/server/genied', 'serve', '--listen', self.endpoint, '--log-calls', 'refused',
                 '--tls-certificate', f'{at}/server.pem', '--tls-key', f'{at}/server-key.pem',
                 '--vault-key-file', f'{at}/vault-key'],
                env={**os.environ, 'GENIED_DATABASE_URL': self.options.server_url}, stdout=log, stderr=log)
            with open(f'{at}/genied.log', encoding='utf-8') as said:
                text = ''
                while '"ready"' not in text:
                    if self.server.poll() is not None:
                        raise Failure(f'genied does not start: {(text + said.read())[-1000:]}')
                    time.sleep(.0005)
                    text += said.read()
        return time.monotonic() - begin

    def stop_server(self):
        if self.server:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            self.server = None

    def resident_megabytes(self):
        with open(f'/proc/{self.server.pid}/status', encoding='ascii') as file:
            return int(re.search(r'VmRSS:\s+(\d+) kB', file.read())[1]) / 1000

    # Loaders. Each gives a dict of figures, with cpu: seconds by process.

    def with_cpu(self, work):
        """What `work` gives, and the seconds of CPU that PostgreSQL and the server used meanwhile."""
        def used():
            return (process_cpu(self.options.postmaster, children=True),
                    process_cpu(self.server.pid) if self.server else 0)
        before = used()
        result = work()
        after = used()
        return result, {'postgresql': after[0] - before[0], 'server': after[1] - before[1]}

    def load(self, mode, streams, seconds=None, pages=1):
        command = [f'{self.options.built}/tests/bench/bench-loader', mode, '--endpoint', self.endpoint,
                   '--ca', f'{self.options.scratch}/ca.pem', '--keys', f'{self.options.scratch}/organization-keys',
                   '--findings', str(self.options.findings), '--connections', str(CONNECTIONS),
                   '--streams', str(streams), '--pages', str(pages), '--seconds', str(seconds or self.options.seconds)]
        (output, _), cpu = self.with_cpu(lambda: run(command))
        figures = json.loads(output)
        return {**figures, 'cpu': {**cpu, 'loader': figures['cpu_seconds']}}

    def agents_command(self, mode, agents, *options):
        return [f'{self.options.built}/tests/bench/bench-agents', mode, '--endpoint', self.endpoint, '--ca',
                f'{self.options.scratch}/ca.pem', '--keys', f'{self.options.scratch}/agents', '--agents', str(agents),
                *map(str, options)]

    def work(self, agents, tasks, seconds, *options):
        """Agents that do tasks."""
        command = self.agents_command('work', agents, '--tasks', tasks, '--seconds', seconds or self.options.seconds,
                                      *options)
        (output, _), cpu = self.with_cpu(lambda: run(command))
        figures = json.loads(output)
        return {**figures, 'cpu': {**cpu, 'loader': figures['cpu_seconds']}}

    def check_health(self):
        run([f'{self.options.built}/tests/bench/bench-loader', 'check', '--endpoint', self.endpoint,
             '--ca', f'{self.options.scratch}/ca.pem'])

    def pgbench(self, script, seconds=None, log=None):
        """Runs pgbench as a superuser, whom no row-level security binds, with plans kept as the server keeps them."""
        path = f'{self.options.scratch}/pgbench.sql'
        with open(path, 'w', encoding='utf-8') as file:
            file.write(script)
        command = ['pgbench', '-n', '-M', 'prepared', '-c', str(CLIENTS), '-f', path,
                   '-T', str(seconds or self.options.seconds), '-D', f'findings={self.options.findings}',
                   '-D', f'per_organization={self.options.findings // self.options.organizations}']
        for name, value in FIRST_PAGE.items():
            command += ['-D', f'{name}={value}']
        if log:
            command += ['--log', f'--log-prefix={log}', '--sampling-rate=0.1']
        environment = {**os.environ, 'PGOPTIONS': '-c plan_cache_mode=force_generic_plan'}
        (result, cpu) = self.with_cpu(lambda: run(command + [self.options.yardstick_url], env=environment))
        output, own = result
        requests = int(re.search(r'transactions actually processed: (\d+)', output)[1])
        rate = float(re.search(r'^tps = ([\d.]+)', output, re.MULTILINE)[1])
        return {'rate': rate, 'requests': requests, 'cpu': {'postgresql': cpu['postgresql'], 'pgbench': own}}

    def pgbench_tasks(self, seconds=None):
        """What a queue in PostgreSQL does at the least for a task: three statements, each its own transaction."""
        self.sql("""CREATE TABLE IF NOT EXISTS bench.queue (
                      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state text NOT NULL DEFAULT 'PENDING',
                      priority smallint NOT NULL DEFAULT 0, payload bytea NOT NULL, attempt int NOT NULL DEFAULT 0,
                      create_time timestamptz NOT NULL DEFAULT now(), end_time timestamptz);
                    CREATE INDEX IF NOT EXISTS queue_pending ON bench.queue (priority DESC, id) WHERE state = 'PENDING';
                    TRUNCATE bench.queue;
                    INSERT INTO bench.queue (payload) SELECT '\\x1205' FROM generate_series(1, 1000)""")
        return self.pgbench("""INSERT INTO bench.queue (payload) VALUES ('\\x12070a0562656e6368');
UPDATE bench.queue SET state = 'RUNNING', attempt = attempt + 1
 WHERE id = (SELECT id FROM bench.queue WHERE state = 'PENDING' ORDER BY priority DESC, id LIMIT 1
                FOR UPDATE SKIP LOCKED) RETURNING id AS task \\gset
UPDATE bench.queue SET state = 'SUCCEEDED', end_time = now() WHERE id = :task;
""", seconds)

    def sql(self, text):
        return run(['psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-c', text, self.options.yardstick_url])[0].strip()


def statement(path, values):
    """A statement of the server's for pgbench, which knows the same parameters; some become values instead."""
    with open(f'storage/queries/{path}', encoding='utf-8') as file:
        text = file.read()
    return re.sub(r'(?<!:):([a-z_]\w*)', lambda name: values.get(name[1], name[0]), text) + '\n'


# A random finding. Its names are worked out in the statement, since pgbench has no texts but fixed ones; that takes
# less than 2 % of the statement's time.
RANDOM = '\\set finding random(0, :findings - 1)\n\\set organization :finding / :per_organization\n'
NAMES = {
    'organization_id': "bench.id('0', :organization)",
    'organization_slug': 'bench.slug(:organization)',
    'finding_id': "bench.id('5', :finding)",
}
FIRST_PAGE = {'page_limit': str(PAGE + 1), 'after_severity': '32767',
              'after_finding_id': 'ffffffff-ffff-ffff-ffff-ffffffffffff'}


def get_script():
    return RANDOM + statement('finding_service/get_finding.sql', NAMES)


def list_script(deep):
    """The first page of a random organization, or one that begins at a random place of it."""
    if not deep:
        return RANDOM + statement('finding_service/list_findings.sql', NAMES)
    place = {'after_finding_id': NAMES['finding_id']}
    return (RANDOM + '\\set after_severity random(3, 6)\n' +
            statement('finding_service/list_findings.sql', {**NAMES, **place}))


def per(figures, count):
    """CPU time of each process in microseconds per request (or row, …)."""
    return {process: seconds * 1e6 / max(count, 1) for process, seconds in figures['cpu'].items()}


def median_latency(prefix):
    """The median of pgbench's log, in microseconds; the log goes."""
    times = []
    for path in glob.glob(prefix + '.*'):
        with open(path, encoding='ascii') as file:
            times += [int(line.split()[2]) for line in file]
        os.remove(path)
    return statistics.median(times)


# Rows. Each measures one turn: (value, its CPU) of the server or (yardstick, its CPU).

def get_finding(bench, seconds=None):
    figures = bench.load('get', IN_FLIGHT, seconds)
    return figures['requests'] / figures['seconds'], per(figures, figures['requests'])


def get_finding_yardstick(bench, seconds=None):
    figures = bench.pgbench(get_script(), seconds)
    return figures['rate'], per(figures, figures['requests'])


def get_finding_latency(bench, seconds=None):
    figures = bench.load('get', 1, seconds)
    return figures['p50_us'], per(figures, figures['requests'])


def get_finding_latency_yardstick(bench, seconds=None):
    log = f'{bench.options.scratch}/latency'
    figures = bench.pgbench(get_script(), seconds, log)
    return median_latency(log), per(figures, figures['requests'])


def list_findings(bench, seconds=None, pages=1):
    figures = bench.load('list', LIST_IN_FLIGHT, seconds, pages)
    return figures['rows'] / figures['seconds'], per(figures, figures['rows'])


def list_findings_yardstick(bench, seconds=None, deep=False):
    figures = bench.pgbench(list_script(deep), seconds)
    return figures['rate'] * PAGE, per(figures, figures['requests'] * PAGE)


def task_rate(bench, seconds=None):
    figures = bench.work(TASK_AGENTS, TASKS_UNDER_WAY, seconds)
    return figures['tasks'] / figures['seconds'], per(figures, figures['all_tasks'])


def task_rate_yardstick(bench, seconds=None):
    figures = bench.pgbench_tasks(seconds)
    return figures['rate'], per(figures, figures['requests'])


def log_intake(bench, seconds=None):
    bench.sql('TRUNCATE task_logs')
    bench.sql('CHECKPOINT')
    figures = bench.work(LOG_AGENTS, LOG_AGENTS, seconds, '--credits', 1, '--log-bytes', LOG_BYTES)
    return figures['bytes'] / figures['seconds'] / 1e6, per(figures, figures['all_bytes'] / 1e6)


def log_intake_yardstick(bench, seconds=None):
    """COPY of what log_intake has brought, as another organization's."""
    path = f'{bench.options.scratch}/task_logs.copy'
    columns = 'organization_id, task_id, attempt, stream, log_offset, log_time, data'
    run(['psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', bench.options.yardstick_url, '-c',
         f"\\copy (SELECT bench.id('0', 999999), {columns.partition(', ')[2]} FROM task_logs) TO '{path}' (FORMAT binary)"])
    size = int(bench.sql('SELECT sum(length(data)) FROM task_logs')) / 1e6
    bench.sql('CHECKPOINT')
    begin = time.monotonic()
    _, cpu = bench.with_cpu(lambda: run(['psql', '-Xq', '-v', 'ON_ERROR_STOP=1', bench.options.yardstick_url, '-c',
                                         f"\\copy task_logs ({columns}) FROM '{path}' (FORMAT binary)"]))
    took = time.monotonic() - begin
    os.remove(path)
    return size / took, per({'cpu': {'postgresql': cpu['postgresql']}}, size)


TURNS = {
    'get-finding': (get_finding, get_finding_yardstick),
    'get-finding-latency': (get_finding_latency, get_finding_latency_yardstick),
    'list-findings': (list_findings, list_findings_yardstick),
    'list-findings-deep': (lambda bench, seconds=None: list_findings(bench, seconds, pages=0),
                           lambda bench, seconds=None: list_findings_yardstick(bench, seconds, deep=True)),
    'task-rate': (task_rate, task_rate_yardstick),
    'log-intake': (log_intake, log_intake_yardstick),
}


def take_turns(bench, row):
    server, yardstick = TURNS[row]
    bench.start_server()
    say(f'{row}: warming up')
    server(bench, min(WARM_UP_SECONDS, bench.options.seconds))
    yardstick(bench, min(WARM_UP_SECONDS, bench.options.seconds))
    turns = []
    for number in range(bench.options.rounds):
        turns.append((*server(bench), *yardstick(bench)))
        say(f'{row}: round {number + 1}: {turns[-1][0]:,.0f} against {turns[-1][2]:,.0f}')
    bench.stop_server()
    return {row: turns}


# Imports: three figures from the same rounds.

IMPORTED = ['checks', 'resources', 'scans', 'scan_results', 'account_coverage', 'findings']  # the triggers write events


class Imports:
    def __init__(self, bench):
        self.bench = bench

    def spare(self):
        number = self.bench.spare
        self.bench.spare += 1
        return number

    def send(self, number):
        bench = self.bench
        account = bench.sql(f"SELECT bench.id('2', {number})")
        bench.sql('CHECKPOINT')
        place = bench.sql('SELECT pg_current_wal_insert_lsn()')
        (output, _), cpu = bench.with_cpu(lambda: run(
            [f'{bench.options.built}/tests/bench/bench-import', '--endpoint', bench.endpoint,
             '--ca', f'{bench.options.scratch}/ca.pem', '--account-uid', str(100_000_000_000 + number),
             '--account', f'organizations/bench-{number}/cloudAccounts/{account}', '--evaluations', str(EVALUATIONS)],
            env={**os.environ, 'GENIE_API_KEY': bench.keys[number]}))
        figures = json.loads(output)
        wal = int(bench.sql(f"SELECT pg_current_wal_insert_lsn() - '{place}'"))
        return {**figures, 'wal': wal, 'cpu': {**cpu, 'loader': figures['cpu_seconds']}}

    def copy(self, source, target):
        """Writes what an import made in one organization out, and copies it into another. The seconds of the latter."""
        bench = self.bench
        lines = ['SET enable_seqscan = off;\n']  # as in genied's sessions: else foreign keys may scan what grows
        for table in IMPORTED:
            columns = bench.sql(f"SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
                                f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped")
            moved = ', '.join({'organization_id': f"bench.id('0', {target})",
                               'cloud_account_id': f"bench.id('2', {target})"}.get(column, column)
                              for column in columns.split(', '))
            path = f'{bench.options.scratch}/{table}.copy'
            run(['psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', bench.options.yardstick_url, '-c',
                 f"\\copy (SELECT {moved} FROM {table} WHERE organization_id = bench.id('0', {source})) TO '{path}'"])
            lines.append(f"\\copy {table} ({columns}) FROM '{path}'\n")
        bench.sql('CHECKPOINT')
        begin = time.monotonic()
        _, cpu = bench.with_cpu(lambda: run(['psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '--single-transaction', '-f', '-',
                                             bench.options.yardstick_url], input=''.join(lines)))
        return {'seconds': time.monotonic() - begin, 'cpu': cpu}

    def round(self):
        source = self.spare()
        first, again = self.send(source), self.send(source)
        if first['created'] != first['fail'] or again['created'] or again['unchanged'] != first['created']:
            raise Failure(f'the imports did not do what they should: {first}, {again}')
        copied = self.copy(source, self.spare())
        rates = [EVALUATIONS / figures['seconds'] for figures in (first, again, copied)]
        cpu = [per(figures, EVALUATIONS) for figures in (first, again, copied)]
        return {
            'import-first': (rates[0], cpu[0], rates[2], {'postgresql': cpu[2]['postgresql']}),
            'import-again': (rates[1], cpu[1], rates[0], cpu[0]),
            'import-again-wal': (again['wal'] / EVALUATIONS, {}, None, {}),
        }


def measure_imports(bench, rows):
    bench.start_server()
    imports = Imports(bench)
    turns = {row: [] for row in ('import-first', 'import-again', 'import-again-wal')
             if row.removesuffix('-wal') in rows}
    for number in range(bench.options.rounds):
        measured = imports.round()
        for row in turns:
            turns[row].append(measured[row])
        first, again = measured['import-first'], measured['import-again']
        say(f'imports: round {number + 1}: {first[0]:,.0f} against {first[2]:,.0f} evaluations/s; again '
            f"{again[0]:,.0f}, {measured['import-again-wal'][0]:.1f} bytes of WAL each")
    bench.stop_server()
    return turns


def measure_start(bench, rows):
    turns = {row: [] for row in ('memory-idle', 'start') if row in rows}
    for _ in range(bench.options.rounds):
        seconds = bench.start_server()
        bench.check_health()
        if 'start' in turns:
            turns['start'].append((seconds * 1000, {}, None, {}))
        if 'memory-idle' in turns:
            time.sleep(5)
            turns['memory-idle'].append((bench.resident_megabytes(), {}, None, {}))
        bench.stop_server()
    return turns


# Agents.

class Agents:
    """Agents that are connected and idle, as long as the context lasts."""

    def __init__(self, bench, count):
        self.bench, self.count = bench, count

    def __enter__(self):
        self.process = subprocess.Popen(self.bench.agents_command('idle', self.count), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.await_all()
        return self

    def await_all(self, limit=180):
        """What bench-agents says when all are there."""
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        line = self.process.stdout.readline() if ready else ''
        if not line:
            raise Failure(f'not all of {self.count} agents were there after {limit} s')
        return json.loads(line)

    def cpu(self):
        return process_cpu(self.process.pid)

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure_task_start(bench, rows):
    turns = {'task-start': [], 'task-start-p99': []}
    bench.start_server()
    bench.work(LOG_AGENTS, 1, 1)
    bench.sql('VACUUM ANALYZE')  # as autovacuum would have by now: others have left their tasks
    for number in range(bench.options.rounds):
        figures = bench.work(LOG_AGENTS, 1, None)
        cpu = per(figures, figures['all_tasks'])
        turns['task-start'].append((figures['start_p50_us'] / 1e3, cpu, None, {}))
        turns['task-start-p99'].append((figures['start_p99_us'] / 1e3, cpu, None, {}))
        say(f"task-start: round {number + 1}: p50 {figures['start_p50_us'] / 1e3:.2f} ms, "
            f"p99 {figures['start_p99_us'] / 1e3:.2f} ms")
    bench.stop_server()
    return turns


def statements(bench):
    """How many transactions there were: the server sends each of its statements as one."""
    time.sleep(1)  # a session reports its own within this
    return int(bench.sql("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"))


def idle_cpu(bench, agents):
    """CPU of idle agents in percent of a core, by process, and statements a second, over whole heartbeats."""
    seconds = HEARTBEAT_SECONDS * max(2, round(bench.options.seconds / HEARTBEAT_SECONDS))
    time.sleep(HEARTBEAT_SECONDS)  # what their coming left behind ends
    before, loader = statements(bench), agents.cpu()
    begin = time.monotonic()
    _, cpu = bench.with_cpu(lambda: time.sleep(seconds))
    took = time.monotonic() - begin
    count = statements(bench) - before - 1  # the first of the two questions counts as one
    return cpu['server'] / took * 100, {'server': cpu['server'] / took * 1e6, 'loader': (agents.cpu() - loader) / took * 1e6,
                                        'postgresql': cpu['postgresql'] / took * 1e6}, count / (took + 1)


def measure_idle(bench, rows):
    """Memory of 1,000 and 10,000 agents, and what the latter cost: each time in a new server."""
    turns = {row: [] for row in ('agent-memory', 'agent-memory-10000', 'agent-cpu', 'agent-statements')}
    for number in range(bench.options.rounds):
        for row, count in (('agent-memory', SOME_AGENTS), ('agent-memory-10000', MANY_AGENTS)):
            bench.start_server()
            bench.check_health()
            time.sleep(2)
            before = bench.resident_megabytes()
            with Agents(bench, count) as agents:
                time.sleep(2)
                kilobytes = (bench.resident_megabytes() - before) * 1000 / count
                turns[row].append((kilobytes, {}, None, {}))
                say(f'{row}: round {number + 1}: {kilobytes:.1f} kB')
                if count == MANY_AGENTS and 'agent-cpu' in rows:
                    percent, cpu, rate = idle_cpu(bench, agents)
                    turns['agent-cpu'].append((percent, cpu, None, {}))
                    turns['agent-statements'].append((rate, {}, None, {}))
                    say(f'agent-cpu: round {number + 1}: {percent:.2f} % of a core, {rate:.2f} statements/s')
            bench.stop_server()
    return {row: measured for row, measured in turns.items() if measured}


def measure_beside(bench, rows):
    """The same load with idle streams beside it and without."""
    turns = []
    bench.start_server()
    get_finding(bench, min(WARM_UP_SECONDS, bench.options.seconds))
    for number in range(bench.options.rounds):
        without = get_finding(bench)
        with Agents(bench, BESIDE_AGENTS):
            beside = get_finding(bench)
        turns.append((*beside, *without))
        say(f'unary-beside-streams: round {number + 1}: {beside[0]:,.0f} against {without[0]:,.0f}')
    bench.stop_server()
    return {'unary-beside-streams': turns}


def measure_reconnect(bench, rows):
    """The server is killed and started again, and its agents come back. From its start to the last one's Welcome; and
    when, after it was ready, the last try was refused."""
    turns = {'reconnect': [], 'reconnect-refused': []}
    for number in range(bench.options.rounds):
        bench.start_server()
        with Agents(bench, SOME_AGENTS) as agents:
            bench.server.kill()
            bench.server.wait()
            begin = time.monotonic()
            ready = begin + bench.start_server(again=True)
            back = agents.await_all()
            refused = max(0., back['last_refused'] - ready)
            turns['reconnect'].append((back['end'] - begin, {}, None, {}))
            turns['reconnect-refused'].append((refused, {}, None, {}))
            say(f"reconnect: round {number + 1}: {back['end'] - begin:.2f} s; refused, by the second since the kill: "
                f"{back['refused']}, the last one {refused:.2f} s after the server was ready")
        bench.stop_server()
    return turns


# Results.

def summarize(row, turns):
    def median(index):
        return statistics.median(turn[index] for turn in turns) if turns[0][index] is not None else None

    def median_cpu(index):
        return {process: round(statistics.median(turn[index][process] for turn in turns), 2)
                for process in turns[0][index]}
    unit, more_is_better, least, aim = LIMITS[row]
    value, yardstick = median(0), median(2)
    ratio = value / yardstick if yardstick else value

    def meets(limit):
        return ratio >= limit if more_is_better else ratio <= limit
    return {'row': row, 'unit': unit, 'value': round(value, 2), 'yardstick': yardstick and round(yardstick, 2),
            'ratio': round(ratio, 3), 'least': least, 'aim': aim,
            'verdict': 'aim met' if meets(aim) else 'least met' if meets(least) else 'NOT MET',
            'cpu_us': median_cpu(1), 'yardstick_cpu_us': median_cpu(3)}


def number(value):
    return '' if value is None else f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def cpu_text(cpu):
    return ', '.join(f'{process} {number(value)}' for process, value in cpu.items())


def print_table(results):
    lines = [('row', 'value', 'yardstick', 'unit', 'ratio', 'least', 'aim', '', 'CPU, µs each', 'of the yardstick')]
    lines += [(r['row'], number(r['value']), number(r['yardstick']), r['unit'],
               number(r['ratio']) if r['yardstick'] else '', number(r['least']), number(r['aim']), r['verdict'],
               cpu_text(r['cpu_us']), cpu_text(r['yardstick_cpu_us'])) for r in results]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print('  '.join(text.rjust(width) if i in (1, 2, 4, 5, 6) else text.ljust(width)
                        for i, (text, width) in enumerate(zip(line, widths))).rstrip())


def measure(bench):
    rows = bench.options.rows
    turns = {}
    for row in rows:
        if row in TURNS:
            turns.update(take_turns(bench, row))
    if {'import-first', 'import-again'} & set(rows):
        turns.update(measure_imports(bench, rows))
    if {'memory-idle', 'start'} & set(rows):
        turns.update(measure_start(bench, rows))
    for parts, measured in ((('task-start',), measure_task_start), (('agent-memory', 'agent-cpu'), measure_idle),
                            (('unary-beside-streams',), measure_beside), (('reconnect',), measure_reconnect)):
        if set(parts) & set(rows):
            turns.update(measured(bench, rows))
    return [summarize(row, turns[row]) for row in LIMITS if row in turns]


def main():
    parser = argparse.ArgumentParser()
    for name in ('scratch', 'built', 'server-url', 'yardstick-url'):
        parser.add_argument('--' + name, required=True)
    for name in ('postmaster', 'organizations', 'rounds', 'seconds', 'findings'):
        parser.add_argument('--' + name, type=int, required=True)
    parser.add_argument('--json', action='store_true')
    parser.add_argument('rows', nargs='+')
    bench = Bench(parser.parse_args())
    try:
        results = measure(bench)
    except Failure as failure:
        say(f'tools/bench: {failure}')
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        bench.stop_server()
    if bench.options.json:
        for result in results:
            print(json.dumps(result))
    else:
        print_table(results)
    return 0


if __name__ == '__main__':
    sys.exit(main())
