#!/usr/bin/env python3
"""What each vendor documents about the assertions it takes, as a verifier that can refuse.

    vendors.py [ASSERTION-FILE]

Input is one JSON object a line:
    {"profile": …, "assertion": …, "jwk": {…}, "iss": …, "sub": …, "aud": …, "scope": …, "alg": …,
     "kid": …, "x5t#S256": …}
with "once": true if nothing shall be broken for it. `jwk` is the registered public key; `iss`, `sub`, `aud`, `scope`, `alg` and `kid` are what was registered with
the vendor, null where there is none. For snowflake `iss` is ACCOUNT.USER, without the fingerprint.

Three libraries that nobody here wrote (PyJWT, joserfc, jwcrypto) are configured by the vendor's rules:
algorithms, issuer, subject, audience, times. What they do not look at stands in RULES, each rule with a
way to break it. A rule that nothing breaks would be none: for each, the same assertion is broken in that
one place, signed by a key made here and registered in place of the real one, and has to be refused.

Prints one JSON object a line, in the order of the input:
    {"accepted": {"pyjwt": true, …, "rules": []}, "broken": {"aud": ["pyjwt", …, "aud"], …}}
`rules` lists the broken rules by name; `broken` says who refused each broken variant, and "" is the same
signed again by the key made here and not broken, which nobody may refuse. Never prints an assertion.
"""

import base64
import copy
import hashlib
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
from cryptography.hazmat.primitives import serialization

ANY_ALG = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"]
KEY_OF = {"ES256": ("EC", {"crv": "P-256"}), "ES384": ("EC", {"crv": "P-384"}), "ES512": ("EC", {"crv": "P-521"}),
          "EdDSA": ("OKP", {"crv": "Ed25519"})}
CLIENT = {"iss", "sub", "aud", "jti", "iat", "exp"}
SHORT = r"[A-Za-z0-9_-]{22}"
GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ACCOUNT = {"iss", "sub", "aud", "scope", "iat", "exp"}


class Vendor:
    """One vendor's documented rules; times in seconds."""

    def __init__(self, algs, wrong_alg, typ, life, claims=CLIENT, kid="registered", skew=0, single_use=False,
                 jti=SHORT, extra=()):
        self.algs, self.wrong_alg = algs, wrong_alg
        self.typ = typ                # `typ` values that are documented or what its users send
        self.life = life              # longest exp - iat; None where none is documented
        self.claims = claims          # what the assertion says, and nothing else
        self.kid = kid                # "registered", or "absent"
        self.skew = skew              # how far `iat` may be ahead
        self.single_use = single_use  # whether `jti` is compared
        self.jti = jti                # how it looks
        self.extra = extra            # more rules, by name


