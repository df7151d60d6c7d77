#!/usr/bin/env python3
"""The positive control of every test that uses the peers: they refuse what they must refuse.

Signs assertions in software, good ones and ones with exactly one fault, and holds the authorization
server and the verifiers to their verdicts. If a peer ever grew lenient, a test of ours that passes
because the peer refuses nothing would be worth nothing; this fails then.

Run through selfcheck.sh. Ends with `N passed, N failed`.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time

from jwcrypto.common import base64url_encode
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

HERE = os.path.dirname(os.path.abspath(__file__))
NODE = os.environ["NODE"]
CLIENT = "selfcheck"
RESOURCE_SERVER = "resource-server"
TYP = "client-authentication+jwt"

passed = failed = 0


def check(promise, holds, detail=""):
    global passed, failed
    passed, failed = passed + bool(holds), failed + (not holds)
    print(f"{'ok    ' if holds else 'FAILED'} {promise}{'' if holds else f': {detail}'}", flush=True)


def new_key(alg):
    kind = {"ES256": {"kty": "EC", "crv": "P-256"}, "ES384": {"kty": "EC", "crv": "P-384"},
            "RS256": {"kty": "RSA", "size": 2048}, "PS256": {"kty": "RSA", "size": 2048},
            "EdDSA": {"kty": "OKP", "crv": "Ed25519"}}[alg]
    return JWK.generate(**kind)


def public(key, alg):
    return {**key.export_public(as_dict=True), "kid": key.thumbprint(), "alg": alg, "use": "sig"}


class Signer:
    """Makes one good assertion, or one with the faults that it is told."""

    def __init__(self, issuer, key, alg, client=CLIENT):
        self.issuer, self.key, self.alg, self.client = issuer, key, alg, client

    def sign(self, header=(), drop=(), key=None, **claims):
        now = int(time.time())
        payload = {"iss": self.client, "sub": self.client, "aud": self.issuer, "iat": now,
                   "exp": now + 60, "jti": secrets.token_urlsafe(16), **claims}
        head = {"alg": self.alg, "typ": TYP, "kid": self.key.thumbprint(), **dict(header)}
        for name in drop:
            payload.pop(name, None), head.pop(name, None)
        jws = JWS(json.dumps(payload))
        jws.allowed_algs = [head["alg"]]
        jws.add_signature(key or self.key, None, json.dumps(head), None)
        return jws.serialize(compact=True)


def run(script, *arguments, lines):
    """One peer script over many lines: its JSON answers, and its exit code."""
    done = subprocess.run([sys.executable, f"{HERE}/{script}", *arguments], timeout=60, text=True,
                          input="".join(f"{line}\n" for line in lines), stdout=subprocess.PIPE)
    return done.stdout.splitlines(), done.returncode


def redeem(issuer, *assertions):
    answers, _ = run("redeem.py", "redeem", "--issuer", issuer, lines=assertions)
    return [json.loads(answer) for answer in answers]


def flip(assertion, part):
    return run("redeem.py", "flip", "--part", part, lines=[assertion])[0][0]


def server_accepts(issuer, signer, secret_file):
    first = signer.sign()
    answer, replay = redeem(issuer, first, first)
    token = answer["body"].get("access_token", "")
    check("server: a good assertion gets an access token", answer["status"] == 200 and token, answer)
    check("server: the access token is opaque", "." not in token, "it looks like a JWT")
    check("server: the same assertion again is refused", replay["status"] == 401, replay)
    introspect = ("introspect", "--issuer", issuer, "--client-id", RESOURCE_SERVER, "--secret-file")
    ungiven = token[:-1] + ("_" if token[-1:] != "_" else "-")  # one token in 64 ends in "_" already
    answers, _ = run("redeem.py", *introspect, secret_file, lines=[token, ungiven])
    live, wrong = (json.loads(answer) for answer in answers)
    check("server: it introspects as active, of this client",
          live["body"].get("active") is True and live["body"].get("client_id") == CLIENT, live)
    check("server: an access token it never gave is not active", wrong["body"] == {"active": False}, wrong)
    with tempfile.NamedTemporaryFile("w", suffix=".secret") as other:
        other.write("wrong")
        other.flush()
        answers, code = run("redeem.py", *introspect, other.name, lines=[token])
        check("server: introspection with a wrong secret is refused",
              code == 3 and json.loads(answers[0])["status"] == 401, answers)


def server_refuses(issuer, signer, stranger):
    now = int(time.time())
    fresh = signer.sign()
    faults = {
        "a changed byte in the signature": flip(fresh, "signature"),
        "a changed byte in the payload": flip(fresh, "payload"),
        "a changed byte in the header": flip(fresh, "header"),
        "another key under our kid": signer.sign(key=stranger),
        "a kid it does not know": signer.sign(header={"kid": stranger.thumbprint()}, key=stranger),
        "no kid": signer.sign(drop=["kid"]),
        "typ JWT": signer.sign(header={"typ": "JWT"}),
        "no typ": signer.sign(drop=["typ"]),
        "an extra header member": signer.sign(header={"cty": "x"}),
        "aud as an array": signer.sign(aud=[issuer]),
        "aud of the token endpoint": signer.sign(aud=f"{issuer}/token"),
        "aud of another server": signer.sign(aud="http://127.0.0.1:1"),
        "iss that is not the client": signer.sign(iss="other"),
        "sub of no client": signer.sign(iss="nobody", sub="nobody"),
        "no jti": signer.sign(drop=["jti"]),
        "no exp": signer.sign(drop=["exp"]),
        "no iat": signer.sign(drop=["iat"]),
        "exp passed": signer.sign(iat=now - 120, exp=now - 60),
        "iat ahead": signer.sign(iat=now + 30, exp=now + 90),
        "a life of an hour": signer.sign(exp=now + 3600),
        "fractions in iat": signer.sign(iat=now - 0.5),
        "nbf": signer.sign(nbf=now),
    }
    for (name, _), answer in zip(faults.items(), redeem(issuer, *faults.values()), strict=True):
        check(f"server: refused for {name}", answer["status"] in (400, 401), answer)
    answer, = redeem(issuer, fresh)
    check("server: the unchanged one of the changed bytes is accepted", answer["status"] == 200, answer)


def verifiers(directory, issuer, signer, alg):
    path = os.path.join(directory, f"verify-{alg}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"keys": [public(signer.key, alg)]}, file)
    good, now = signer.sign(), int(time.time())
    cases = {
        "a good assertion": (good, set()),
        "a changed byte in the signature": (flip(good, "signature"), {"pyjwt", "joserfc", "jwcrypto"}),
        "a changed byte in the payload": (flip(good, "payload"), {"pyjwt", "joserfc", "jwcrypto"}),
        "another key": (signer.sign(key=new_key(alg)), {"pyjwt", "joserfc", "jwcrypto"}),
        "an expired one": (signer.sign(iat=now - 90, exp=now - 30), {"pyjwt", "joserfc", "jwcrypto"}),
        "another aud": (signer.sign(aud="x"), {"pyjwt", "joserfc", "jwcrypto"}),
        "another iss": (signer.sign(iss="x"), {"pyjwt", "joserfc", "jwcrypto"}),
        "another sub": (signer.sign(sub="x"), {"pyjwt", "joserfc", "jwcrypto"}),
        "another typ": (signer.sign(header={"typ": "JWT"}), {"pyjwt", "joserfc", "jwcrypto"}),
        "aud as an array": (signer.sign(aud=[issuer]), {"lint"}),
        "fractions in iat": (signer.sign(iat=now - 1.5), {"lint"}),
        "nbf": (signer.sign(nbf=now), {"lint"}),
        "an extra header member": (signer.sign(header={"jku": "https://x.example"}), {"lint"}),
        "padding": (good + "=", {"lint"}),
        "a signature of another length": (
            good.rpartition(".")[0] + "." + base64url_encode(b"\x01" * 63), {"lint", "pyjwt"}),
    }
    answers, code = run("verify.py", "--jwks", path, "--iss", CLIENT, "--sub", CLIENT, "--aud", issuer,
                        "--alg", alg, "--typ", TYP, "--batch", lines=[case[0] for case in cases.values()])
    for (name, (_, must_refuse)), answer in zip(cases.items(), answers, strict=True):
        refused = {judge for judge, verdict in json.loads(answer).items() if not verdict["ok"]}
        holds = must_refuse <= refused if must_refuse else not refused
        check(f"verifiers: {alg}: {name}", holds, answer)
    check(f"verifiers: {alg}: one refusal is enough for exit 1", code == 1, code)


def main():
    with tempfile.TemporaryDirectory() as directory:
        clients, secret_file = (os.path.join(directory, name) for name in ("clients.json", "secret"))
        secret = secrets.token_urlsafe(24)
        with open(secret_file, "w", encoding="utf-8") as file:
            file.write(secret)
        server = subprocess.Popen([NODE, f"{HERE}/as/server.mjs", clients], text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            ready = server.stdout.readline().split()
            if len(ready) != 2 or ready[0] != "ready":
                sys.exit(f"the server did not start: {server.communicate(timeout=5)[1]}")
            issuer = ready[1]
            for alg in ("ES256", "ES384", "RS256", "PS256", "EdDSA"):
                signer = Signer(issuer, new_key(alg), alg)
                with open(clients, "w", encoding="utf-8") as file:
                    json.dump([
                        {"client_id": CLIENT, "alg": alg, "jwks": {"keys": [public(signer.key, alg)]}},
                        {"client_id": RESOURCE_SERVER, "client_secret": secret},
                    ], file)
                verifiers(directory, issuer, signer, alg)
                if alg == "ES256":
                    server_accepts(issuer, signer, secret_file)
                    server_refuses(issuer, signer, new_key(alg))
                else:
                    answer, = redeem(issuer, signer.sign())
                    check(f"server: {alg} is accepted", answer["status"] == 200, answer)
            server.stdin.close()
            check("server: ends with the test that started it", server.wait(timeout=10) == 0)
        finally:
            server.kill()
            server.wait()
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
