//! Which texts have keys, and which keys are taken.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};
use serde_json::json;

use super::*;

const ALL: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

fn pair(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn algorithms(text: &str, of: &[Algorithm]) -> Result<Vec<Algorithm>, KeyError> {
    KeySet::parse(text, of).map(|keys| keys.0.iter().map(|(key, _)| key.algorithm).collect())
}

/// Returns the JWK of an RSA modulus of so many bits, with other fields.
fn rsa(modulus: &[u8], more: &Value) -> Value {
    use base64::Engine as _;
    let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(modulus);
    with(json!({"kty": "RSA", "n": n, "e": "AQAB"}), more)
}

fn with(mut key: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        key[name] = value.clone();
    }
    key
}

#[test]
fn pem_has_one_key_or_several() {
    let kinds = [
        (&PKCS_RSA_SHA256, Algorithm::Rs256),
        (&PKCS_ECDSA_P256_SHA256, Algorithm::Es256),
        (&PKCS_ED25519, Algorithm::EdDsa),
    ];
    let mut all = String::new();
    for (kind, algorithm) in kinds {
        let pem = pair(kind).public_key_pem();
        assert_eq!(algorithms(&pem, &ALL), Ok(vec![algorithm]), "{pem}");
        assert_eq!(algorithms(&format!("\n\u{20}{pem}\n"), &ALL), Ok(vec![algorithm]));
        assert_eq!(algorithms(&format!("# our key\n{pem}"), &ALL), Ok(vec![algorithm]));
        all.push_str(&pem);
    }
    assert_eq!(algorithms(&all, &ALL), Ok(vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]));
    assert_eq!(algorithms(&all, &[Algorithm::EdDsa]), Ok(vec![Algorithm::EdDsa]));
    assert_eq!(algorithms(&all, &[Algorithm::Hs256]), Err(KeyError::NoKey));
}

