#!/usr/bin/env python3
"""What a TPM has signed for a bundle of evidence, read and verified by what nobody here wrote: fido2 parses the
statement and the public areas, cryptography verifies signatures, and what the statement is about is computed
from docs/protocol.md ("attest") and the TPM's specification alone. Nothing of ours takes part.

One line of JSON on standard input for each bundle: {"bundle": {…}, "nonce": "hex", "host": "…"}, the last two as the
verifier knows them. One line on standard output for each, with an object for every key and one for each quote (as
"KEYSTORE quote"), of the following, each "" or what is wrong. One that is not reached says "unread".
    statement    TPMS_ATTEST of TPM2_Certify, with nothing behind it
    area         a public area that fido2 takes, but for its scheme
    name         the statement names this public area
    signer       the statement was signed by the attestation key below the endorsement hierarchy
    context      it is about this nonce, host, key id, purpose and public key
    signature    it is the attestation key's
    key          the public area's key is the one that is to be registered
    scheme       what fido2 says of the public area as it is: its reader has no place for a scheme
"""

import base64
import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from fido2.attestation.tpm import TpmAttestationFormat, TpmPublicFormat

RH_ENDORSEMENT = 0x4000000B
ALG_NULL, ALG_SHA256, ALG_ECDSA = 0x0010, 0x000B, 0x0018
QUOTE = b"\xffTCG\x80\x18"
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}


class Wrong(Exception):
    pass


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(data):
    return hashlib.sha256(data).digest()


def sized(data):
    """TPM2B, and the parts of a context whose length varies."""
    return struct.pack("!H", len(data)) + data


def take(data):
    """What a TPM2B holds, and what follows it."""
    length = struct.unpack_from("!H", data)[0]
    if len(data) < 2 + length:
        raise Wrong("ends too early")
    return data[2 : 2 + length], data[2 + length :]


def name(area):
    """Part 1, 16: the algorithm, and the digest of TPMT_PUBLIC."""
    if area[2:4] != struct.pack("!H", ALG_SHA256):
        raise Wrong("another name algorithm")
    return area[2:4] + sha256(area)


def qualified_name(above, area):
    return area[2:4] + sha256(above + name(area))


def of_ak(ak):
    """Part 1, 26.5: its Qualified Name, below a primary key of the endorsement hierarchy."""
    primary = qualified_name(struct.pack("!I", RH_ENDORSEMENT), unbase64(ak["parent"]))
    return qualified_name(primary, unbase64(ak["public"]))


def without_scheme(area):
    """The same public area, with a NULL scheme. Behind authPolicy there are a symmetric algorithm (NULL), the scheme
    and its hash (Part 2, 12.2.3.5 and 12.2.3.6)."""
    at = 10 + struct.unpack_from("!H", area, 8)[0]
    symmetric, scheme = struct.unpack_from("!HH", area, at)
    if symmetric != ALG_NULL or scheme == ALG_NULL:
        raise Wrong("no signing key with a fixed scheme")
    return area[: at + 2] + struct.pack("!H", ALG_NULL) + area[at + 6 :]


def key_of(area):
    return TpmPublicFormat.parse(without_scheme(area)).public_key()


def of_jwk(jwk):
    number = lambda member: int.from_bytes(unbase64(jwk[member]), "big")
    if jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    return ec.EllipticCurvePublicNumbers(number("x"), number("y"), CURVES[jwk["crv"]]).public_key()


def spki(key):
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def context(kind, nonce, host, about):
    return sha256(b"assertd-attest-v1\0" + kind + b"\0" + nonce + sized(host.encode()) + about)


def verify(ak, signature, signed):
    """TPMT_SIGNATURE: ECDSA, its hash, r and s (Part 2, 11.3.4)."""
    algorithms, rest = signature[:4], signature[4:]
    if algorithms != struct.pack("!HH", ALG_ECDSA, ALG_SHA256):
        raise Wrong("another algorithm than ECDSA with SHA-256")
    r, rest = take(rest)
    s, rest = take(rest)
    if rest:
        raise Wrong("goes on")
    number = lambda data: int.from_bytes(data, "big")
    key_of(ak).verify(encode_dss_signature(number(r), number(s)), signed, ec.ECDSA(hashes.SHA256()))


def check(holds):
    """"" or what is wrong."""
    try:
        return "" if holds() in (None, True) else "another"
    except InvalidSignature:
        return "does not verify"
    except (Wrong, ValueError, KeyError, struct.error) as error:
        return str(error) or type(error).__name__


def of_key(key, ak, nonce, host):
    area, attest = unbase64(key["public"]), unbase64(key["attest"])
    try:
        read = TpmAttestationFormat.parse(attest)
    except ValueError as error:
        read, statement = None, str(error)
    else:
        certified = sized(read.attested.name) + sized(read.attested.qualified_name)
        length = 6 + len(sized(read.name) + sized(read.data)) + 17 + 8 + len(certified)
        statement = "" if length == len(attest) else "goes on"
    if_read = lambda holds: "unread" if read is None else check(holds)
    about = lambda: sized(key["key"].encode()) + sized(key["purpose"].encode()) + sha256(spki(of_jwk(key["jwk"])))
    return {
        "statement": statement,
        "area": check(lambda: bool(key_of(area))),
        "name": if_read(lambda: read.attested.name == name(area)),
        "signer": if_read(lambda: read.name == of_ak(ak)),
        "context": if_read(lambda: read.data == context(b"certify", nonce, host, about())),
        "signature": check(lambda: verify(unbase64(ak["public"]), unbase64(key["signature"]), attest)),
        "key": check(lambda: spki(key_of(area)) == spki(of_jwk(key["jwk"]))),
        "scheme": check(lambda: bool(TpmPublicFormat.parse(area))),
    }


def of_quote(quote, keys, ak, nonce, host):
    """fido2 knows certify alone; tpm2_checkquote reads the rest of it elsewhere."""
    attest = unbase64(quote["attest"])
    if attest[:6] != QUOTE:
        raise Wrong("no quote")
    signer, rest = take(attest[6:])
    data, _ = take(rest)
    statements = sha256(b"".join(sha256(unbase64(key["attest"])) for key in keys))
    return {
        "signer": check(lambda: signer == of_ak(ak)),
        "context": check(lambda: data == context(b"quote", nonce, host, statements)),
        "signature": check(lambda: verify(unbase64(ak["public"]), unbase64(quote["signature"]), attest)),
    }


def judge(line):
    nonce, host, verdicts = bytes.fromhex(line["nonce"]), line["host"], {}
    for keystore in line["bundle"]["keystores"]:
        if keystore["kind"] != "tpm":
            continue
        ak, keys = keystore["tpm"]["ak"], keystore["keys"]
        for key in keys:
            verdicts[key["key"]] = of_key(key, ak, nonce, host)
        if keystore.get("quote"):
            verdicts[keystore["name"] + " quote"] = of_quote(keystore["quote"], keys, ak, nonce, host)
    return verdicts


for line in sys.stdin:
    print(json.dumps(judge(json.loads(line))), flush=True)
