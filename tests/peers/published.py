#!/usr/bin/env python3
"""Clients that nobody here wrote fetch an issuer's documents and judge what its keys have signed.

    published.py --at ADDRESS:PORT --issuer URL --trust-domain NAME

Input is one line, a JSON object {"assertion": "…", "aud": …, "svid": "…", "svid_aud": …}. Documents are
fetched at the issuer's own URLs; ADDRESS:PORT stands where a reverse proxy would, that speaks TLS for
the issuer's name and passes paths on as they are.

Prints one JSON object, for each client "ok" or why not:
    pyjwt      PyJWKClient finds the key at the jwks_uri of the discovery document, and PyJWT verifies
    joserfc    the same set, fetched, by joserfc
    jwcrypto   likewise
    jose       jose in Node fetches the set itself, from ADDRESS:PORT, and verifies
    spiffe     the SPIFFE library parses the bundle and validates the JWT-SVID by it
    bundle     the same library takes the bundle alone; it has the set's keys and a sequence
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request

import joserfc.jwk
import joserfc.jwt
import jwcrypto.jwk
import jwcrypto.jwt
import jwt as pyjwt
from spiffe import JwtBundle, JwtSvid, TrustDomain


def behind_a_proxy(issuer, at):
    """From here on whoever fetches from the issuer's host by urllib gets what ADDRESS:PORT answers."""

    def https_open(_, request):
        if request.host != issuer.split("/")[2]:
            raise OSError(f"{request.full_url} is not the issuer's")
        return urllib.request.urlopen(f"http://{at}{request.selector}", timeout=10)

    # Of the class, because PyJWKClient makes an opener of its own.
    urllib.request.HTTPSHandler.https_open = https_open


def get(url, content_type):
    with urllib.request.urlopen(url, timeout=10) as answer:
        if answer.headers["Content-Type"] != content_type:
            raise ValueError(f"{url} is {answer.headers['Content-Type']}")
        return answer.read()


def discover(issuer):
    """OpenID Connect Discovery 1.0 §4: where the document is, and §4.3: what has to hold."""
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    document = json.loads(get(url, "application/json"))
    if document["issuer"] != issuer:
        raise ValueError(f"issuer is {document['issuer']!r}")
    for required in ("jwks_uri", "authorization_endpoint", "response_types_supported", "subject_types_supported",
                     "id_token_signing_alg_values_supported"):
        if required not in document:
            raise ValueError(f"{required} is missing")
    if "RS256" not in document["id_token_signing_alg_values_supported"]:
        raise ValueError("RS256 is not in the list of algorithms")
    return document


def by_pyjwt(asked, issuer):
    document = discover(issuer)
    key = pyjwt.PyJWKClient(document["jwks_uri"]).get_signing_key_from_jwt(asked["assertion"])
    algs = document["id_token_signing_alg_values_supported"]
    pyjwt.decode(asked["assertion"], key, algorithms=algs, audience=asked["aud"], issuer=issuer)


def jwks(issuer):
    return get(discover(issuer)["jwks_uri"], "application/jwk-set+json")


def by_joserfc(asked, issuer):
    keys = joserfc.jwk.KeySet.import_key_set(json.loads(jwks(issuer)))
    token = joserfc.jwt.decode(asked["assertion"], keys, algorithms=["ES256"])
    if token.claims["iss"] != issuer or token.claims["aud"] != asked["aud"]:
        raise ValueError("other claims")


def by_jwcrypto(asked, issuer):
    keys = jwcrypto.jwk.JWKSet.from_json(jwks(issuer))
    token = jwcrypto.jwt.JWT(jwt=asked["assertion"], key=keys, algs=["ES256"],
                             check_claims={"iss": issuer, "aud": asked["aud"]})
    if "sub" not in json.loads(token.claims):
        raise ValueError("no sub")


def by_jose(asked, issuer, at):
    peers = os.environ["ASSERTD_PEERS"]
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published.mjs")
    url = discover(issuer)["jwks_uri"].replace(f"https://{issuer.split('/')[2]}", f"http://{at}")
    done = subprocess.run([f"{peers}/bin/node", script, url, issuer, asked["aud"]], input=asked["assertion"],
                          capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise ValueError(done.stdout.strip() or done.stderr.strip()[-300:])


def bundle_of(issuer, trust_domain):
    written = get(issuer.rstrip("/") + "/bundle.json", "application/json")
    return written, JwtBundle.parse(TrustDomain(trust_domain), written)


def by_spiffe(asked, issuer, trust_domain):
    _, bundle = bundle_of(issuer, trust_domain)
    JwtSvid.parse_and_validate(asked["svid"], bundle, {asked["svid_aud"]})


def by_bundle(issuer, trust_domain):
    written, bundle = bundle_of(issuer, trust_domain)
    document = json.loads(written)
    if not isinstance(document["spiffe_sequence"], int) or document["spiffe_refresh_hint"] <= 0:
        raise ValueError("no sequence or hint")
    kids = {key["kid"] for key in json.loads(jwks(issuer))["keys"]}
    if set(bundle.jwt_authorities) != kids:
        raise ValueError(f"{set(bundle.jwt_authorities)} are not {kids}")


def main():
    parser = argparse.ArgumentParser()
    for option in ("--at", "--issuer", "--trust-domain"):
        parser.add_argument(option, required=True)
    given = parser.parse_args()
    behind_a_proxy(given.issuer, given.at)
    asked = json.loads(sys.stdin.readline())
    verdict = {}
    for name, judge in (
        ("pyjwt", lambda: by_pyjwt(asked, given.issuer)),
        ("joserfc", lambda: by_joserfc(asked, given.issuer)),
        ("jwcrypto", lambda: by_jwcrypto(asked, given.issuer)),
        ("jose", lambda: by_jose(asked, given.issuer, given.at)),
        ("spiffe", lambda: by_spiffe(asked, given.issuer, given.trust_domain)),
        ("bundle", lambda: by_bundle(given.issuer, given.trust_domain)),
    ):
        try:
            judge()
            verdict[name] = "ok"
        except Exception as why:  # whatever a library calls its refusal
            verdict[name] = f"{type(why).__name__}: {why}"
    print(json.dumps(verdict))


if __name__ == "__main__":
    main()
