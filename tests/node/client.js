// The API as a Node program sees it: proto files loaded at run time, TLS, one credential.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const folder = path.join(__dirname, '../../proto');
const files = fs.readdirSync(path.join(folder, 'devopsgenie/v1')).map((name) => `devopsgenie/v1/${name}`);
const definition = loader.loadSync(files, { includeDirs: [folder], longs: String, enums: String, oneofs: true });
const { v1 } = grpc.loadPackageDefinition(definition).devopsgenie;

const opened = [];

// A service as one caller sees it; credential is a JWT, an API key or nothing.
function service(name, credential) {
  const authority = fs.readFileSync(process.env.GENIE_CA_FILE);
  let credentials = grpc.credentials.createSsl(authority);
  if (credential) {
    const header = new grpc.Metadata();
    header.set('authorization', `Bearer ${credential}`);
    const generator = (_, callback) => callback(null, header);
    credentials = grpc.credentials.combineChannelCredentials(
      credentials,
      grpc.credentials.createFromMetadataGenerator(generator),
    );
  }
  const client = new v1[name](process.env.GENIE_ENDPOINT, credentials);
  opened.push(client);
  return client;
}

// A unary call as a promise.
function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

function closeAll() {
  for (const client of opened.splice(0)) client.close();
}

module.exports = { call, closeAll, grpc, service };
