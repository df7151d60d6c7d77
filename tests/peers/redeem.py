#!/usr/bin/env python3
"""What a client of an authorization server does, with the standard library alone.

    redeem.py redeem     --issuer URL [--scope S]                       assertion on stdin
    redeem.py introspect --issuer URL --client-id ID --secret-file F    access token on stdin
    redeem.py flip       [--part signature|payload|header]              assertion on stdin

`redeem` and `introspect` print {"status": N, "body": …}, one line for each line of input, and exit
0 if every answer was 2xx, 3 if the server refused one, 1 if there was no answer. `flip` prints the
assertion with exactly one byte changed: of the decoded signature, or of the `jti` in the payload or
the `kid` in the header, so that all else stays valid and only the signature can show it.

Never verifies anything and never keeps anything.
"""

import argparse
import base64
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 §2.2
TIMEOUT_S = 10
BODY_LEN_MAX = 1 << 20

# Loopback only: no proxy that the environment may name.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(request):
    """Status and body of one request. HTTP errors are answers; no answer raises OSError."""
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            status, body = response.status, response.read(BODY_LEN_MAX)
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read(BODY_LEN_MAX)
    try:
        return {"status": status, "body": json.loads(body)}
    except ValueError:
        return {"status": status, "body": body.decode("utf-8", "replace")}


def metadata(issuer):
    """The server's own description of itself (RFC 8414)."""
    answer = fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if answer["status"] != 200 or answer["body"].get("issuer") != issuer:
        sys.exit(f"{issuer}: no metadata of that issuer: {answer}")
    return answer["body"]


def post(url, form, headers=()):
    data = urllib.parse.urlencode(form).encode()
    return fetch(urllib.request.Request(url, data=data, headers=dict(headers), method="POST"))


def lines():
    found = [line.strip() for line in sys.stdin if line.strip()]
    if not found:
        sys.exit("nothing on standard input")
    return found


def report(answers):
    worst = 0
    for answer in answers:
        print(json.dumps(answer), flush=True)
        if not 200 <= answer["status"] < 300:
            worst = 3
    return worst


def redeem(options):
    url = metadata(options.issuer)["token_endpoint"]
    return report(
        post(url, {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
            "scope": options.scope,
        })
        for assertion in lines()
    )


def introspect(options):
    url = metadata(options.issuer)["introspection_endpoint"]
    with open(options.secret_file, encoding="utf-8") as file:
        secret = file.read().strip()
    # RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
    pair = ":".join(urllib.parse.quote_plus(part) for part in (options.client_id, secret))
    basic = "Basic " + base64.b64encode(pair.encode()).decode()
    return report(
        post(url, {"token": token, "token_type_hint": "access_token"}, {"Authorization": basic})
        for token in lines()
    )


def decode(part):
    return bytearray(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def encode(raw):
    return base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()


def flip_one(assertion, part):
    header, payload, signature = assertion.split(".")
    if part == "signature":
        raw = decode(signature)
        raw[len(raw) // 2] ^= 1
        return f"{header}.{payload}.{encode(raw)}"
    name, encoded = ("jti", payload) if part == "payload" else ("kid", header)
    raw = decode(encoded)
    place = re.search(rb'"%s"\s*:\s*"([^"\\])' % name.encode(), raw)
    if place is None:
        sys.exit(f"the {part} has no {name} to change")
    at = place.start(1)
    raw[at] = ord("B") if raw[at] == ord("A") else ord("A")
    changed = encode(raw)
    return f"{header}.{changed}.{signature}" if part == "payload" else f"{changed}.{payload}.{signature}"


def flip(options):
    for assertion in lines():
        print(flip_one(assertion, options.part))
    return 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("redeem", help="exchange assertions for access tokens")
    command.add_argument("--issuer", required=True)
    command.add_argument("--scope", default="api:read")
    command.set_defaults(run=redeem)
    command = commands.add_parser("introspect", help="ask the server what access tokens are worth")
    command.add_argument("--issuer", required=True)
    command.add_argument("--client-id", required=True)
    command.add_argument("--secret-file", required=True)
    command.set_defaults(run=introspect)
    command = commands.add_parser("flip", help="change one byte of assertions")
    command.add_argument("--part", choices=("signature", "payload", "header"), default="signature")
    command.set_defaults(run=flip)
    return parser.parse_args()


def main():
    options = arguments()
    try:
        return options.run(options)
    except OSError as error:
        print(f"no answer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
