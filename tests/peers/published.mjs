// jose, the JavaScript library, fetches a set from a URL and verifies an assertion by it.
//
//   node published.mjs JWKS-URL ISSUER AUDIENCE <assertion
//
// Ends with 0, or with 1 and the reason on standard output. ASSERTD_PEERS says where jose is.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.ASSERTD_PEERS}/as/`);
const { createRemoteJWKSet, jwtVerify } = require('jose');

const [url, issuer, audience] = process.argv.slice(2);
try {
  const keys = createRemoteJWKSet(new URL(url));
  await jwtVerify(readFileSync(0, 'utf8').trim(), keys, { issuer, audience });
} catch (why) {
  console.log(`${why.code ?? why.name}: ${why.message}`);
  process.exitCode = 1;
}
