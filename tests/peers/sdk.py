#!/usr/bin/env python3
"""The SDKs of AWS, Google and Azure, unmodified, and a stand-in for the other side that verifies.

  serve  stands in for AWS STS, Google STS (http) and Entra's token endpoint (https, with a CA of its own,
         made here). Verifies what it is sent by PyJWT with the issuer's published JWKS: signature, iss,
         aud, sub, exp. Says where it is on stdout, and every verdict in DIR/log, a JSON object a line.
  use    asks one SDK for credentials, as its environment says and nothing else; once for each line on
         stdin, on one credential object. A line `later S` moves this process's clock first.

No emulator that can be installed refuses anything, so that this one has to (see tests/e2e/sdk.rs).
"""
import argparse
import datetime
import http.server
import ipaddress
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse

import jwt


class Verdict(Exception):
    """A refusal, in words."""


class StandIn(http.server.BaseHTTPRequestHandler):
    """All three; which one is asked shows in the request."""

    options = None
    base = None
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def verify(self, who, assertion):
        """What the assertion says, if it holds; read anew each time, as a cache that is empty does."""
        o = self.options
        told = {"who": who, "ok": False}
        try:
            with open(o.jwks) as file:
                keys = {key["kid"]: key for key in json.load(file)["keys"]}
            kid = jwt.get_unverified_header(assertion)["kid"]
            if kid not in keys:
                raise Verdict(f"kid {kid} is not published")
            key = jwt.PyJWK(keys[kid])
            claims = jwt.decode(
                assertion, key.key, algorithms=[keys[kid]["alg"]], issuer=o.iss,
                audience=getattr(o, who), subject=o.sub, leeway=0,
                options={"require": ["iss", "aud", "sub", "exp", "iat", "jti"], "strict_aud": True},
            )
            told.update(ok=True, jti=claims["jti"])
            return claims
        except (jwt.PyJWTError, Verdict, KeyError) as error:
            told.update(error=type(error).__name__, text=str(error))
            raise Verdict(f"{type(error).__name__}: {error}") from error
        finally:
            with self.lock, open(os.path.join(o.dir, "log"), "a") as log:
                log.write(json.dumps(told) + "\n")

    def answer(self, status, body, kind="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        tenant = self.path.strip("/").split("/")[0]
        base = f"{self.base}/{tenant}"
        self.answer(200, {
            "issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize", "jwks_uri": f"{base}/keys",
            "tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration",
        })

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        if form.get("Action") == "AssumeRoleWithWebIdentity":
            self.aws(form)
        elif "subject_token" in form:
            self.google(form)
        elif "client_assertion" in form:
            self.azure(form)
        else:
            self.answer(404, {"error": "nobody here knows that"})

    def aws(self, form):
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        try:
            if not form.get("RoleArn", "").startswith("arn:aws:iam::"):
                raise Verdict("no role")
            self.verify("aws", form["WebIdentityToken"])
        except Verdict as error:
            self.answer(400, f"<ErrorResponse {space}><Error><Type>Sender</Type><Code>InvalidIdentityToken"
                        f"</Code><Message>{error}</Message></Error></ErrorResponse>", "text/xml")
            return
        # Five minutes: botocore asks again each time when less than ten are left.
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
        self.answer(200, f"<AssumeRoleWithWebIdentityResponse {space}><AssumeRoleWithWebIdentityResult>"
                    "<Credentials><AccessKeyId>ASIASTANDIN</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
                    f"<SessionToken>t</SessionToken><Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
                    "</Credentials></AssumeRoleWithWebIdentityResult>"
                    "</AssumeRoleWithWebIdentityResponse>", "text/xml")

    def google(self, form):
        try:
            if form["grant_type"] != "urn:ietf:params:oauth:grant-type:token-exchange":
                raise Verdict("grant_type")
            if not self.options.google.endswith(form["audience"]):
                raise Verdict("no such provider: " + form["audience"])
            if form["subject_token_type"] != "urn:ietf:params:oauth:token-type:jwt":
                raise Verdict("subject_token_type")
            self.verify("google", form["subject_token"])
        except Verdict as error:
            self.answer(400, {"error": "invalid_grant", "error_description": str(error)})
            return
        self.answer(200, {"access_token": "google-token", "token_type": "Bearer", "expires_in": 300,
                          "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})

    def azure(self, form):
        try:
            if form["client_assertion_type"] != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
                raise Verdict("client_assertion_type")
            if form["client_id"] != "00000000-0000-0000-0000-00000000c11e":
                raise Verdict("client_id")
            self.verify("azure", form["client_assertion"])
        except Verdict as error:
            self.answer(401, {"error": "invalid_client", "error_description": f"AADSTS700000: {error}"})
            return
        self.answer(200, {"access_token": "azure-token", "token_type": "Bearer", "expires_in": 300})


def authority(directory):
    """A CA and a certificate of localhost; the paths of the CA's and of both of the server's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)
    usage = {name: False for name in ("content_commitment", "key_encipherment", "data_encipherment",
                                      "key_agreement", "encipher_only", "decipher_only")}

    def certificate(name, key, issuer, issuer_key, ca):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            issuer or subject, subject, key.public_key(), x509.random_serial_number(),
            now - datetime.timedelta(hours=1), now + datetime.timedelta(days=1),
        ).add_extension(x509.BasicConstraints(ca, None), critical=True)
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        if not ca:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("stand-in CA", ca_key, None, ca_key, True)
    leaf = certificate("localhost", key, ca.subject, ca_key, False)
    pem = serialization.Encoding.PEM
    texts = {
        "ca.pem": ca.public_bytes(pem),
        "leaf.pem": leaf.public_bytes(pem),
        "leaf.key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
    paths = [os.path.join(directory, name) for name in texts]
    for path, text in zip(paths, texts.values()):
        with open(path, "wb") as file:
            file.write(text)
    return paths


def serve(options):
    ca, leaf, key = authority(options.dir)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf, key)
    StandIn.options = options
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    secure = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    StandIn.base = f"https://localhost:{secure.server_address[1]}"
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    print(json.dumps({"http": f"http://127.0.0.1:{plain.server_address[1]}", "https": StandIn.base,
                      "ca": ca}), flush=True)
    plain.serve_forever()


def aws():
    import botocore.session
    credentials = None

    def ask():
        nonlocal credentials
        credentials = credentials or botocore.session.Session().get_credentials()
        if credentials is None:
            raise Verdict("no credentials")
        return credentials.get_frozen_credentials().access_key
    return ask


def google():
    import google.auth
    import google.auth.transport.requests
    credentials = None

    def ask():
        nonlocal credentials
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        credentials = credentials or google.auth.default(scopes=scopes)[0]
        credentials.refresh(google.auth.transport.requests.Request())
        return credentials.token
    return ask


def azure():
    import azure.identity
    credential = azure.identity.WorkloadIdentityCredential()
    return lambda: credential.get_token("https://vault.azure.net/.default").token


def use(options):
    ask = {"aws": aws, "google": google, "azure": azure}[options.sdk]()
    real, ahead = time.time, 0
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["later"]:
            ahead += int(words[1])
            time.time = lambda: real() + ahead
        try:
            answer = {"ok": True, "got": ask()}
        except Exception as error:  # whatever an SDK raises is what its user sees
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    server = commands.add_parser("serve")
    for name in ("jwks", "iss", "sub", "aws", "google", "azure", "dir"):
        server.add_argument(f"--{name}", required=True)
    server.set_defaults(run=serve)
    user = commands.add_parser("use")
    user.add_argument("sdk", choices=["aws", "google", "azure"])
    user.set_defaults(run=use)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