VENDORS = {
    # rfc7523bis: sole issuer identifier as a string, typ, jti; a replay window of five minutes is ours.
    "rfc7523": Vendor(ANY_ALG, "ES256K", ["client-authentication+jwt"], 300, single_use=True),
    # FAPI 2.0 SP 5.4.1: PS256, ES256, Ed25519; iat not more than 10 s ahead.
    "fapi2": Vendor(["PS256", "ES256", "EdDSA"], "RS256", ["client-authentication+jwt"], 300, skew=10,
                    single_use=True),
    # keycloak#38585: taken for 60 s from iat, whatever exp says, so that a longer one says what is not so; jti once.
    "keycloak": Vendor(ANY_ALG, "ES256K", ["client-authentication+jwt"], 60, single_use=True),
    # Okta: RS/ES 256-512, exp an hour ahead at most, jti once if it is there.
    "okta": Vendor([a for a in ANY_ALG if a[:2] in ("RS", "ES")], "PS256", ["JWT"], 3600, single_use=True,
                   extra=("https aud",)),
    # Auth0: RS256, RS384, PS256; five minutes; 10 s of skew; 64 characters.
    "auth0": Vendor(["RS256", "RS384", "PS256"], "ES256", ["JWT"], 300, skew=10, single_use=True,
                    extra=("trailing slash", "64 characters")),
    # Entra, certificate credentials: PS256, x5t#S256, GUIDs, nbf, ten minutes after it at most.
    "entra-cert": Vendor(["PS256"], "RS256", ["JWT"], 600, CLIENT | {"nbf"}, "absent", jti=GUID,
                         extra=("x5t#S256", "nbf", "token endpoint")),
    # AWS: RS/ES 256-512, integers, never azp.
    "aws-oidc": Vendor(["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"], "PS256", ["JWT"], 86400),
    # Entra: RS256 alone, 600 characters each.
    "entra-fic": Vendor(["RS256"], "ES256", ["JWT"], 86400, extra=("600 characters",)),
    # Google STS: RS256 or ES256, kid mandatory, iat in the past, exp less than 48 h after it.
    "gcp-wif": Vendor(["RS256", "ES256"], "PS256", ["JWT"], 48 * 3600 - 1, extra=("127 bytes", "256 characters")),
    # Vault: jwt_supported_algs, bound_issuer, bound_audiences, bound_subject; leeway set to 0 here.
    "vault-jwt": Vendor(ANY_ALG, "ES256K", ["JWT"], 86400),
    # JWT-SVID 2 and 3: no EdDSA, typ JWT or JOSE, no other header, sub a SPIFFE ID.
    "jwt-svid": Vendor([a for a in ANY_ALG if a != "EdDSA"], "EdDSA", ["JWT", "JOSE"], 86400,
                       extra=("SPIFFE ID", "2048 bytes")),
    # kube-apiserver: RS/ES/PS 256-512, iss = issuer.url (https), one of issuer.audiences.
    "k8s-structured-auth": Vendor([a for a in ANY_ALG if a != "EdDSA"], "EdDSA", ["JWT"], 86400,
                                  extra=("https iss",)),
    # Databricks: issuer, audiences, subject of the policy.
    "databricks-fed": Vendor(["RS256", "ES256"], "PS256", ["JWT"], 86400, extra=("https iss",)),
    # Snowflake SQL API: RS256 (drivers send 384 and 512 too), iss with the key's fingerprint, upper case, an hour.
    "snowflake": Vendor(["RS256", "RS384", "RS512"], "ES256", ["JWT"], 3600, ACCOUNT, "absent",
                        extra=("fingerprint", "upper case")),
    # GitHub: RS256, iat 60 s in the past, exp ten minutes ahead at most, iss the app's client id.
    "github-app": Vendor(["RS256"], "ES256", ["JWT"], 600, ACCOUNT, "absent",
                         extra=("60 s in the past", "ten minutes ahead")),
    # Google AIP-4111, AIP-4112: RS256, kid Google's own, an hour; `sub` at the token endpoint is delegation.
    "google-sa-jwt": Vendor(["RS256"], "ES256", ["JWT"], 3600, ACCOUNT, extra=("service account", "scope or API")),
    # Salesforce: RS256, three minutes, the login host or a site as aud.
    "salesforce-jwt": Vendor(["RS256"], "ES256", ["JWT"], 180, ACCOUNT, "absent", extra=("https aud",)),
}


def set_to(name, value):
    """Breaks a claim: another value, or none."""
    def change(_header, claims, _registered):
        if value is None:
            claims.pop(name, None)
        else:
            claims[name] = value(claims) if callable(value) else value
    return change


def other_way_round(name):
    """Takes a claim away, or says what `iat` says."""
    def change(_header, claims, _registered):
        if claims.pop(name, None) is None:
            claims[name] = claims["iat"]
    return change


def header_set_to(name, value):
    def change(header, _claims, _registered):
        if value is None:
            header.pop(name, None)
        else:
            header[name] = value
    return change


def registered_too(name, value):
    """A value that the vendor would have registered, and that is beyond its limits all the same."""
    def change(_header, claims, registered):
        if name in claims:
            claims[name] = registered[name] = value(claims[name])
        else:
            claims[name] = registered[name] = ""
    return change


def is_integer(value):
    return type(value) is int


SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+\Z")

