#!/usr/bin/env python3
"""Microsoft's own clients (MSAL for Python and for Node, unmodified) beside ours, at a stand-in of Entra ID
that verifies.

One line of JSON on standard input:
    {"assertion": …, "certificate": PEM, "client_id": …, "tenant": …}
`certificate` is what was registered for the client. Prints one JSON object:
    {"msal": {"header": {…}, "claims": {…}}, "node": …, "accepted": {"msal": "", "ours": "", …}, "certificate": {…}}

MSAL makes an assertion of its own from a key in software and its certificate, and it sends ours where it is
given one. The stand-in goes by what Microsoft documents of certificate credentials ("Microsoft identity
platform application authentication certificate credentials"), with PyJWT and cryptography; `accepted` has ""
for what it took, or the rule that was broken. A stand-in that cannot refuse proves nothing: "broken" has the
same things with one of them wrong. Never prints an assertion.
"""

import base64
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid

import jwt
import msal
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

AUTHORITY = "https://login.microsoftonline.com"
SCOPE = ["https://graph.microsoft.com/.default"]
MEMBERS = {"alg", "typ", "x5t#S256"}
CLAIMS = {"aud", "exp", "iss", "jti", "nbf", "sub", "iat"}
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
LIFE_S = 600  # "5-10 minutes after nbf at most"


class Broken(Exception):
    pass


class Answer:
    def __init__(self, status, body):
        self.status_code, self.text, self.headers = status, json.dumps(body), {}

    def raise_for_status(self):
        if self.status_code >= 400:
            raise Broken(self.text)


class Entra:
    """What answers MSAL: an HTTP client of its (`http_client`), with one application registered."""

    def __init__(self, tenant, client_id, certificate):
        self.tenant, self.client_id = tenant, client_id
        self.certificate = x509.load_pem_x509_certificate(certificate.encode())
        self.why, self.seen = "nothing was sent", None

    @property
    def endpoint(self):
        return f"{AUTHORITY}/{self.tenant}/oauth2/v2.0/token"

    def get(self, url, **_):
        base = f"{AUTHORITY}/{self.tenant}"
        return Answer(200, {"issuer": f"{base}/v2.0", "token_endpoint": self.endpoint,
                            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                            "tenant_discovery_endpoint": url})

    def post(self, url, data=None, **_):
        form = data if isinstance(data, dict) else dict(urllib.parse.parse_qsl(data))
        try:
            if url != self.endpoint or form["client_id"] != self.client_id:
                raise Broken("another application")
            if form["grant_type"] != "client_credentials":
                raise Broken("grant_type")
            if form["client_assertion_type"] != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
                raise Broken("client_assertion_type")
            assertion = form["client_assertion"]
            self.verify(assertion.decode() if isinstance(assertion, bytes) else assertion)
            self.why = ""
        except (Broken, jwt.PyJWTError) as error:
            self.why = str(error) if isinstance(error, Broken) else type(error).__name__
            return Answer(401, {"error": "invalid_client", "error_description": f"AADSTS700027: {self.why}"})
        return Answer(200, {"access_token": "token", "token_type": "Bearer", "expires_in": 300})

    def verify(self, assertion):
        header = jwt.get_unverified_header(assertion)
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        x5t = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
        # x5c is for those who are known by an authority's name; nobody here is.
        if not set(header) - {"x5c"} == MEMBERS:
            raise Broken(f"header members: {sorted(header)}")
        if header["alg"] != "PS256":
            raise Broken("alg")
        if header["typ"] != "JWT":
            raise Broken("typ")
        if header["x5t#S256"].rstrip("=") != x5t:
            raise Broken("x5t#S256")
        now = datetime.datetime.now(datetime.timezone.utc)
        if not self.certificate.not_valid_before_utc <= now <= self.certificate.not_valid_after_utc:
            raise Broken("the certificate is not valid now")
        claims = jwt.decode(assertion, self.certificate.public_key(), algorithms=["PS256"], audience=self.endpoint,
                            issuer=self.client_id, subject=self.client_id, leeway=0,
                            options={"require": sorted(CLAIMS - {"nbf"}), "strict_aud": True})
        # MSAL for Python sends no nbf, and MSAL for Node does.
        if set(claims) | {"nbf"} != CLAIMS:
            raise Broken(f"claims: {sorted(claims)}")
        if not GUID.match(claims["jti"]):
            raise Broken("jti")
        if claims["exp"] - claims.get("nbf", claims["iat"]) > LIFE_S:
            raise Broken("lifetime")
        self.seen = {"header": header, "claims": claims}


def made_here(life=datetime.timedelta(days=1)):
    """A key in software and its certificate, as an operator without us makes them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "software")])
    now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now,
                                          now + life).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                            serialization.NoEncryption())
    return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def asked_by_msal(entra, credential):
    """What the stand-in says of what MSAL sends with this credential."""
    application = msal.ConfidentialClientApplication(
        entra.client_id, authority=f"{AUTHORITY}/{entra.tenant}", client_credential=credential,
        http_client=entra, instance_discovery=False)
    answer = application.acquire_token_for_client(SCOPE)
    if ("access_token" in answer) != (entra.why == ""):
        raise SystemExit(f"MSAL and the stand-in differ: {answer}")
    return entra.why


def seen_by_others(pem):
    """What cryptography reads in a certificate."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    certificate.verify_directly_issued_by(certificate)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    return {
        "subject": certificate.subject.rfc4514_string(), "version": certificate.version.name,
        "self_signed": certificate.subject == certificate.issuer,
        "ca": certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca,
        "digital_signature": usage.digital_signature, "key_cert_sign": usage.key_cert_sign,
        "days": (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days,
        "sha1": certificate.fingerprint(hashes.SHA1()).hex().upper(),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex().upper(),
        "bits": certificate.public_key().key_size,
    }


