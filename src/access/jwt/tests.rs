//! The relay's own tokens, what is remembered, and texts that are no tokens. Tokens of others are tested over
//! the ways on which their keys come (`tests/it/credentials`).

use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret that is thirty-two bytes long, and a bit more";
const OTHER_SECRET: &str = "another secret that is thirty-two bytes long, and more";

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

fn keys(secrets: &[&str]) -> OwnKeys {
    OwnKeys::new(&secrets.iter().map(|secret| SecretString::from(*secret)).collect::<Vec<_>>()).unwrap()
}

fn issuers(own: OwnKeys, others: &str) -> Issuers {
    let others = Issuer::parse_all(others).unwrap();
    Issuers::start(own, others, &TaskTracker::new(), &CancellationToken::new()).unwrap()
}

/// Signs anything, with HS256.
fn signed(header: &Value, payload: &Value, secret: &str) -> String {
    use base64::Engine as _;
    let part = |json: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(payload));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

const CLAIMS: OwnClaims<'static> = OwnClaims {
    subject: "ada",
    session: "s1",
    issued_at: Timestamp::from_millis(1_000_000),
    expires_at: Timestamp::from_millis(1_900_000),
};

fn verified(issuers: &Issuers, token: &str, now: Timestamp) -> Result<Arc<Claims>, Refusal> {
    match issuers.verify(token, now) {
        Verdict::Verified(claims) => Ok(claims),
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::UnknownKey(_) => panic!("the key is known"),
    }
}

#[tokio::test]
async fn the_relay_takes_its_own_tokens_until_they_expire() {
    let issuers = issuers(keys(&[SECRET]), "");
    let token = issuers.sign(&CLAIMS);
    let expected = Claims {
        issuer: Arc::from("tidemill"),
        subject: "ada".to_owned(),
        token_id: None,
        session: Some("s1".to_owned()),
        expires_at: at(1_900),
        grants: Vec::new(),
    };
    for now in [at(1_000), at(1_899)] {
        assert_eq!(*verified(&issuers, token.expose_secret(), now).unwrap(), expected);
    }
    // From the cache, and without it.
    assert_eq!(verified(&issuers, token.expose_secret(), at(1_900)), Err(Refusal::Expired));
    issuers.forget();
    assert_eq!(verified(&issuers, token.expose_secret(), at(1_900)), Err(Refusal::Expired));
}

#[tokio::test]
async fn own_keys_change_without_a_break() {
    let issuers = issuers(keys(&[SECRET]), "");
    let old = issuers.sign(&CLAIMS);
    issuers.replace_own(keys(&[OTHER_SECRET, SECRET]));
    let new = issuers.sign(&CLAIMS);
    assert_ne!(old.expose_secret(), new.expose_secret());
    for token in [&old, &new] {
        assert!(verified(&issuers, token.expose_secret(), at(1_000)).is_ok());
    }
    issuers.replace_own(keys(&[OTHER_SECRET]));
    assert_eq!(verified(&issuers, old.expose_secret(), at(1_000)), Err(Refusal::Key));
    assert!(verified(&issuers, new.expose_secret(), at(1_000)).is_ok());
}

#[tokio::test]
async fn nobody_else_signs_for_the_relay() {
    let issuers =
        issuers(keys(&[SECRET]), &format!("other;aud=tidemill;secret={}", OTHER_SECRET.replace(' ', "-")));
    let theirs = OTHER_SECRET.replace(' ', "-");
    let payload =
        json!({"iss": "tidemill", "aud": "tidemill", "sub": "ada", "sid": "s1", "iat": 1_000, "exp": 1_900});
    let refused = |header: Value, secret: &str, payload: &Value| {
        verified(&issuers, &signed(&header, payload, secret), at(1_000)).map(drop).unwrap_err()
    };
    assert_eq!(refused(json!({"alg": "HS256"}), &theirs, &payload), Refusal::Signature);
    assert_eq!(refused(json!({"alg": "HS256", "kid": "x"}), &theirs, &payload), Refusal::Key);
    assert_eq!(refused(json!({"alg": "HS512"}), SECRET, &payload), Refusal::Algorithm);
    // Signed by the relay, but without what it always says.
    for claim in ["sub", "sid", "exp", "aud"] {
        let mut payload = payload.clone();
        payload.as_object_mut().unwrap().remove(claim);
        let refused = refused(json!({"alg": "HS256"}), SECRET, &payload);
        assert!(matches!(&refused, Refusal::Claim { claim: of, .. } if *of == claim), "{claim}: {refused}");
    }
    assert!(verified(&issuers, &signed(&json!({"alg": "HS256"}), &payload, SECRET), at(1_000)).is_ok());
    // Another issuer's session and grants are its own: no token of it is one of the relay's.
    let payload = json!({"iss": "other", "aud": "tidemill", "sub": "ada", "sid": "s1", "exp": 1_900});
    let claims = verified(&issuers, &signed(&json!({"alg": "HS256"}), &payload, &theirs), at(1_000)).unwrap();
    assert_eq!((&*claims.issuer, &claims.session), ("other", &None));
}