# What may be wrong with an assertion: by name, whether it is right, and ways to break it.
RULES = {
    "header members": (
        lambda v, h, c, r: set(h) == {"alg", "typ"} | ({"kid"} if v.kid == "registered" else set())
        | ({"x5t#S256"} & set(v.extra)),
        [header_set_to("jku", "https://evil.example/jwks"), header_set_to("x5t", "AAAA")]),
    "typ": (lambda v, h, c, r: h.get("typ") in v.typ, [header_set_to("typ", "at+jwt")]),
    "kid": (lambda v, h, c, r: h.get("kid") == (r["kid"] if v.kid == "registered" else None),
            [header_set_to("kid", "another")]),
    "alg": (lambda v, h, c, r: h["alg"] in v.algs and h["alg"] == r["alg"], ["wrong alg"]),
    "claims": (lambda v, h, c, r: set(c) == {name for name in v.claims if r.get(name, "") is not None},
               [set_to("azp", "x"), other_way_round("nbf"), set_to("exp", None)]),
    "iss": (lambda v, h, c, r: c.get("iss") == expected_iss(r), [set_to("iss", "https://evil.example"), set_to("iss", None)]),
    "sub": (lambda v, h, c, r: c.get("sub") == r["sub"], [set_to("sub", "somebody"), set_to("sub", lambda c: ["a"])]),
    "scope": (lambda v, h, c, r: c.get("scope") == r["scope"], [set_to("scope", "everything")]),
    "aud": (lambda v, h, c, r: c.get("aud") == r["aud"],
            [set_to("aud", "https://evil.example"), set_to("aud", lambda c: [c.get("aud"), "https://evil.example"]),
             set_to("aud", lambda c: [c.get("aud")])]),
    "integers": (lambda v, h, c, r: is_integer(c.get("iat")) and is_integer(c.get("exp")),
                 [set_to("iat", lambda c: c["iat"] + 0.5), set_to("exp", lambda c: c["exp"] + 0.0),
                  set_to("exp", lambda c: str(c["exp"]))]),
    "iat": (lambda v, h, c, r: number(c, "iat") <= time.time() + v.skew,
            [set_to("iat", lambda c: int(time.time()) + 30)]),
    "exp": (lambda v, h, c, r: number(c, "exp") > time.time(), [set_to("exp", lambda c: int(time.time()) - 1)]),
    "lifetime": (lambda v, h, c, r: number(c, "exp") - number(c, "iat") <= v.life,
                 ["longer"]),
    "jti": (lambda v, h, c, r: "jti" not in v.claims or re.fullmatch(v.jti, str(c.get("jti"))),
            [set_to("jti", "short")]),
    # of some vendors
    "x5t#S256": (lambda v, h, c, r: h.get("x5t#S256") == r["x5t#S256"],
                 [header_set_to("x5t#S256", "A" * 43), header_set_to("x5t#S256", None)]),
    "nbf": (lambda v, h, c, r: is_integer(c.get("nbf")) and c["nbf"] <= time.time() and c["nbf"] <= number(c, "exp"),
            [set_to("nbf", lambda c: int(time.time()) + 600), set_to("nbf", lambda c: c["nbf"] + 0.5)]),
    "token endpoint": (lambda v, h, c, r: re.fullmatch(r"https://[^/]+/[^/]+/oauth2/v2\.0/token", str(c.get("aud"))),
                       [registered_too("aud", lambda aud: aud.replace("/oauth2", "")),
                        registered_too("aud", lambda aud: aud + "/")]),
    "https aud": (lambda v, h, c, r: str(c.get("aud")).startswith("https://"),
                  [registered_too("aud", lambda aud: aud.replace("https:", "http:"))]),
    "https iss": (lambda v, h, c, r: str(c.get("iss")).startswith("https://"),
                  [registered_too("iss", lambda iss: iss.replace("https:", "http:"))]),
    "trailing slash": (lambda v, h, c, r: re.fullmatch(r"https://[^/]+/", str(c.get("aud"))),
                       [registered_too("aud", lambda aud: aud.rstrip("/"))]),
    "64 characters": (lambda v, h, c, r: all(len(str(c.get(n))) <= 64 for n in ("iss", "sub", "jti")),
                      [registered_too("sub", lambda sub: sub + "x" * 64)]),
    "600 characters": (lambda v, h, c, r: all(len(str(c.get(n))) <= 600 for n in ("iss", "sub", "aud")),
                       [registered_too(name, lambda text: text + "x" * 600) for name in ("iss", "sub", "aud")]),
    "127 bytes": (lambda v, h, c, r: len(str(c.get("sub")).encode()) <= 127,
                  [registered_too("sub", lambda sub: sub + "ä" * 63)]),
    "256 characters": (lambda v, h, c, r: len(str(c.get("aud"))) <= 256,
                       [registered_too("aud", lambda aud: aud + "x" * 256)]),
    "SPIFFE ID": (lambda v, h, c, r: SPIFFE_ID.match(str(c.get("sub"))),
                  [registered_too("sub", lambda sub: sub.replace("spiffe:", "https:")),
                   registered_too("sub", lambda sub: sub + "/"),
                   registered_too("sub", lambda sub: sub.replace("example", "EXAMPLE"))]),
    "fingerprint": (lambda v, h, c, r: str(c.get("iss")).endswith(".SHA256:" + fingerprint(r["jwk"])),
                    [set_to("iss", lambda c: c["iss"][:-2] + "x="), set_to("iss", lambda c: c["sub"])]),
    "upper case": (lambda v, h, c, r: str(c.get("sub")).isupper() and str(c.get("sub")).count(".") == 1,
                   [registered_too("sub", str.lower), registered_too("sub", lambda sub: "EU." + sub)]),
    "60 s in the past": (lambda v, h, c, r: 55 <= time.time() - number(c, "iat") <= 120,
                         [set_to("iat", lambda c: int(time.time()))]),
    "ten minutes ahead": (lambda v, h, c, r: number(c, "exp") <= time.time() + 600,
                          [set_to("exp", lambda c: int(time.time()) + 630)]),
    "service account": (lambda v, h, c, r: str(c.get("iss")).endswith(".gserviceaccount.com")
                        and c.get("sub", c.get("iss")) == c.get("iss"),
                        [registered_too("iss", lambda iss: iss + ".evil.example")]),
    "scope or API": (lambda v, h, c, r: ("scope" in c) == (c.get("aud") == "https://oauth2.googleapis.com/token")
                     and ("scope" in c) != ("sub" in c),
                     [registered_too("aud", lambda aud: "https://www.googleapis.com/" if aud.endswith("/token")
                                     else "https://oauth2.googleapis.com/token")]),
    "2048 bytes": (lambda v, h, c, r: len(str(c.get("sub")).encode()) <= 2048,
                   [registered_too("sub", lambda sub: sub + "x" * 2048)]),
}
OF_ALL = ["header members", "typ", "kid", "alg", "claims", "iss", "sub", "scope", "aud", "integers", "iat", "exp", "lifetime", "jti"]


