#!/usr/bin/env python3
"""What the demo reads and compares, with the standard library alone. Input comes on stdin.

    look.py decode                       an assertion: header and claims, one member a line
    look.py member NAME                  one member of a JSON object
    look.py changed                      two assertions: which bytes differ, decoded
    look.py clients ID ALG JWKS API      the server's list of clients; API's secret on stdin
    look.py peerpidfd                    `yes` or `no`: does this kernel have SO_PEERPIDFD?
    look.py records RELEASED… [--denied ID…]   `audit show --json`: one line per request, joined
    look.py falsify FILE ID              changes one byte of that request's record in the file
    look.py ports                        a free TCP port of 127.0.0.1 whose next one is free too
    look.py x                            a JWKS of one EC key: its x in hexadecimal
    look.py auth ID                      a TPM key's auth value in hexadecimal; its keystore's secret on stdin

`records` exits 1 unless every assertion (given by the SHA-256 of its `jti`) has one decision and
after it one outcome `released`, every id has one denial, and nobody else got anything.
`jti` prints that hash for an assertion. Never verifies a signature: the server does.
"""

import base64
import hashlib
import hmac
import json
import re
import socket
import sys

SO_PEERPIDFD = 77  # linux/include/uapi/asm-generic/socket.h, since Linux 6.5


def fields(assertion):
    """Header, claims and signature, decoded to bytes."""
    parts = assertion.strip().split(".")
    if len(parts) != 3:
        sys.exit(f"{len(parts)} parts are no assertion")
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]


def decode():
    header, claims, signature = fields(sys.stdin.read())
    for name, raw in (("header", header), ("claims", claims)):
        members = json.loads(raw)
        for member, value in members.items():
            print(f"{name:9} {member:4} {value}")
            name = ""
    print(f"{'signature':9} {len(signature)} bytes")


def member(name):
    value = json.load(sys.stdin)
    for part in name.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    print(value if isinstance(value, str) else json.dumps(value))


def changed():
    one, other = (fields(line) for line in sys.stdin.read().split())
    found = []
    for name, before, after in zip(("header", "claims", "signature"), one, other):
        found += [
            f"byte {at} of the {name}: {a:#04x} {chr(a)!r} → {b:#04x} {chr(b)!r}"
            for at, (a, b) in enumerate(zip(before, after)) if a != b
        ]
    print("; ".join(found) or "nothing differs")


def clients(client_id, alg, jwks, api):
    with open(jwks, encoding="utf-8") as file:
        keys = json.load(file)
    print(json.dumps([
        {"client_id": client_id, "alg": alg, "jwks": keys},
        {"client_id": api, "client_secret": sys.stdin.read().strip()},
    ]))


def peerpidfd():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError:
            print("no")
        else:
            print("yes")


def jti():
    for assertion in sys.stdin.read().split():
        name = json.loads(fields(assertion)[1])["jti"]
        print(hashlib.sha256(name.encode()).hexdigest())


def records(*names):
    at = names.index("--denied")
    released, denied = set(names[:at]), set(names[at + 1:])
    log = [json.loads(line) for line in sys.stdin if line.strip()]
    outcomes = {entry["id"]: entry for entry in log if entry["kind"] == "outcome"}
    wrong = []
    for entry in log:
        if entry["kind"] == "decision":
            outcome = outcomes.pop(entry["id"], None)
            what = outcome["result"] if outcome else "no outcome"
            # The record must be older than the release, or it proves nothing.
            if what != "released" or outcome["seq"] <= entry["seq"]:
                wrong.append(f"decision {entry['id']}: {what}")
            if entry["jti_sha256"] not in released:
                wrong.append(f"decision {entry['id']}: for an assertion that nobody holds")
            released.discard(entry["jti_sha256"])
            text = f"{entry['workload']} → {entry['target']}"
            print(f"{entry['id']}  uid {entry['uid']}  granted   {text}, then {what}")
        elif entry["kind"] == "denied":
            if entry["id"] not in denied:
                wrong.append(f"denial {entry['id']}: nobody was told of it")
            denied.discard(entry["id"])
            text = f"{entry['reason']}: {entry['target'] or 'a target nobody has'}"
            print(f"{entry['id']}  uid {entry['uid']}  denied    {text}")
    wrong += [f"assertion with jti hash {name}: no decision" for name in released]
    wrong += [f"id {name}: no denial" for name in denied]
    wrong += [f"outcome {name}: no decision" for name in outcomes]
    if wrong:
        sys.exit("\n".join(wrong))


def falsify(path, request_id):
    with open(path, "r+b") as file:
        content = file.read()
        line = re.search(rb'\n[^\n]*"id":"%s"[^\n]*' % re.escape(request_id.encode()), content)
        if line is None:
            sys.exit(f"no record of {request_id} in {path}")
        place = re.compile(rb'"uid":(\d)').search(content, line.start(), line.end())
        number = re.search(rb'"seq":(\d+)', line.group())[1].decode()
        at, digit = place.start(1), place.group(1)[0] ^ 1  # another digit: 0↔1 … 8↔9
        file.seek(at)
        file.write(bytes([digit]))
    print(f"record {number}: byte {at} of the file: {place.group(1).decode()} → {chr(digit)}")


def ports():
    for _ in range(100):
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            print(port)
            return
    sys.exit("no two free ports side by side")


def x():
    (key,) = json.load(sys.stdin)["keys"]
    print(base64.urlsafe_b64decode(key["x"] + "==").hex())


def auth(key_id):
    secret = sys.stdin.buffer.read()
    print(hmac.new(secret, bytes.fromhex(key_id), hashlib.sha256).hexdigest())


COMMANDS = {
    "decode": decode, "member": member, "changed": changed, "clients": clients,
    "peerpidfd": peerpidfd, "jti": jti, "records": records, "falsify": falsify,
    "ports": ports, "x": x, "auth": auth,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
