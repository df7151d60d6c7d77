//! The table of profiles. Each row says where it is known from and what it was really run against;
//! "untested against the vendor" stands where that is so.

use super::rule::{Of, Rule};
use super::{Birth, Jti, Key, KidRule, Nbf, Origin, Row};
use keystore::Alg::{self, ES256, ES384, EdDSA, PS256, RS256};
use keystore::charter::{CertificateUse, PurposeKind, Typ};

/// Lifetime in seconds of an assertion that is redeemed at once. Safe at every server tried;
/// Keycloak takes no longer one.
const CLIENT_LIFETIME_S: u32 = 60;

/// Longest lifetime in seconds of client authentication: the replay window (standards §1.3).
const CLIENT_LIFETIME_MAX_S: u32 = 300;

/// Lifetime in seconds of a federation token from the socket.
const FEDERATION_LIFETIME_S: u32 = 600;

/// Longest lifetime in seconds of a federation token: one delivered as a file, which SDKs cache for
/// ten minutes and more.
const FEDERATION_LIFETIME_MAX_S: u32 = 3600;

/// What every asymmetric JWT library verifies.
const ANY: &[Alg] = &[ES256, ES384, PS256, RS256, EdDSA];

/// Where a row was run against nothing of the vendor's own.
const BY_THE_RULES: &str = "PyJWT, joserfc and jwcrypto configured by the documented rules; untested against the \
     vendor";