def fingerprint(jwk):
    """SHA-256 of the SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER` has it."""
    key = serialization.load_pem_public_key(jwcrypto.jwk.JWK(**without_kid(jwk)).export_to_pem())
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def expected_iss(registered):
    if registered["profile"] != "snowflake":
        return registered["iss"]
    return f"{registered['iss']}.SHA256:{fingerprint(registered['jwk'])}"


def number(claims, name):
    value = claims.get(name)
    return value if isinstance(value, (int, float)) else float("nan")


def rules_of(vendor):
    return [name for name in [*OF_ALL, *vendor.extra] if name in vendor.claims or name not in ("jti", "scope")]


def broken_rules(vendor, header, claims, registered):
    return [name for name in rules_of(vendor) if not RULES[name][0](vendor, header, claims, registered)]


def wanted(registered):
    values = {"iss": expected_iss(registered), "sub": registered["sub"], "aud": registered["aud"]}
    return {name: value for name, value in values.items() if value is not None}


def by_pyjwt(vendor, assertion, registered):
    key = pyjwt.PyJWK(registered["jwk"], algorithm=registered["jwk"]["alg"]).key
    options = {"require": sorted(vendor.claims & set(wanted(registered)) | {"iat", "exp"}), "strict_aud": True}
    options["verify_aud"] = registered["aud"] is not None
    pyjwt.decode(assertion, key, algorithms=vendor.algs, issuer=expected_iss(registered), audience=registered["aud"],
                 subject=registered["sub"], leeway=0, options=options)


def by_joserfc(vendor, assertion, registered):
    warnings.simplefilter("ignore", joserfc.errors.SecurityWarning)
    key = joserfc.jwk.import_key(without_kid(registered["jwk"]))
    token = joserfc.jwt.decode(assertion, key, algorithms=vendor.algs)
    essential = {name: {"essential": True, "value": value} for name, value in wanted(registered).items()}
    times = {name: {"essential": True} for name in ("iat", "exp")}
    joserfc.jwt.JWTClaimsRegistry(leeway=0, **essential, **times).validate(token.claims)


