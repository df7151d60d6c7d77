// Microsoft's own client for Node (MSAL, unmodified) with a certificate and a key in software: what it sends to
// the token endpoint, which is nobody here. Prints {"header": {…}, "claims": {…}} of its assertion, and never
// the assertion.
//
//     entra.mjs PRIVATE-KEY.pem CERTIFICATE.pem CLIENT-ID TENANT

import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.ASSERTD_PEERS, "as", "package.json"));
const { ConfidentialClientApplication } = require("@azure/msal-node");

const [key, certificate, clientId, tenant] = process.argv.slice(2);
const authority = `https://login.microsoftonline.com/${tenant}`;
const pem = readFileSync(certificate, "utf8");
const thumbprintSha256 = new X509Certificate(pem).fingerprint256.replaceAll(":", "");

let sent = null;
const networkClient = {
  async sendGetRequestAsync(url) {
    return { status: 200, headers: {}, body: {
      issuer: `${authority}/v2.0`, token_endpoint: `${authority}/oauth2/v2.0/token`,
      authorization_endpoint: `${authority}/oauth2/v2.0/authorize`, jwks_uri: `${authority}/keys`,
      tenant_discovery_endpoint: url, metadata: [],
    } };
  },
  async sendPostRequestAsync(_url, options) {
    sent = new URLSearchParams(options.body);
    return { status: 200, headers: {}, body: { access_token: "token", token_type: "Bearer", expires_in: 300 } };
  },
};

const application = new ConfidentialClientApplication({
  auth: { clientId, authority, clientCertificate: { thumbprintSha256, privateKey: readFileSync(key, "utf8") } },
  system: { networkClient },
});
await application.acquireTokenByClientCredential({ scopes: ["https://graph.microsoft.com/.default"] });

const part = (index) => JSON.parse(Buffer.from(sent.get("client_assertion").split(".")[index], "base64url"));
console.log(JSON.stringify({ header: part(0), claims: part(1) }));
