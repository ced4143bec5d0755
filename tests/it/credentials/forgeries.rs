//! JWTs that nobody may take, of every kind, beside keys that are right: for doors, each of which must refuse them.
//!
//! It must not know how they are shown.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::signer::{Signer, set};

/// The issuer of the keys that are public; that of a secret is called `own`.
pub(crate) const ISSUER: &str = "https://issuer.example/";
/// In 2100.
const LATER: u64 = 4_102_444_800;
/// What is large.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// Returns what a right token of a key says.
pub(crate) fn right(of: &Signer) -> Value {
    let issuer = if of.algorithm == Algorithm::HS256 { "own" } else { ISSUER };
    json!({
        "iss": issuer, "aud": "tidemill", "sub": "ada", "exp": LATER,
        "tidemill": { "publish": ["*"], "read": ["*"], "manage": ["*"], "admin": ["*"] },
    })
}

fn with(of: &Signer, claim: &str, value: Value) -> Value {
    let mut payload = right(of);
    payload[claim] = value;
    payload
}

fn without(of: &Signer, claim: &str) -> Value {
    let mut payload = right(of);
    payload.as_object_mut().unwrap().remove(claim);
    payload
}

/// Returns the header of a key with one field more, or another one.
fn header(of: &Signer, field: &str, value: Value) -> String {
    let mut header = of.header();
    header[field] = value;
    header.to_string()
}

/// Signs with a secret of somebody's choice.
fn sign_by_secret(secret: &[u8], header: &Value, payload: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(payload));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// A forgery, and what it is.
pub(crate) type Forgery = (String, String);

/// JWTs whose algorithm is none, or another one than that of the key that they name.
pub(crate) fn confused(keys: &[Signer; 4]) -> Vec<Forgery> {
    let mut all = Vec::new();
    for key in keys {
        let payload = right(key);
        for alg in ["none", "None", "nOnE", "", "HS384", "RS512", "PS256", "ES384", "ES256K"] {
            let header = json!({ "alg": alg, "kid": key.name }).to_string();
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let unsigned = format!("{}.{}", part(&header), part(&payload.to_string()));
            all.push((format!("{alg:?}, unsigned"), format!("{unsigned}.")));
            all.push((format!("{alg:?}, signed"), key.sign_texts(&header, &payload.to_string())));
        }
        if key.algorithm == Algorithm::HS256 {
            continue;
        }
        // The best known one: the public key, in whatever form it is published, as a secret.
        let lines: String = key.verifies.lines().filter(|line| !line.starts_with('-')).collect();
        let jwk = key.jwk();
        let published = [
            ("PEM", key.verifies.clone().into_bytes()),
            ("PEM without its end", key.verifies.trim().as_bytes().to_vec()),
            ("the inside of the PEM", lines.clone().into_bytes()),
            ("DER", STANDARD.decode(&lines).unwrap()),
            ("JWK", jwk.to_string().into_bytes()),
            ("JWKS", set(&[&keys[1], &keys[2], &keys[3]]).into_bytes()),
            ("a number of the JWK", jwk["n"].as_str().or(jwk["x"].as_str()).unwrap().as_bytes().to_vec()),
            ("nothing", b"".to_vec()),
        ];
        for (form, secret) in published {
            for header in [json!({ "alg": "HS256", "kid": key.name }), json!({ "alg": "HS256" })] {
                all.push((format!("{form} as a secret"), sign_by_secret(&secret, &header, &payload)));
            }
        }
        // Another key of the same issuer, which fits in all but its name.
        let other = keys[1..].iter().find(|other| other.name != key.name).unwrap();
        all.push((
            "the name of another key".to_owned(),
            key.sign_texts(&header(key, "kid", json!(other.name)), &payload.to_string()),
        ));
    }
    all
}

/// JWTs that say what none may say, rightly signed.
pub(crate) fn wrongly_typed(key: &Signer) -> Vec<Forgery> {
    let types = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!("9999999999"),
        json!(""),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "a": 1 }),
    ];
    // What is right of these for a claim says nothing wrong.
    let fits = |claim: &str, value: &Value| match claim {
        "nbf" | "iat" => value.as_f64().is_some_and(|number| (0.0..1e9).contains(&number)),
        "sub" | "jti" => value.as_str().is_some_and(|text| !text.is_empty()),
        "tidemill" => *value == json!({}),
        "scope" => value.is_string() || *value == json!([]),
        _ => false,
    };
    let mut all = Vec::new();
    for claim in ["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "tidemill", "scope"] {
        for value in types.iter().filter(|value| !fits(claim, value)) {
            let mut payload = with(key, claim, (*value).clone());
            if claim == "scope" {
                payload.as_object_mut().unwrap().remove("tidemill");
            }
            all.push((format!("{claim}: {value}"), key.sign(&payload)));
        }
    }
    for claim in ["exp", "aud", "iss", "sub"] {
        all.push((format!("without {claim}"), key.sign(&without(key, claim))));
        let text = right(key).to_string();
        let twice = text.replacen('{', &format!("{{\"{claim}\":{},", right(key)[claim]), 1);
        all.push((format!("{claim} twice"), key.sign_texts(&key.header().to_string(), &twice)));
    }
    for (claim, value) in [
        ("exp", json!(1)),
        ("nbf", json!(LATER)),
        ("aud", json!("others")),
        ("aud", json!(["tidemill.example", "TIDEMILL"])),
        ("iss", json!("https://issuer.example")),
        ("iss", json!("own")),
        ("iss", json!([ISSUER])),
        ("tidemill", json!({ "fly": ["*"] })),
        ("tidemill", json!({ "read": ["a b"] })),
        ("tidemill", json!({ "read": ["* allow admin *"] })),
        ("sub", json!("ada\n")),
        ("sub", json!("a".repeat(300))),
    ] {
        all.push((format!("{claim}: {value:.40}"), key.sign(&with(key, claim, value))));
    }
    all
}

