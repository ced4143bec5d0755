//! What is remembered, and texts that are no tokens. More is tested over the ways on which keys come
//! (`tests/it/credentials`).

use std::time::Duration;

use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a-secret-that-is-thirty-two-bytes-long-and-a-bit-more";
const OTHER_SECRET: &str = "another-secret-that-is-thirty-two-bytes-long-and-more";

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

/// Returns issuers with secrets, which do not wait beyond a token's time.
fn issuers(secrets: &[(&str, &str)]) -> Issuers {
    let text = |(name, secret): &(&str, &str)| format!("{name};aud=tidemill;secret={secret};leeway=0 ");
    let issuers = Issuer::parse_all(&secrets.iter().map(text).collect::<String>()).unwrap();
    Issuers::start(issuers, &TaskTracker::new(), &CancellationToken::new()).unwrap()
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

fn payload(issuer: &str) -> Value {
    json!({"iss": issuer, "aud": "tidemill", "sub": "ada", "iat": 1_000, "exp": 1_900})
}

fn verified(issuers: &Issuers, token: &str, now: Timestamp) -> Result<Arc<Claims>, Refusal> {
    match issuers.verify(token, now) {
        Verdict::Verified(claims) => Ok(claims),
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::UnknownKey(_) => panic!("the key is known"),
    }
}

#[tokio::test]
async fn a_token_is_taken_until_it_expires_remembered_or_not() {
    let token = signed(&json!({"alg": "HS256"}), &payload("one"), SECRET);
    let expected = Claims {
        issuer: Arc::from("one"),
        subject: "ada".to_owned(),
        token_id: None,
        expires_at: at(1_900),
        grants: Vec::new(),
        key: KeyPrint::of(SECRET.as_bytes()),
    };
    let first = issuers(&[("one", SECRET)]);
    for now in [at(1_000), at(1_899)] {
        assert_eq!(*verified(&first, &token, now).unwrap(), expected);
    }
    for issuers in [first, issuers(&[("one", SECRET)])] {
        assert_eq!(verified(&issuers, &token, at(1_900)), Err(Refusal::Expired));
    }
}

#[tokio::test]
async fn nobody_signs_for_somebody_else() {
    let issuers = issuers(&[("one", SECRET), ("other", OTHER_SECRET)]);
    let judged = |header: Value, secret: &str, payload: &Value| {
        verified(&issuers, &signed(&header, payload, secret), at(1_000)).map(|claims| claims.issuer.clone())
    };
    assert_eq!(judged(json!({"alg": "HS256"}), OTHER_SECRET, &payload("one")), Err(Refusal::Signature));
    assert_eq!(judged(json!({"alg": "HS512"}), SECRET, &payload("one")), Err(Refusal::Algorithm));
    assert_eq!(
        judged(json!({"alg": "HS256"}), SECRET, &payload("tidemill")),
        Err(Refusal::Issuer("tidemill".to_owned()))
    );
    for claim in ["sub", "exp", "aud"] {
        let mut payload = payload("one");
        payload.as_object_mut().unwrap().remove(claim);
        let refused = judged(json!({"alg": "HS256"}), SECRET, &payload).unwrap_err();
        assert!(matches!(&refused, Refusal::Claim { claim: of, .. } if *of == claim), "{claim}: {refused}");
    }
    for (name, secret) in [("one", SECRET), ("other", OTHER_SECRET)] {
        assert_eq!(judged(json!({"alg": "HS256"}), secret, &payload(name)), Ok(Arc::from(name)));
    }
}

#[tokio::test]
async fn issuers_have_names_of_their_own() {
    let start = |texts: &str| {
        let issuers = Issuer::parse_all(texts).unwrap();
        Issuers::start(issuers, &TaskTracker::new(), &CancellationToken::new()).map(drop)
    };
    let one = |name: &str| format!("{name};aud=tidemill;secret=0123456789012345678901234567890123456789 ");
    assert!(start(&(one("a") + &one("b"))).is_ok());
    assert!(matches!(start(&(one("a") + &one("a"))), Err(IssuersError::Twice(name)) if name == "a"));
    let many: String = (0..17).map(|number| one(&number.to_string())).collect();
    assert!(matches!(start(&many), Err(IssuersError::TooMany)));
    let short = start("a;aud=tidemill;secret=short");
    assert!(matches!(short, Err(IssuersError::Keys { issuer, .. }) if issuer == "a"));
    let gone = start("a;aud=tidemill;file=/there/is/no/such/file");
    assert!(matches!(gone, Err(IssuersError::Keys { cause: KeysError::File { .. }, .. })));
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
        let issuers = issuers(&[("one", SECRET)]);
        let token = signed(&json!({"alg": "HS256"}), &payload("one"), SECRET);
        let character = at_character.index(token.len());
        let mut changed = token.clone();
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
