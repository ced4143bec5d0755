//! What a right token grants: texts of rules, from its claim `tidemill` or from its `scope`.

use serde_json::{Value, json};
use tidemill::access::{Issuers, Refusal, Verdict};

use super::signer::{Signer, with};
use super::{ISSUER, issuers, now};

fn known() -> (Issuers, Signer) {
    let signer = Signer::secret("granting");
    (issuers(&format!("{ISSUER};aud=tidemill;secret={}", signer.verifies)), signer)
}

fn granted(claims: &[(&str, Value)]) -> Result<Vec<String>, Refusal> {
    let (issuers, signer) = known();
    let mut payload = with("sub", json!("ada"));
    for (name, value) in claims {
        payload[*name] = value.clone();
    }
    match issuers.verify(&signer.sign(&payload), now()) {
        Verdict::Verified(claims) => Ok(claims.grants.clone()),
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::UnknownKey(_) => panic!("the key is known"),
    }
}

#[tokio::test]
async fn the_claim_grants_verbs_for_patterns() {
    let rules = granted(&[("tidemill", json!({"publish": ["orders.*"], "read": ["*", "keys/flows/*"]}))]);
    assert_eq!(rules.unwrap(), ["allow publish orders.*", "allow read *", "allow read keys/flows/*"]);
    let rules = granted(&[("tidemill", json!({"work": ["a"], "manage": ["{name}.*"], "admin": ["*"]}))]);
    assert_eq!(rules.unwrap(), ["allow admin *", "allow manage {name}.*", "allow work a"]);
    assert!(granted(&[("tidemill", json!({}))]).unwrap().is_empty());
    assert!(granted(&[("tidemill", json!({"read": []}))]).unwrap().is_empty());
    assert!(granted(&[]).unwrap().is_empty());
}

#[tokio::test]
async fn the_scope_grants_what_it_says_of_relays() {
    let expected = ["allow publish orders.*", "allow read *"];
    let text = "openid tidemill:publish:orders.* email  tidemill:read:* offline_access";
    assert_eq!(granted(&[("scope", json!(text))]).unwrap(), expected);
    let list = json!(["openid", "tidemill:publish:orders.*", "tidemill:read:*"]);
    assert_eq!(granted(&[("scope", list)]).unwrap(), expected);
    assert_eq!(
        granted(&[("scope", json!(["openid email", "tidemill:publish:orders.* tidemill:read:*"]))]).unwrap(),
        expected
    );
    for none in [json!(""), json!([]), json!("openid"), json!("Tidemill:read:*"), json!("xtidemill:read:*")] {
        assert!(granted(&[("scope", none.clone())]).unwrap().is_empty(), "{none}");
    }
    // The claim of our own name says all.
    let both = [("tidemill", json!({"read": ["a"]})), ("scope", json!("tidemill:admin:*"))];
    assert_eq!(granted(&both).unwrap(), ["allow read a"]);
    let both = [("tidemill", json!({})), ("scope", json!("tidemill:admin:*"))];
    assert!(granted(&both).unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_understood_refuses_the_token() {
    let claims = [
        json!(null),
        json!(1),
        json!("publish:orders"),
        json!(["publish"]),
        json!(true),
        json!({"publish": "orders.*"}),
        json!({"publish": [1]}),
        json!({"publish": [null]}),
        json!({"publish": {"a": 1}}),
        json!({"publish": null}),
        json!({"publish": [["a"]]}),
        json!({"read": ["a"], "publish": 1}),
        json!({"Publish": ["a"]}),
        json!({"write": ["a"]}),
        json!({"deny": ["a"]}),
        json!({"": ["a"]}),
        json!({"*": ["a"]}),
        json!({"publish,read": ["a"]}),
        json!({"write": []}),
        json!({"read a\nallow admin": ["*"]}),
        json!({"read": [""]}),
        json!({"read": ["a b"]}),
        json!({"read": ["a\nallow admin *"]}),
        json!({"read": ["a\u{a0}b"]}),
        json!({"read": ["a\u{0}"]}),
        json!({"read": [" a"]}),
        json!({"read": vec!["a"; 257]}),
    ];
    for claim in claims {
        let refused = granted(&[("tidemill", claim.clone())]);
        assert!(matches!(&refused, Err(Refusal::Claim { claim: "tidemill", .. })), "{claim}: {refused:?}");
    }
    assert_eq!(granted(&[("tidemill", json!({"read": vec!["a"; 256]}))]).unwrap().len(), 256);
    let scopes = [
        json!(null),
        json!(1),
        json!({"tidemill:read:*": true}),
        json!(["tidemill:read:*", 1]),
        json!("tidemill:"),
        json!("tidemill:read"),
        json!("tidemill:read:"),
        json!("tidemill:write:*"),
        json!("tidemill::a"),
        json!("tidemill:READ:*"),
        json!("openid tidemill:read:a\ttidemill:admin:*"),
        json!("tidemill:read:a\nb"),
        json!(vec!["tidemill:read:a"; 257]),
    ];
    for scope in scopes {
        let refused = granted(&[("scope", scope.clone())]);
        assert!(matches!(&refused, Err(Refusal::Claim { claim: "scope", .. })), "{scope}: {refused:?}");
    }
    // Named twice within the claim.
    let (issuers, signer) = known();
    let payload = with("tidemill", json!("CLAIM")).to_string();
    let payload = payload.replace("\"CLAIM\"", r#"{"read": ["a"], "read": ["b"]}"#);
    let token = signer.sign_texts(&signer.header().to_string(), &payload);
    assert!(matches!(
        issuers.verify(&token, now()),
        Verdict::Refused(Refusal::Claim { claim: "tidemill", .. })
    ));
}

#[tokio::test]
async fn the_reason_says_what_to_do() {
    let told = |claims: &[(&str, Value)]| granted(claims).unwrap_err().to_string();
    let verb = told(&[("tidemill", json!({"write": ["a"]}))]);
    assert!(
        verb.contains("`tidemill`") && verb.contains("`write`") && verb.contains("publish, read, work"),
        "{verb}"
    );
    let shape = told(&[("tidemill", json!("read"))]);
    assert!(shape.contains(r#"{"publish": ["orders.*"]}"#), "{shape}");
    let scope = told(&[("scope", json!("tidemill:read"))]);
    assert!(scope.contains("`tidemill:verb:pattern`"), "{scope}");
    let long = told(&[("tidemill", json!({"\u{1b}[2Jx".repeat(100): ["a"]}))]);
    assert!(long.len() < 1_000 && !long.contains('\u{1b}'), "{long}");
}
