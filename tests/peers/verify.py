#!/usr/bin/env python3
"""Three verifiers that nobody here wrote judge our assertions, and a lint looks where they do not.

    verify.py --jwks FILE --iss I --sub S --aud A --alg ALG --typ T [--batch] [ASSERTION-FILE]

Input is one assertion a line (without --batch exactly one). A line may also be a JSON object
{"assertion": "…", "iss": …, "sub": …, "aud": …, "alg": …, "typ": …} whose members replace those of
the command line: starting Python costs more than verifying, so tests send everything at once.

Prints one JSON object a line, in the order of the input:
    {"pyjwt": {"ok": true}, "joserfc": {…}, "jwcrypto": {…}, "lint": {"ok": false, "why": "…"}}
Exits 0 if all four accept every line, 1 if any refuses one, 64 on wrong usage. Never prints an
assertion.

The lint holds what no verifier looks at: the promises of docs/protocol.md and RFC 7515/7518/7638.
"""

import argparse
import base64
import json
import re
import sys
import time
import warnings

import joserfc.errors
import joserfc.jwk
import joserfc.jwt
import jwcrypto.jwk
import jwcrypto.jwt
import jwt as pyjwt

EXPECTED = ("iss", "sub", "aud", "alg", "typ")
HEADER_MEMBERS = {"alg", "typ", "kid"}
# RFC 7518 §3: R||S has a fixed length; an RSA signature is as long as the modulus; RFC 8037 §3.1.
SIGNATURE_LEN = {"ES256": 64, "ES384": 96, "EdDSA": 64, "Ed25519": 64}
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")


class Refused(Exception):
    """Our own check found something wrong after the library had accepted."""


def require(condition, why):
    if not condition:
        raise Refused(why)


def same_claims(claims, header, want):
    for name in ("iss", "sub", "aud"):
        require(claims.get(name) == want[name], f"{name} is {claims.get(name)!r}")
    require(header.get("typ") == want["typ"], f"typ is {header.get('typ')!r}")


def by_pyjwt(assertion, jwks, want):
    kid = pyjwt.get_unverified_header(assertion).get("kid")
    keys = [key for key in pyjwt.PyJWKSet.from_dict(jwks).keys if key.key_id == kid]
    require(len(keys) == 1, f"{len(keys)} keys with kid {kid!r}")
    decoded = pyjwt.decode_complete(
        assertion, keys[0], algorithms=[want["alg"]], audience=want["aud"], issuer=want["iss"],
        subject=want["sub"], leeway=0,
        options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"], "strict_aud": True},
    )
    same_claims(decoded["payload"], decoded["header"], want)


def by_joserfc(assertion, jwks, want):
    keys = joserfc.jwk.KeySet.import_key_set(jwks)
    # RFC 9864 renames EdDSA to Ed25519; its users have not followed yet.
    warnings.simplefilter("ignore", joserfc.errors.SecurityWarning)
    token = joserfc.jwt.decode(assertion, keys, algorithms=[want["alg"]])
    essential = {name: {"essential": True, "value": want[name]} for name in ("iss", "sub", "aud")}
    present = {name: {"essential": True} for name in ("iat", "exp", "jti")}
    joserfc.jwt.JWTClaimsRegistry(leeway=0, **essential, **present).validate(token.claims)
    same_claims(token.claims, token.header, want)


def by_jwcrypto(assertion, jwks, want):
    keys = jwcrypto.jwk.JWKSet.from_json(json.dumps(jwks))
    token = jwcrypto.jwt.JWT(
        check_claims={"iss": want["iss"], "sub": want["sub"], "aud": want["aud"],
                      "iat": None, "exp": None, "jti": None},
        algs=[want["alg"]],
    )
    token.leeway = 0
    token.deserialize(assertion, keys)
    same_claims(json.loads(token.claims), json.loads(token.header), want)


def no_twice(pairs):
    members = dict(pairs)
    require(len(members) == len(pairs), "a member name occurs twice (RFC 7515 §4)")
    return members