/// JWTs with headers that lead elsewhere, or ask for more than is understood.
pub(crate) fn misled(key: &Signer) -> Vec<Forgery> {
    let stranger = Signer::curve("stranger");
    let mut all = Vec::new();
    let text = right(key).to_string();
    for kid in [
        json!("../../../../dev/null"),
        json!("/etc/passwd"),
        json!("file:///dev/null"),
        json!("http://169.254.169.254/"),
        json!("e\0"),
        json!("\0"),
        json!("x".repeat(10 * 1024)),
        json!("' OR 1=1 --"),
        json!(null),
        json!(1),
        json!(["e"]),
        json!({ "e": 1 }),
    ] {
        all.push((format!("kid {kid:.30}"), key.sign_texts(&header(key, "kid", kid.clone()), &text)));
    }
    for (field, value) in [
        ("crit", json!(["b64"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("alg", json!(["ES256"])),
        ("alg", json!(null)),
        ("typ", json!("logout+jwt")),
        ("typ", json!(1)),
    ] {
        all.push((format!("{field} {value}"), key.sign_texts(&header(key, field, value), &text)));
    }
    for (field, value) in [
        ("jwk", stranger.jwk()),
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("http://127.0.0.1:1/certificate")),
        ("x5c", json!(["AA=="])),
    ] {
        for header in [header(&stranger, field, value.clone()), header(key, field, value)] {
            all.push((format!("{field} of a stranger"), stranger.sign_texts(&header, &text)));
        }
    }
    all.push((
        "a stranger under its name".to_owned(),
        Signer::curve(&key.name).sign_texts(&key.header().to_string(), &text),
    ));
    for twice in [
        format!(r#"{{"alg":"none","alg":"ES256","kid":"{}"}}"#, key.name),
        format!(r#"{{"alg":"ES256","kid":"x","kid":"{}"}}"#, key.name),
    ] {
        all.push((twice.clone(), key.sign_texts(&twice, &text)));
    }
    all
}

/// What is no JWT, though much of it is one.
pub(crate) fn malformed(key: &Signer) -> Vec<Forgery> {
    let right = key.sign(&right(key));
    let (message, signature) = right.rsplit_once('.').unwrap();
    let (head, claims) = message.split_once('.').unwrap();
    let changed = URL_SAFE_NO_PAD.encode(with(key, "sub", json!("eve")).to_string());
    // 64 bytes have four bits to spare in their last character, which must be none.
    let last = signature.chars().last().unwrap();
    let spare = if last == 'A' { 'B' } else { char::from(u8::try_from(last).unwrap().wrapping_add(1)) };
    let not_canonical = format!("{message}.{}{spare}", &signature[..signature.len() - 1]);
    let large = key.sign(&with(key, "more", json!("x".repeat(LARGE_BYTES))));
    [
        ("two parts", message.to_owned()),
        ("four parts", format!("{right}.{signature}")),
        ("five parts", format!("{head}.{claims}.{signature}.{signature}.{signature}")),
        ("empty header", format!(".{claims}.{signature}")),
        ("empty payload", format!("{head}..{signature}")),
        ("empty signature", format!("{message}.")),
        ("points alone", "..".to_owned()),
        ("padding", format!("{right}==")),
        ("padding inside", format!("{head}=.{claims}.{signature}")),
        ("not canonical", not_canonical),
        ("the other alphabet", format!("{head}+.{claims}/.{signature}")),
        ("half a signature", right[..right.len() - 10].to_owned()),
        ("another payload", format!("{head}.{changed}.{signature}")),
        ("another signature", format!("{message}.{}", "A".repeat(signature.len()))),
        ("as JSON", json!({ "protected": head, "payload": claims, "signature": signature }).to_string()),
        ("large", large),
        ("large and nothing", "x".repeat(LARGE_BYTES)),
        ("large, of parts", "a.".repeat(LARGE_BYTES / 2)),
    ]
    .map(|(what, token)| (what.to_owned(), token))
    .into()
}
