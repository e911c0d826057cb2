// What a refusal says beside its code: the messages of google.rpc.Status, by their types' names.
'use strict';

const path = require('node:path');
const protobuf = require('protobufjs');

const root = new protobuf.Root();
root.resolvePath = (_, file) => path.join(__dirname, '../../proto', file);
root.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto'], { keepCase: true });

function details(error) {
  const [packed] = error.metadata.get('grpc-status-details-bin');
  const status = root.lookupType('google.rpc.Status').decode(packed);
  const found = {};
  for (const { type_url: url, value } of status.details) {
    const name = url.slice(url.lastIndexOf('/') + 1);
    const type = root.lookupType(name);
    found[name] = type.toObject(type.decode(value), { longs: String });
  }
  return found;
}

module.exports = { details };