def made_by_node(key, certificate, client_id, tenant):
    """What MSAL for Node sends for the same key and certificate (entra.mjs)."""
    here, peers = os.path.dirname(os.path.abspath(__file__)), os.environ["ASSERTD_PEERS"]
    with tempfile.TemporaryDirectory() as directory:
        paths = [os.path.join(directory, name) for name in ("key.pem", "certificate.pem")]
        for path, pem in zip(paths, (key, certificate)):
            with open(path, "w", encoding="ascii") as file:
                file.write(pem)
        command = [os.path.join(peers, "bin", "node"), os.path.join(here, "entra.mjs"), *paths, client_id, tenant]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout)


def broken(tenant, client_id):
    """An assertion of MSAL's kind with one thing wrong, and who refuses it."""
    key, certificate = made_here()
    der = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(serialization.Encoding.DER)
    x5t = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    entra = Entra(tenant, client_id, certificate)
    now = int(time.time())
    good = {"aud": entra.endpoint, "iss": client_id, "sub": client_id, "jti": str(uuid.uuid4()), "iat": now, "nbf": now,
            "exp": now + 60}
    variants = {
        "nothing": ("PS256", {"x5t#S256": x5t}, {}),
        "x5t#S256 missing": ("PS256", {}, {}),
        "x5t#S256 of another": ("PS256", {"x5t#S256": "A" * 43}, {}),
        "x5t in its place": ("PS256", {"x5t": "A" * 27}, {}),
        "kid beside it": ("PS256", {"x5t#S256": x5t, "kid": "a"}, {}),
        "RS256": ("RS256", {"x5t#S256": x5t}, {}),
        "typ": ("PS256", {"x5t#S256": x5t, "typ": "client-authentication+jwt"}, {}),
        "audience": ("PS256", {"x5t#S256": x5t}, {"aud": f"{AUTHORITY}/{tenant}/v2.0"}),
        "audiences": ("PS256", {"x5t#S256": x5t}, {"aud": [entra.endpoint]}),
        "issuer": ("PS256", {"x5t#S256": x5t}, {"iss": "somebody"}),
        "subject": ("PS256", {"x5t#S256": x5t}, {"sub": "somebody"}),
        "jti": ("PS256", {"x5t#S256": x5t}, {"jti": "q6urq6urq6urq6urq6urqw"}),
        "nbf": ("PS256", {"x5t#S256": x5t}, {"nbf": now + 600}),
        "exp": ("PS256", {"x5t#S256": x5t}, {"exp": now - 1}),
        "lifetime": ("PS256", {"x5t#S256": x5t}, {"exp": now + 601}),
        "one claim more": ("PS256", {"x5t#S256": x5t}, {"scope": "all"}),
    }
    whys = {}
    for name, (alg, header, claims) in variants.items():
        assertion = jwt.encode({**good, **claims}, key, algorithm=alg, headers=header)
        whys[name] = asked_by_msal(entra, {"client_assertion": assertion})
    ended_key, ended_pem = made_here(datetime.timedelta(minutes=30))
    ended = Entra(tenant, client_id, ended_pem)
    whys["a certificate that has ended"] = asked_by_msal(
        ended, {"private_key": ended_key, "public_certificate": ended_pem})
    thumbprint = hashlib.sha1(der).hexdigest()
    whys["MSAL by SHA-1"] = asked_by_msal(entra, {"private_key": key, "thumbprint": thumbprint})
    return whys


def main():
    given = json.loads(sys.stdin.readline())
    tenant, client_id = given["tenant"], given["client_id"]
    key, certificate = made_here()
    theirs = Entra(tenant, client_id, certificate)
    by_itself = asked_by_msal(theirs, {"private_key": key, "public_certificate": certificate})
    ours = Entra(tenant, client_id, given["certificate"])
    calls = []

    def callback():
        calls.append(1)
        return given["assertion"]

    accepted = {
        "msal": by_itself,
        "ours": asked_by_msal(ours, {"client_assertion": callback}),
        "ours for another application": asked_by_msal(Entra(tenant, str(uuid.uuid4()), given["certificate"]),
                                                      {"client_assertion": callback}),
        "ours under another certificate": asked_by_msal(Entra(tenant, client_id, certificate),
                                                        {"client_assertion": callback}),
    }
    print(json.dumps({
        "msal": theirs.seen, "ours": ours.seen, "node": made_by_node(key, certificate, client_id, tenant), "accepted": accepted, "calls": len(calls),
        "broken": broken(tenant, client_id), "certificate": seen_by_others(given["certificate"]),
    }))


main()