/// Every profile we ship.
pub static ROWS: [Row; 17] = [
    Row {
        name: "rfc7523",
        party: "an OAuth authorization server",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::ClientAuthentication,
        kid: KidRule::Thumbprint,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::ClientId),
        aud: Origin::Key(Key::AuthorizationServer),
        scope: Origin::Nothing,
        algs: ANY,
        lifetime_default_s: CLIENT_LIFETIME_S,
        lifetime_max_s: CLIENT_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[],
        registration: "private_key_jwt, with the key's JWK as the client's `jwks`, or a URL that serves it as its \
                       `jwks_uri`",
        source: "RFC 7523 §3 as updated by draft-ietf-oauth-rfc7523bis-11: sole issuer identifier \
                 as `aud`, `typ` client-authentication+jwt; no `nbf` (a server in use refuses it)",
        tested: "oidc-provider 9 (private_key_jwt), also by the request that `assertctl env` prints",
    },
    Row {
        name: "fapi2",
        party: "an authorization server by FAPI 2.0",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::ClientAuthentication,
        kid: KidRule::Thumbprint,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::ClientId),
        aud: Origin::Key(Key::AuthorizationServer),
        scope: Origin::Nothing,
        algs: &[ES256, PS256, EdDSA], // §5.4.1: no RS256, and ES384 is not listed
        lifetime_default_s: CLIENT_LIFETIME_S,
        lifetime_max_s: CLIENT_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[(Of::Key(Key::AuthorizationServer), Rule::HttpsUrl)],
        registration: "private_key_jwt, with the client's `jwks_uri`; RSA keys have 2048 bits at least",
        source: "FAPI 2.0 Security Profile §5.3.3.1 (the issuer identifier as `aud`, as a string) and \
                 §5.4.1 (PS256, ES256, Ed25519)",
        tested: "oidc-provider 9 (private_key_jwt, ES256), as rfc7523: it emits the same; by a server that \
                 enforces FAPI untested",
    },
    Row {
        name: "keycloak",
        party: "a realm of Keycloak",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::ClientAuthentication,
        kid: KidRule::Thumbprint,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::ClientId),
        aud: Origin::Key(Key::AuthorizationServer),
        scope: Origin::Nothing,
        algs: ANY,
        lifetime_default_s: CLIENT_LIFETIME_S,
        // 60 s from `iat` unless the client's settings say more (keycloak#38585, 26.0.11, 26.1.5, 26.2).
        lifetime_max_s: CLIENT_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[(Of::Key(Key::AuthorizationServer), Rule::HttpsUrl)],
        registration: "client authenticator \"Signed JWT\", with a JWKS URL or an uploaded key; the realm's URL is \
                       its issuer, https://HOST/realms/REALM; more than 60 s take \"Max expiration\" there",
        source: "Keycloak 26: sole issuer as `aud` as a string (upgrading guide), `jti` once, 60 s from \
                 `iat` (keycloak#38585)",
        tested: BY_THE_RULES,
    },
    Row {
        name: "okta",
        party: "Okta",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::ClientId),
        aud: Origin::Key(Key::TokenEndpoint),
        scope: Origin::Nothing,
        algs: &[ES256, RS256, ES384],
        lifetime_default_s: CLIENT_LIFETIME_S,
        lifetime_max_s: CLIENT_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[(Of::Key(Key::TokenEndpoint), Rule::HttpsUrl)],
        registration: "client authentication \"Public key / Private key\", with the key's JWK saved in Okta or a URL \
                       that serves it",
        source: "Okta, \"Build a JWT for client authentication\" and \"Create and sign the JWT\": `aud` is the \
                 full URL of the token endpoint, `exp` an hour ahead at most, `jti` used once",
        tested: BY_THE_RULES,
    },
    Row {
        name: "auth0",
        party: "Auth0",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::Jwt,
        kid: KidRule::MayBeAssigned,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::ClientId),
        aud: Origin::Key(Key::AuthorizationServer),
        scope: Origin::Nothing,
        algs: &[RS256, PS256], // and RS384, which no keystore here makes
        lifetime_default_s: CLIENT_LIFETIME_S,
        lifetime_max_s: CLIENT_LIFETIME_MAX_S, // five minutes are theirs too
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[
            (Of::Key(Key::AuthorizationServer), Rule::HttpsOrigin),
            (Of::Key(Key::ClientId), Rule::Chars(64)),
        ],
        registration: "credential \"Private Key JWT\" of the application, with the public key as PEM and the same \
                       algorithm; two credentials at a time",
        source: "Auth0, \"Authenticate with Private Key JWT\": `aud` https://DOMAIN/ with the trailing slash, \
                 five minutes at most, `iss`, `sub` and `jti` of 64 characters at most",
        tested: BY_THE_RULES,
    },
    Row {
        name: "entra-cert",
        party: "Microsoft Entra ID, as an application with a certificate",
        purpose: PurposeKind::ClientAuthentication,
        typ: Typ::Jwt,
        kid: KidRule::Absent,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::ClientId),
        aud: Origin::Key(Key::TokenEndpoint),
        scope: Origin::Nothing,
        algs: &[PS256],
        lifetime_default_s: CLIENT_LIFETIME_S,
        lifetime_max_s: CLIENT_LIFETIME_MAX_S, // "5-10 minutes after nbf at most" is advice
        jti: Jti::Uuid,
        backdate_s: 0,
        nbf: Nbf::AsIat,
        certificate: CertificateUse::Named,
        birth: Birth::Here,
        rules: &[(Of::Key(Key::TokenEndpoint), Rule::EntraTokenEndpoint)],
        registration: "the certificate that `assertctl keys certificate` prints, as PEM, among the application's \
                       certificates; each version of the key has its own, and is uploaded before it is activated",
        source: "Microsoft identity platform, \"Application authentication certificate credentials\": PS256, \
                 `x5t#S256`, `aud` the token endpoint, `iss` and `sub` the client id, `jti` a GUID, `nbf`, `iat`",
        tested: "MSAL for Python 1.39, which sends ours to a stand-in that verifies by the documented rules; it and \
                 MSAL for Node 7.2 make their own of the same members; untested against the vendor",
    },
    Row {
        name: "aws-oidc",
        party: "AWS STS, AssumeRoleWithWebIdentity",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::Key(Key::Audience),
        scope: Origin::Nothing,
        algs: &[RS256, ES256, ES384], // AWS STS takes no PS* and no EdDSA
        lifetime_default_s: FEDERATION_LIFETIME_S,
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[
            (Of::Issuer, Rule::Chars(255)),
            (Of::Issuer, Rule::NoPort),
            (Of::Key(Key::Audience), Rule::Chars(255)),
        ],
        registration: "an IAM OIDC provider with the issuer's URL, and the audience among its client ids; the role's \
                       trust policy compares ISSUER:aud and ISSUER:sub",
        source: "AWS IAM user guide, OIDC federation: integer times, `aud` in the client-id list; \
                 CreateOpenIDConnectProvider: client ids of 255 characters at most, a URL without a port",
        tested: "botocore 1.44 against a stand-in that verifies; PyJWT, joserfc and jwcrypto configured by the \
                 documented rules; untested against the vendor",
    },
    Row {
        name: "entra-fic",
        party: "Microsoft Entra, a federated identity credential",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::KeyOr(Key::Audience, "api://AzureADTokenExchange"),
        scope: Origin::Nothing,
        algs: &[RS256], // "only … RS256 … others may work, but haven't been tested"
        lifetime_default_s: FEDERATION_LIFETIME_S,
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[
            (Of::Issuer, Rule::Chars(600)),
            (Of::Key(Key::Subject), Rule::Chars(600)),
            (Of::Key(Key::Audience), Rule::Chars(600)),
        ],
        registration: "a federated identity credential of the application or managed identity, with issuer, subject \
                       and audience compared character by character; 20 of them at most",
        source: "Microsoft Entra, \"Important considerations and restrictions for federated identity \
                 credentials\": RS256, 600 characters each",
        tested: "azure-identity 1.27 against a stand-in that verifies; PyJWT, joserfc and jwcrypto configured by the \
                 documented rules; untested against the vendor",
    },
    Row {
        name: "gcp-wif",
        party: "Google Cloud, workload identity federation",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::Key(Key::Audience),
        scope: Origin::Nothing,
        algs: &[RS256, ES256],
        lifetime_default_s: FEDERATION_LIFETIME_S,
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S, // below 48 hours, and below 6 by advice
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[
            (Of::Key(Key::Subject), Rule::Bytes(127)),
            (Of::Key(Key::Audience), Rule::Chars(256)),
        ],
        registration: "an OIDC provider of a workload identity pool, with the issuer's URL or its JWKS, the mapping \
                       google.subject=assertion.sub, and the audience: the provider's own name, \
                       //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER, \
                       or one that is allowed there",
        source: "Google STS v1 `subjectToken` (RS256 or ES256, `kid`, `iat` in the past, `exp` less than 48 hours \
                 after it and better less than 6) and IAM v1 providers \
                 (google.subject of 127 bytes, audiences of 256 characters at most)",
        tested: "google-auth 2.62 against a stand-in that verifies; PyJWT, joserfc and jwcrypto configured by the \
                 documented rules; untested against the vendor",
    },
    Row {
        name: "vault-jwt",
        party: "Vault or OpenBao, auth method jwt",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::Key(Key::Audience),
        scope: Origin::Nothing,
        algs: ANY,
        lifetime_default_s: 60, // redeemed at once; Vault adds 150 s to `exp` by itself
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[],
        registration: "`jwks_url` or `oidc_discovery_url`, `bound_issuer`, and a role with `bound_audiences`, \
                       `bound_subject` and `user_claim` = sub",
        source: "Vault, JWT/OIDC auth method API: `jwt_supported_algs`, `bound_audiences` needed where the \
                 token has `aud`",
        tested: BY_THE_RULES,
    },
    Row {
        name: "jwt-svid",
        party: "a SPIFFE verifier",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::Key(Key::Audience),
        scope: Origin::Nothing,
        algs: &[ES256, RS256, ES384, PS256], // JWT-SVID §2.1: no EdDSA
        lifetime_default_s: 300,
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[(Of::Key(Key::Subject), Rule::SpiffeId)],
        registration: "the issuer's key in the bundle of its `trust_domain`, with `use` = jwt-svid",
        source: "SPIFFE JWT-SVID §2 (header of `alg`, `kid`, `typ` and nothing else) and §3 (`sub` is a SPIFFE \
                 ID); SPIFFE-ID §2",
        tested: BY_THE_RULES,
    },
    Row {
        name: "k8s-structured-auth",
        party: "a Kubernetes API server, structured authentication",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::Key(Key::Audience),
        scope: Origin::Nothing,
        algs: &[RS256, ES256, ES384, PS256], // RS*, ES*, PS* and no EdDSA
        lifetime_default_s: FEDERATION_LIFETIME_S,
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[],
        registration: "AuthenticationConfiguration with `issuer.url` (not the cluster's own), the audience among \
                       `issuer.audiences`, and `claimMappings.username.claim` = sub with a prefix",
        source: "Kubernetes, \"Authenticating\", AuthenticationConfiguration v1: https `issuer.url`, \
                 `audienceMatchPolicy` MatchAny",
        tested: "PyJWT, joserfc and jwcrypto configured by the documented rules; untested against an API server",
    },
    Row {
        name: "databricks-fed",
        party: "Databricks, token federation",
        purpose: PurposeKind::Federation,
        typ: Typ::Jwt,
        kid: KidRule::Thumbprint,
        iss: Origin::IssuerUrl,
        sub: Origin::Key(Key::Subject),
        aud: Origin::Key(Key::Audience),
        scope: Origin::Nothing,
        algs: &[RS256, ES256],
        lifetime_default_s: FEDERATION_LIFETIME_S,
        lifetime_max_s: FEDERATION_LIFETIME_MAX_S,
        jti: Jti::Short,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[],
        registration: "a federation policy of the service principal, with issuer, audience and subject; 20 policies \
                       at most",
        source: "Databricks, \"Configure a federation policy\": `subject_claim` is sub unless it says otherwise; \
                 without `audiences` the account id is demanded",
        tested: BY_THE_RULES,
    },
    Row {
        name: "snowflake",
        party: "Snowflake, key-pair authentication",
        purpose: PurposeKind::Account,
        typ: Typ::Jwt,
        kid: KidRule::Absent,
        iss: Origin::AccountUserKey,
        sub: Origin::AccountUser,
        aud: Origin::Nothing,
        scope: Origin::Nothing,
        algs: &[RS256],
        lifetime_default_s: 300,
        lifetime_max_s: 3600, // an hour from `iat`, whatever `exp` says
        jti: Jti::Absent,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::Here,
        rules: &[
            (Of::Key(Key::Account), Rule::SnowflakeAccount),
            (Of::Key(Key::User), Rule::UpperCase),
        ],
        registration: "ALTER USER … SET RSA_PUBLIC_KEY to the public key as PEM without its first and last line \
                       (RSA_PUBLIC_KEY_2 beside it while keys change); sent as a bearer with \
                       X-Snowflake-Authorization-Token-Type: KEYPAIR_JWT",
        source: "Snowflake SQL API, \"Authenticating to the server\": `iss` ACCOUNT.USER.SHA256:FINGERPRINT, `sub` \
                 ACCOUNT.USER, in upper case, periods of the account as hyphens; an hour at most",
        tested: BY_THE_RULES,
    },
    Row {
        name: "github-app",
        party: "GitHub, as a GitHub App",
        purpose: PurposeKind::Account,
        typ: Typ::Jwt,
        kid: KidRule::Absent,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Nothing,
        aud: Origin::Nothing,
        scope: Origin::Nothing,
        algs: &[RS256],
        lifetime_default_s: 480,
        lifetime_max_s: 540, // with the 60 s before, the 600 that GitHub allows
        jti: Jti::Absent,
        backdate_s: 60,
        nbf: Nbf::Absent,
        certificate: CertificateUse::None,
        birth: Birth::AtTheVendor,
        rules: &[],
        registration: "GitHub makes the key and shows it once, as PEM; nothing can be registered there, so the key is \
                       brought in by `assertctl keys import`",
        source: "GitHub, \"Generating a JSON Web Token (JWT) for a GitHub App\": RS256, `iat` 60 s in the \
                 past, `exp` ten minutes ahead at most, `iss` the client id or the app id",
        tested: BY_THE_RULES,
    },
    Row {
        name: "google-sa-jwt",
        party: "Google APIs, as a service account",
        purpose: PurposeKind::Account,
        typ: Typ::Jwt,
        kid: KidRule::MayBeAssigned,
        iss: Origin::Key(Key::ServiceAccount),
        // With a scope it goes to the token endpoint, where `sub` would ask for domain-wide delegation.
        sub: Origin::KeyUnless(Key::ServiceAccount, Key::Scope),
        aud: Origin::KeyOr(Key::Audience, "https://oauth2.googleapis.com/token"),
        scope: Origin::IfThere(Key::Scope),
        algs: &[RS256],
        lifetime_default_s: 600,
        lifetime_max_s: 3600,
        jti: Jti::Absent,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::Allowed,
        birth: Birth::Here,
        rules: &[
            (Of::Target, Rule::AudienceOrScope),
            (Of::Key(Key::ServiceAccount), Rule::ServiceAccount),
            (Of::Key(Key::Audience), Rule::HttpsOrigin),
            (Of::Key(Key::Scope), Rule::Scope),
        ],
        registration: "`gcloud iam service-accounts keys upload` with what `assertctl keys certificate` prints, \
                       then the id that Google gives it as the target's `kid`; 10 keys at most",
        source: "Google AIP-4111 (self-signed: `iss` and `sub` the service account, `aud` https://SERVICE/) and \
                 AIP-4112 (token endpoint: `scope`); an hour at most",
        tested: BY_THE_RULES,
    },
    Row {
        name: "salesforce-jwt",
        party: "Salesforce, OAuth 2.0 JWT bearer flow",
        purpose: PurposeKind::Account,
        typ: Typ::Jwt,
        kid: KidRule::Absent,
        iss: Origin::Key(Key::ClientId),
        sub: Origin::Key(Key::User),
        aud: Origin::Key(Key::AuthorizationServer),
        scope: Origin::Nothing,
        algs: &[RS256],
        lifetime_default_s: 120,
        lifetime_max_s: 180, // three minutes
        jti: Jti::Absent,
        backdate_s: 0,
        nbf: Nbf::Absent,
        certificate: CertificateUse::Allowed,
        birth: Birth::Here,
        rules: &[(Of::Key(Key::AuthorizationServer), Rule::HttpsUrl)],
        registration: "what `assertctl keys certificate` prints, on the external client app, with \"use digital signatures\", and \
                       the user admitted to the app; sent as grant urn:ietf:params:oauth:grant-type:jwt-bearer",
        source: "Salesforce, \"OAuth 2.0 JWT Bearer Flow\": RS256, `iss` the consumer key, `sub` the username, `aud` \
                 https://login.salesforce.com, https://test.salesforce.com or the site's URL, three minutes",
        tested: BY_THE_RULES,
    },
];