def by_jwcrypto(vendor, assertion, registered):
    key = jwcrypto.jwk.JWK(**without_kid(registered["jwk"]))
    token = jwcrypto.jwt.JWT(check_claims={**wanted(registered), "iat": None, "exp": None}, algs=vendor.algs)
    token.leeway = 0
    token.deserialize(assertion, key)


def without_kid(jwk):
    return {name: value for name, value in jwk.items() if name not in ("kid", "alg")}


LIBRARIES = {"pyjwt": by_pyjwt, "joserfc": by_joserfc, "jwcrypto": by_jwcrypto}


def libraries_refusing(vendor, assertion, registered):
    refusing = []
    for name, verify in LIBRARIES.items():
        try:
            verify(vendor, assertion, registered)
        except Exception as error:  # whatever a library raises is a refusal
            refusing.append(name)
            if DEBUG:
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    return refusing


def decoded(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class Signer:
    """Keys made here, one for each algorithm: they are registered in place of the real one."""

    keys = {}

    def key(self, alg):
        """The JWK, and what signs: reading a private key anew is slow, since it is checked then."""
        if alg not in self.keys:
            kty, members = KEY_OF.get(alg, ("EC", {"crv": "secp256k1"}) if alg == "ES256K" else ("RSA", {"size": 2048}))
            jwk = jwcrypto.jwk.JWK.generate(kty=kty, **members)
            pem = jwk.export_to_pem(private_key=True, password=None)
            self.keys[alg] = (jwk, serialization.load_pem_private_key(pem, None))
        return self.keys[alg]

    def sign(self, header, claims):
        alg = header["alg"]
        payload = json.dumps(claims, separators=(",", ":")).encode()
        return pyjwt.PyJWS().encode(payload, self.key(alg)[1], algorithm=alg, headers=header)

    def public(self, alg):
        return {**self.key(alg)[0].export_public(as_dict=True), "alg": alg}


def break_one(way, vendor, header, claims, registered):
    if way == "wrong alg":
        header["alg"] = registered["alg"] = vendor.wrong_alg
    elif way == "longer":
        claims["exp"] = claims["iat"] + vendor.life + 1
    else:
        way(header, claims, registered)


def signed_again(vendor, header, claims, registered, way=None):
    """Who refuses what says this, broken in one way, signed by a key made here, which is registered then."""
    header, claims, registered = copy.deepcopy((header, claims, registered))
    alg = vendor.wrong_alg if way == "wrong alg" else header["alg"]
    registered["jwk"] = Signer().public(alg)
    if registered["profile"] == "snowflake":
        claims["iss"] = expected_iss(registered)
    if way is not None:
        break_one(way, vendor, header, claims, registered)
    assertion = Signer().sign(header, claims)
    return libraries_refusing(vendor, assertion, registered) + broken_rules(vendor, header, claims, registered)


SEEN = set()


def replayed(vendor, claims, registered):
    """What was there before is refused where `jti` is compared (OIDC Core 9, and the vendors' own words)."""
    if not vendor.single_use:
        return []
    jti = (registered["profile"], claims.get("iss"), claims.get("jti"))
    if jti in SEEN:
        return ["replay"]
    SEEN.add(jti)
    return []


def judge(line):
    registered = json.loads(line)
    assertion, once = registered.pop("assertion"), registered.pop("once", False)
    vendor = VENDORS[registered["profile"]]
    header, claims = (decoded(part) for part in assertion.split(".")[:2])
    accepted = {name: True for name in LIBRARIES}
    accepted.update({name: False for name in libraries_refusing(vendor, assertion, registered)})
    accepted["rules"] = broken_rules(vendor, header, claims, registered) + replayed(vendor, claims, registered)
    if once:
        return {"accepted": accepted, "broken": {}}
    broken = {"": signed_again(vendor, header, claims, registered)}
    for name in rules_of(vendor):
        for index, way in enumerate(RULES[name][1]):
            broken[f"{name} {index}"] = signed_again(vendor, header, claims, registered, way)
    return {"accepted": accepted, "broken": broken}


DEBUG = False


def main():
    source = open(sys.argv[1], encoding="utf-8") if len(sys.argv) > 1 else sys.stdin
    with source:
        for line in source:
            if line.strip():
                print(json.dumps(judge(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