def decode(part, name):
    require(BASE64URL.match(part), f"{name} is not unpadded base64url")
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    require(base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == part,
            f"{name} is not canonical base64url")
    return raw


def lint_key(jwk):
    require(jwk.get("use") == "sig", "the JWK has no use: sig")
    require("alg" in jwk, "the JWK has no alg")
    require(not PRIVATE_MEMBERS & set(jwk), "the JWK has private members")
    thumbprint = jwcrypto.jwk.JWK(**jwk).thumbprint()
    require(jwk.get("kid") == thumbprint, "kid is not the RFC 7638 thumbprint")


def lint_claims(claims, want):
    require(isinstance(claims["aud"], str), "aud is not a sole string")
    for name in ("iat", "exp"):
        require(type(claims[name]) is int, f"{name} is not an integer")
    require(claims["iat"] <= time.time(), "iat lies in the future")
    require(claims["exp"] > claims["iat"], "exp is not after iat")
    if want["typ"] == "client-authentication+jwt":
        require("nbf" not in claims, "a client assertion has nbf")
        require(claims["iss"] == claims["sub"], "iss and sub differ in a client assertion")
        require(set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti"},
                f"unexpected claims: {sorted(claims)}")


def by_lint(assertion, jwks, want):
    parts = assertion.split(".")
    require(len(parts) == 3, f"{len(parts)} parts")
    header_raw, claims_raw, signature = (
        decode(part, name) for part, name in zip(parts, ("header", "payload", "signature"))
    )
    header = json.loads(header_raw, object_pairs_hook=no_twice)
    claims = json.loads(claims_raw, object_pairs_hook=no_twice)
    require(set(header) == HEADER_MEMBERS, f"header members: {sorted(header)}")
    require(header["alg"] == want["alg"], f"alg is {header['alg']!r}")
    keys = [key for key in jwks["keys"] if key.get("kid") == header["kid"]]
    require(len(keys) == 1, f"{len(keys)} keys with kid {header['kid']!r}")
    require(keys[0].get("alg") == header["alg"], "the JWK is for another alg")
    lint_key(keys[0])
    lint_claims(claims, want)
    if keys[0]["kty"] == "RSA":
        length = len(decode(keys[0]["n"], "n"))
    else:
        length = SIGNATURE_LEN[header["alg"]]
    require(len(signature) == length, f"the signature has {len(signature)} bytes, not {length}")


JUDGES = {"pyjwt": by_pyjwt, "joserfc": by_joserfc, "jwcrypto": by_jwcrypto, "lint": by_lint}


def judge(assertion, jwks, want):
    verdicts = {}
    for name, verify in JUDGES.items():
        try:
            verify(assertion, jwks, want)
            verdicts[name] = {"ok": True}
        except Exception as error:  # whatever a library raises is a refusal
            verdicts[name] = {"ok": False, "why": f"{type(error).__name__}: {error}"}
    return verdicts


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jwks", required=True)
    for name in EXPECTED:
        parser.add_argument(f"--{name}")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("file", nargs="?")
    return parser.parse_args()


def main():
    options = arguments()
    with open(options.jwks, encoding="utf-8") as file:
        jwks = json.load(file)
    source = open(options.file, encoding="utf-8") if options.file else sys.stdin
    with source:
        lines = [line.strip() for line in source if line.strip()]
    if not lines or (len(lines) > 1 and not options.batch):
        print(f"{len(lines)} assertions; wanted {'some' if options.batch else 'one'}", file=sys.stderr)
        return 64
    refused = False
    for line in lines:
        want = {name: getattr(options, name) for name in EXPECTED}
        assertion = line
        if line.startswith("{"):
            members = json.loads(line)
            assertion = members.pop("assertion")
            want.update(members)
        if None in want.values() or set(want) != set(EXPECTED):
            print(f"give each of {', '.join(EXPECTED)} and no more", file=sys.stderr)
            return 64
        verdicts = judge(assertion, jwks, want)
        refused = refused or not all(verdict["ok"] for verdict in verdicts.values())
        print(json.dumps(verdicts))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
