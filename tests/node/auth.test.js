'use strict';

const assert = require('node:assert/strict');
const { after, test } = require('node:test');
const { call, closeAll, grpc, service } = require('./client.js');

after(closeAll);

test('an API key is told its organization', async () => {
  const answer = await call(service('AuthService', process.env.GENIE_API_KEY), 'WhoAmI', {});
  assert.equal(answer.kind, 'API_KEY');
  assert.equal(answer.organization, `organizations/${process.env.GENIE_ORGANIZATION}`);
});

test('without a credential a call is UNAUTHENTICATED, with details', async () => {
  await assert.rejects(call(service('AuthService'), 'WhoAmI', {}), (error) => {
    assert.equal(error.code, grpc.status.UNAUTHENTICATED);
    assert.equal(error.metadata.get('grpc-status-details-bin').length, 1);
    return true;
  });
});