#[test]
fn own_secrets_are_long_and_few() {
    let new = |secrets: &[&str]| {
        OwnKeys::new(&secrets.iter().map(|secret| SecretString::from(*secret)).collect::<Vec<_>>()).map(drop)
    };
    assert_eq!(new(&[]), Err(OwnKeyError::None));
    assert_eq!(new(&["short"]), Err(OwnKeyError::TooShort));
    assert_eq!(new(&[SECRET, "short"]), Err(OwnKeyError::TooShort));
    assert_eq!(new(&[SECRET; 9]), Err(OwnKeyError::TooMany));
    assert_eq!(new(&[SECRET; 8]), Ok(()));
    let shown = format!("{:?}", keys(&[SECRET]));
    assert!(!shown.contains("secret that is"), "{shown}");
    let random = OwnKeys::random_secret();
    assert_eq!(random.expose_secret().len(), 64);
    assert_ne!(random.expose_secret(), OwnKeys::random_secret().expose_secret());
    assert_eq!(new(&[random.expose_secret()]), Ok(()));
}

#[tokio::test]
async fn issuers_have_names_of_their_own() {
    let start = |texts: &str| {
        let issuers = Issuer::parse_all(texts).unwrap();
        Issuers::start(OwnKeys::random(), issuers, &TaskTracker::new(), &CancellationToken::new()).map(drop)
    };
    let one = |name: &str| format!("{name};aud=tidemill;secret=0123456789012345678901234567890123456789 ");
    assert!(start(&(one("a") + &one("b"))).is_ok());
    assert!(matches!(start(&(one("a") + &one("a"))), Err(IssuersError::Twice(name)) if name == "a"));
    assert!(matches!(start(&one("tidemill")), Err(IssuersError::Own)));
    let many: String = (0..17).map(|number| one(&number.to_string())).collect();
    assert!(matches!(start(&many), Err(IssuersError::TooMany)));
    let short = start("a;aud=tidemill;secret=short");
    assert!(matches!(short, Err(IssuersError::Keys { issuer, .. }) if issuer == "a"));
    let gone = start("a;aud=tidemill;file=/there/is/no/such/file");
    assert!(matches!(gone, Err(IssuersError::Keys { cause: KeysError::File(_), .. })));
}

proptest! {
    #[test]
    fn nothing_breaks_the_reader(token in ".{0,200}", parts in "([A-Za-z0-9_-]{0,60}\\.){2}[A-Za-z0-9_-]{0,60}") {
        for token in [token, parts] {
            prop_assert!(Parts::read(&token).is_err(), "{}", token);
        }
    }

    #[test]
    fn no_payload_breaks_the_checks(claims in proptest::collection::btree_map(
        "iss|sub|aud|exp|nbf|iat|jti|sid|tidemill|scope",
        any_json(),
        0..10,
    )) {
        let token = signed(&json!({"alg": "HS256"}), &json!(claims), SECRET);
        let parts = Parts::read(&token).unwrap();
        let expected = Expected { audiences: &["a".to_owned()], leeway: Duration::ZERO, now: at(1_000) };
        let _ = claims::issuer(&parts);
        let _ = claims::session(&parts);
        let _ = claims::check(&parts, &expected);
        for grant in claims::grants(&parts).unwrap_or_default() {
            prop_assert_eq!(grant.split_whitespace().count(), 3, "{}", grant);
            prop_assert!(grant.starts_with("allow "));
        }
    }

    #[test]
    fn one_character_that_changes_is_told(at_character in any::<proptest::sample::Index>(), to in "[ -~]") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _context = runtime.enter();
        let issuers = issuers(keys(&[SECRET]), "");
        let token = issuers.sign(&CLAIMS);
        let token = token.expose_secret();
        let character = at_character.index(token.len());
        let mut changed = token.to_owned();
        changed.replace_range(character..=character, &to);
        prop_assume!(changed != token);
        prop_assert!(!matches!(issuers.verify(&changed, at(1_000)), Verdict::Verified(_)), "{}", changed);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z:* .]{0,20}".prop_map(Value::from),
        "(tidemill:(publish|read|x):[a-z.* ]{0,5} ?){1,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("(publish|read|admin|[a-z]{0,4})", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