#[test]
fn pem_that_is_none_of_a_public_key_is_never_a_secret() {
    let pem = pair(&PKCS_ECDSA_P256_SHA256).public_key_pem();
    let private = pair(&PKCS_ECDSA_P256_SHA256).serialize_pem();
    let cases = [
        (private.clone(), KeyError::Private),
        (format!("{pem}{private}"), KeyError::Private),
        (pem.replace("-----END PUBLIC KEY-----", ""), KeyError::Pem),
        (pem[..60].to_owned(), KeyError::Pem),
        (format!("{pem}-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), KeyError::Pem),
        ("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----".to_owned(), KeyError::Pem),
        ("-----BEGIN".to_owned() + &"x".repeat(60), KeyError::NoKey),
        (pair(&PKCS_ECDSA_P384_SHA384).public_key_pem(), KeyError::NoKey),
    ];
    for (text, error) in cases {
        assert_eq!(algorithms(&text, &ALL), Err(error), "{text}");
    }
}

#[test]
fn a_set_is_read_key_by_key() {
    let modulus = [0xff; 256];
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let ec = json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let secret = json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
    let taken = [
        (rsa(&modulus, &json!({})), Algorithm::Rs256),
        (
            rsa(&modulus, &json!({"alg": "RS256", "use": "sig", "kid": "1", "x5c": ["AA"], "more": 1})),
            Algorithm::Rs256,
        ),
        (rsa(&[&[0; 5], modulus.as_slice()].concat(), &json!({})), Algorithm::Rs256),
        (rsa(&[0xff; 1_024], &json!({})), Algorithm::Rs256),
        (rsa(&modulus, &json!({"key_ops": ["verify"]})), Algorithm::Rs256),
        (ec.clone(), Algorithm::Es256),
        (with(ec.clone(), &json!({"alg": "ES256"})), Algorithm::Es256),
        (ed.clone(), Algorithm::EdDsa),
        (with(ed.clone(), &json!({"alg": "EdDSA"})), Algorithm::EdDsa),
        (secret.clone(), Algorithm::Hs256),
    ];
    for (key, algorithm) in &taken {
        assert_eq!(algorithms(&key.to_string(), &ALL), Ok(vec![*algorithm]), "{key}");
        assert_eq!(algorithms(&json!({"keys": [key]}).to_string(), &ALL), Ok(vec![*algorithm]), "{key}");
    }
    let left_out = [
        rsa(&[0xff; 255], &json!({})),
        rsa(&[0xff; 1_025], &json!({})),
        rsa(&[&[0; 200], [0xff; 128].as_slice()].concat(), &json!({})),
        rsa(&[], &json!({})),
        rsa(&modulus, &json!({"n": "not base64!"})),
        rsa(&modulus, &json!({"use": "enc"})),
        rsa(&modulus, &json!({"key_ops": ["encrypt"]})),
        rsa(&modulus, &json!({"alg": "PS256"})),
        rsa(&modulus, &json!({"alg": "RSA-OAEP"})),
        rsa(&modulus, &json!({"alg": "HS256"})),
        rsa(&modulus, &json!({"alg": "none"})),
        with(ec.clone(), &json!({"crv": "P-384"})),
        with(ec.clone(), &json!({"x": "AA"})),
        with(ec, &json!({"alg": "EdDSA"})),
        with(ed.clone(), &json!({"crv": "X25519"})),
        with(ed, &json!({"x": "AA"})),
        with(secret.clone(), &json!({"k": "c2hvcnQ"})),
        with(secret, &json!({"alg": "RS256"})),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
        json!({"kty": 1}),
        json!("key"),
        json!(null),
    ];
    for key in &left_out {
        assert_eq!(algorithms(&json!({"keys": [key]}).to_string(), &ALL), Err(KeyError::NoKey), "{key}");
    }
    // What is not understood does not spoil the others.
    let mixed: Vec<_> = left_out.iter().chain(taken.iter().map(|(key, _)| key)).collect();
    let expected: Vec<_> = taken.iter().map(|(_, algorithm)| *algorithm).collect();
    assert_eq!(algorithms(&json!({"keys": mixed}).to_string(), &ALL), Ok(expected));
}

#[test]
fn what_is_no_set_is_told() {
    let cases = [
        ("{", KeyError::Json),
        ("{}", KeyError::Json),
        (r#"{"keys": {}}"#, KeyError::Json),
        (r#"{"keys": []}"#, KeyError::NoKey),
        (r#"{"kty": "unknown"}"#, KeyError::NoKey),
        ("short", KeyError::ShortSecret),
        ("", KeyError::ShortSecret),
    ];
    for (text, error) in cases {
        assert_eq!(algorithms(text, &ALL), Err(error), "{text}");
    }
    let secret = "0123456789012345678901234567890123456789";
    assert_eq!(algorithms(secret, &[Algorithm::Hs256]), Ok(vec![Algorithm::Hs256]));
    assert_eq!(algorithms(secret, &Algorithm::PUBLIC), Err(KeyError::NoSecret));
    let many = json!({"keys": vec![rsa(&[0xff; 256], &json!({})); 65]}).to_string();
    assert_eq!(algorithms(&many, &ALL), Err(KeyError::TooMany));
    let pem = pair(&PKCS_ED25519).public_key_pem();
    assert_eq!(algorithms(&pem.repeat(65), &ALL), Err(KeyError::TooMany));
}

#[test]
fn sets_are_the_same_where_their_keys_are() {
    let parse = |text: &str| KeySet::parse(text, &ALL).unwrap();
    let (one, other) = (pair(&PKCS_ED25519).public_key_pem(), pair(&PKCS_ED25519).public_key_pem());
    assert_eq!(parse(&one), parse(&format!("{one}\n")));
    assert_ne!(parse(&one), parse(&other));
    assert_ne!(parse(&one), parse(&format!("{one}{other}")));
    let modulus = [0xff; 256];
    let named = |kid: &str| parse(&rsa(&modulus, &json!({"kid": kid})).to_string());
    assert_eq!(named("a"), named("a"));
    assert_ne!(named("a"), named("b"));
    let shown = format!("{:?}", parse("0123456789012345678901234567890123456789"));
    assert!(!shown.contains("0123456789"), "{shown}");
}

/// Returns a secret of HS256 for a name.
fn secret(name: &str) -> String {
    format!("{name:-<40}")
}

/// Returns a set of secrets, some of which have names.
fn secrets(keys: &[(Option<&str>, &str)]) -> KeySet {
    let mut set = KeySet::default();
    for (id, text) in keys {
        let mut one = KeySet::parse(&secret(text), &[Algorithm::Hs256]).unwrap();
        one.0[0].0.id = id.map(str::to_owned);
        set.0.extend(one.0);
    }
    set
}

/// Checks a token that names a key, or none, and is signed with a secret.
fn check(set: &KeySet, id: Option<&str>, text: &str) -> Checked {
    let header = jsonwebtoken::Header { kid: id.map(str::to_owned), ..jsonwebtoken::Header::default() };
    let key = jsonwebtoken::EncodingKey::from_secret(secret(text).as_bytes());
    let token = jsonwebtoken::encode(&header, &json!({}), &key).unwrap();
    set.check(&Parts::read(&token).unwrap(), Algorithm::Hs256)
}

/// What is found where this secret fits.
fn fits(text: &str) -> Checked {
    Checked::Fits(KeyPrint::of(secret(text).as_bytes()))
}

#[test]
fn a_token_is_checked_with_the_key_that_it_names() {
    let set = secrets(&[(Some("a"), "of a"), (Some("b"), "of b")]);
    assert_eq!(check(&set, Some("a"), "of a"), fits("of a"));
    assert_eq!(check(&set, Some("b"), "of a"), Checked::Differs);
    assert_eq!(check(&set, Some("c"), "of a"), Checked::Unknown);
    assert_eq!(check(&set, None, "of b"), fits("of b"));
    assert_eq!(check(&set, None, "of c"), Checked::Differs);
    assert_eq!(check(&KeySet::default(), None, "of a"), Checked::Unknown);
    assert_eq!(check(&KeySet::default(), Some("a"), "of a"), Checked::Unknown);
    // While keys rotate, two may have one name.
    let set = secrets(&[(Some("a"), "of a"), (Some("a"), "of the next a")]);
    assert_eq!(check(&set, Some("a"), "of the next a"), fits("of the next a"));
}

#[test]
fn a_key_without_a_name_may_be_the_one_that_is_meant() {
    let set = secrets(&[(None, "first"), (None, "second")]);
    assert_eq!(check(&set, Some("a"), "second"), fits("second"));
    assert_eq!(check(&set, Some("a"), "third"), Checked::Differs);
    // Where others have names, one that is not here may have come since.
    let set = secrets(&[(None, "first"), (Some("b"), "of b")]);
    assert_eq!(check(&set, Some("a"), "first"), fits("first"));
    assert_eq!(check(&set, Some("a"), "of a"), Checked::Unknown);
    assert_eq!(check(&set, Some("a"), "of b"), Checked::Unknown, "the name counts");
    assert_eq!(check(&set, None, "of a"), Checked::Differs);
}

#[test]
fn not_every_key_is_tried_for_a_token_without_a_name() {
    let named = ["a", "b", "c", "d", "e"].map(|name| (Some(name), name));
    assert_eq!(check(&secrets(&named[..4]), None, "d"), fits("d"));
    assert_eq!(check(&secrets(&named), None, "d"), Checked::Unnamed);
    assert_eq!(check(&secrets(&named), Some("e"), "e"), fits("e"));
}
