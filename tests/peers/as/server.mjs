// An unmodified oidc-provider on loopback: the authorization server that our assertions must satisfy.
//
// Owns: its configuration, made as strict as the standards let it be, so that what passes here is
// what RFC 7523 and draft-ietf-oauth-rfc7523bis ask for and not what one server forgives. Must never
// patch the server: everything below goes through its documented configuration.
//
//   node server.mjs CLIENTS.json [--port N] [--issuer URL] [--max-lifetime SECONDS]
//
// CLIENTS.json is read anew at every request, so that a key can be registered after the server has
// said which issuer it is. It holds a list of
//   {"client_id": "payments-prod", "alg": "ES256", "jwks": {"keys": […]}}   redeems assertions
//   {"client_id": "payments-prod", "alg": "ES256", "jwks_uri": "http://…"}  the same, with keys that are fetched
//   {"client_id": "resource-server", "client_secret": "…"}                  introspects access tokens
//
// Prints `ready ISSUER` on standard output once it accepts connections; refusals and their reasons
// go to standard error, one per line. Ends on SIGTERM, and when its standard input closes if that is
// a pipe: a server must not outlive the test that started it.

import { readFileSync, fstatSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const peers = process.env.ASSERTD_PEERS ?? join(import.meta.dirname, '../../../target/peers');
const require = createRequire(join(peers, 'as/package.json'));
const { Provider, errors } = require('oidc-provider');
const { createMemoryAdapter } = require('oidc-provider/lib/adapters/memory_adapter.js');

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    port: { type: 'string', default: '0' },
    issuer: { type: 'string' },
    'max-lifetime': { type: 'string', default: '300' },
  },
});
if (positionals.length !== 1) {
  console.error('usage: server.mjs CLIENTS.json [--port N] [--issuer URL] [--max-lifetime SECONDS]');
  process.exit(64);
}
const clientsPath = positionals[0];
const lifetimeMax = Number(options['max-lifetime']);

const SCOPE = 'api:read';
const CLOCK_TOLERANCE_S = 5; // the server's default of 15 would hide an assertion that lives too long

function clientMetadata({ client_id, alg, jwks, jwks_uri, client_secret }) {
  const common = { client_id, redirect_uris: [], response_types: [] };
  if (client_secret !== undefined) {
    return {
      ...common, client_secret, token_endpoint_auth_method: 'client_secret_basic', grant_types: [],
    };
  }
  return {
    ...common,
    ...(jwks_uri === undefined ? { jwks } : { jwks_uri }),
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: alg,
    grant_types: ['client_credentials'],
    scope: SCOPE,
  };
}

// Everything is kept in memory by the server's own adapter; only the clients come from the file.
const memory = createMemoryAdapter(CLOCK_TOLERANCE_S);
function adapter(model) {
  if (model !== 'Client') return memory(model);
  return {
    async find(id) {
      const client = JSON.parse(readFileSync(clientsPath, 'utf8')).find((c) => c.client_id === id);
      return client && clientMetadata(client);
    },
  };
}

// Runs after the server's own checks: signature, pinned alg, iss = sub = client_id, exp, jti present.
// It adds what draft-ietf-oauth-rfc7523bis demands of a client assertion, and our own promises.
function assertStrict(ctx, claims, header) {
  const refuse = (why) => { throw new errors.InvalidClientAuth(why); };
  if (header.typ !== 'client-authentication+jwt') refuse(`typ is ${JSON.stringify(header.typ)}`);
  if (typeof header.kid !== 'string') refuse('no kid');
  const extra = Object.keys(header).filter((name) => !['alg', 'typ', 'kid'].includes(name));
  if (extra.length > 0) refuse(`unexpected header members: ${extra}`);
  if (claims.aud !== ctx.oidc.issuer) refuse('aud is not the issuer identifier as a sole string');
  if (claims.nbf !== undefined) refuse('nbf present');
  if (!Number.isInteger(claims.iat)) refuse('iat is not an integer');
  if (claims.iat > Date.now() / 1000) refuse('iat lies in the future'); // same clock as the signer's
  if (!Number.isInteger(claims.exp)) refuse('exp is not an integer');
  if (claims.exp - claims.iat > lifetimeMax) refuse(`lives longer than ${lifetimeMax} s`);
}

function provider(issuer) {
  const algorithms = ['ES256', 'ES384', 'RS256', 'PS256', 'EdDSA', 'Ed25519'];
  const server = new Provider(issuer, {
    adapter,
    scopes: [SCOPE],
    clockTolerance: CLOCK_TOLERANCE_S,
    // Its own dispatcher connects to public addresses alone, and keys are on loopback here.
    fetch: (url, { dispatcher, ...how }) => fetch(url, how),
    clientAuthMethods: ['private_key_jwt', 'client_secret_basic'],
    enabledJWA: { clientAuthSigningAlgValues: algorithms },
    assertJwtClientAuthClaimsAndHeader: assertStrict,
    ttl: { ClientCredentials: 300 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      // Only the resource server asks; a workload's own client may not.
      introspection: {
        enabled: true,
        allowedPolicy: (ctx, client) => client.clientAuthMethod === 'client_secret_basic',
      },
    },
  });
  for (const event of ['grant.error', 'introspection.error']) {
    server.on(event, (ctx, err) => {
      const why = err.error_detail ?? err.cause?.message ?? err.error_description ?? err.message;
      console.error(`refused ${ctx.path} ${err.error}: ${why}`);
    });
  }
  server.on('server_error', (ctx, err) => console.error(`server error ${ctx.path}:`, err));
  return server;
}

const http = createServer();
http.listen(Number(options.port), '127.0.0.1', () => {
  const issuer = options.issuer ?? `http://127.0.0.1:${http.address().port}`;
  http.on('request', provider(issuer).callback());
  console.log(`ready ${issuer}`);
});

function stop() {
  http.close();
  http.closeAllConnections();
  process.exit(0);
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
if (fstatSync(0).isFIFO() || fstatSync(0).isSocket()) process.stdin.resume().on('end', stop);
