'use strict';

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const { after, before, describe, test } = require('node:test');
const { call, closeAll, grpc, service } = require('./client.js');
const { details } = require('./details.js');

const COUNT = 25;
const parent = `organizations/${process.env.GENIE_ORGANIZATION}`;
const key = process.env.GENIE_API_KEY;

after(closeAll);

// Drives ImportResults: sends each message when the one before has been answered; resolves to all answers.
function exchange(messages) {
  return new Promise((resolve, reject) => {
    const stream = service('ScanService', key).ImportResults();
    const waiting = [...messages];
    const answers = [];
    const next = () => (waiting.length ? stream.write(waiting.shift()) : stream.end());
    stream.on('data', (answer) => {
      answers.push(answer);
      next();
    });
    stream.on('error', reject);
    stream.on('end', () => resolve(answers));
    next();
  });
}

function header(account) {
  const scanTime = { seconds: Math.floor(Date.now() / 1000) };
  return { header: { parent: account, scanner: 'Prowler', scanTime, requestId: randomUUID() } };
}

function evaluation(record) {
  return {
    record,
    accountUid: '123456789012',
    check: 's3_bucket_versioning',
    service: 's3',
    resourceUid: `arn:aws:s3:::bucket-${record}`,
    region: 'us-east-1',
    status: 'FAIL',
    severity: record % 2 ? 'HIGH' : 'LOW',
  };
}

async function refusalOf(promise) {
  const error = await promise.then(
    () => assert.fail('not refused'),
    (refusal) => refusal,
  );
  return { code: error.code, ...details(error) };
}

describe('findings', () => {
  let account;
  let answers;

  before(async () => {
    const accounts = await call(service('CloudAccountService', key), 'ListCloudAccounts', { parent });
    account = accounts.cloudAccounts.find(({ provider }) => provider === 'AWS').name;
    const evaluations = Array.from({ length: COUNT }, (_, n) => evaluation(n + 1));
    const batch = (first, some) => ({ batch: { firstRecord: first, recordCount: some.length, evaluations: some } });
    answers = await exchange([
      header(account),
      batch(1, evaluations.slice(0, 10)),
      batch(11, evaluations.slice(10)),
      { end: { recordCount: COUNT } },
    ]);
  });

  test('an import answers header, batches and end', () => {
    assert.deepEqual(
      answers.map(({ part }) => part),
      ['started', 'ack', 'ack', 'summary'],
    );
    assert.deepEqual(
      answers.slice(0, 3).map((answer) => answer[answer.part].nextRecord),
      ['1', '11', String(COUNT + 1)],
    );
    const { summary } = answers[3];
    assert.equal(summary.state, 'COMPLETED');
    assert.equal(summary.cloudAccount, account);
    assert.deepEqual([summary.results.fail, summary.findings.created], [COUNT, COUNT]);
  });

  test('pages show every finding once, the most severe first', async () => {
    const client = service('FindingService', key);
    const seen = [];
    const sizes = [];
    let pageToken = '';
    do {
      const page = await call(client, 'ListFindings', { parent, pageSize: 10, pageToken });
      seen.push(...page.findings);
      sizes.push(page.findings.length);
      pageToken = page.nextPageToken;
    } while (pageToken);
    assert.deepEqual(sizes, [10, 10, 5]);
    assert.equal(new Set(seen.map(({ name }) => name)).size, COUNT);
    assert.deepEqual(
      seen.map(({ severity }) => severity),
      [...Array(13).fill('HIGH'), ...Array(12).fill('LOW')],
    );
  });

  test('a decision changes the state, and a wrong one says why not', async () => {
    const client = service('FindingService', key);
    const { findings } = await call(client, 'ListFindings', { parent, pageSize: 1 });
    const { name } = findings[0];
    const acknowledged = await call(client, 'AcknowledgeFinding', { name, note: 'gesehen' });
    assert.deepEqual([acknowledged.state, acknowledged.note], ['ACKNOWLEDGED', 'gesehen']);

    const refusal = await refusalOf(call(client, 'AcknowledgeFinding', { name }));
    assert.equal(refusal.code, grpc.status.FAILED_PRECONDITION);
    assert.equal(refusal['google.rpc.ErrorInfo'].domain, 'devopsgenie.dev');
    const [violation] = refusal['google.rpc.PreconditionFailure'].violations;
    assert.equal(violation.subject, name);
    assert.match(violation.description, /ACKNOWLEDGED.*OPEN/);
    assert.equal(refusal['google.rpc.ResourceInfo'].resource_name, name);
  });

  test('a field that breaks a rule is named', async () => {
    const client = service('FindingService', key);
    const refusal = await refusalOf(call(client, 'ListFindings', { parent, pageSize: -1 }));
    assert.equal(refusal.code, grpc.status.INVALID_ARGUMENT);
    const violations = refusal['google.rpc.BadRequest'].field_violations;
    assert.deepEqual(
      violations.map(({ field }) => field),
      ['page_size'],
    );
  });

  test('two imports of an account do not run at once, and a caller that goes leaves the way free', async () => {
    const first = service('ScanService', key).ImportResults();
    first.on('error', () => {});
    const started = new Promise((resolve) => first.on('data', resolve));
    first.write(header(account));
    assert.equal((await started).part, 'started');
    const refusal = await refusalOf(exchange([header(account)]));
    assert.equal(refusal.code, grpc.status.FAILED_PRECONDITION);
    assert.equal(refusal['google.rpc.ErrorInfo'].reason, 'SCAN_RUNNING');
    assert.ok(refusal['google.rpc.RetryInfo'].retry_delay);
    first.cancel();
  });
});

test('a deadline is kept', async () => {
  const client = service('AuthService', key);
  await assert.rejects(
    new Promise((resolve, reject) => {
      client.WhoAmI({}, { deadline: Date.now() - 1 }, (error, answer) => (error ? reject(error) : resolve(answer)));
    }),
    { code: grpc.status.DEADLINE_EXCEEDED },
  );
});

test('the request id that was sent comes back', async () => {
  const metadata = new grpc.Metadata();
  metadata.set('x-request-id', 'from-node-1');
  const id = await new Promise((resolve, reject) => {
    const ongoing = service('AuthService', key).WhoAmI({}, metadata, (error) => error && reject(error));
    ongoing.on('status', ({ metadata: trailers }) => resolve(trailers.get('x-request-id')[0]));
  });
  assert.equal(id, 'from-node-1');
});
