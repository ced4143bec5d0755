//! Tokens that nobody may take: forged, confused, wrongly typed, too large, at the wrong time.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::access::{Issuers, JWT_BYTES_MAX, Refusal, Verdict};

use super::signer::{Signer, payload, set, with, without};
use super::{ISSUER, NOW, issuers, now};

/// One issuer with one key in a file, named in its set.
struct Known {
    issuers: Issuers,
    signer: Signer,
    _folder: TempDir,
}

impl Known {
    fn new(signer: Signer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, set(&[&signer])).unwrap();
        let algorithm = format!("{:?}", signer.algorithm);
        let text = format!("{ISSUER};aud=tidemill,relay;alg={algorithm};leeway=10;file={}", path.display());
        Self { issuers: issuers(&text), signer, _folder: folder }
    }

    fn each() -> [Self; 4] {
        Signer::each().map(Self::new)
    }

    fn outcome(&self, token: &str) -> Result<(), Refusal> {
        // Twice: what is refused is not remembered as right.
        let first = verdict(&self.issuers, token);
        assert_eq!(first, verdict(&self.issuers, token));
        first
    }

    /// Signs two texts rightly, and expects that what they say is refused.
    fn refuses_texts(&self, header: &str, payload: &str, reason: &str) {
        let refused = self.outcome(&self.signer.sign_texts(header, payload));
        let told = refused.as_ref().map_or_else(Refusal::label, |()| "taken");
        assert_eq!(told, reason, "{header} {payload}: {refused:?}");
    }

    fn refuses(&self, payload: &Value, reason: &str) {
        self.refuses_texts(&self.signer.header().to_string(), &payload.to_string(), reason);
    }
}

fn verdict(issuers: &Issuers, token: &str) -> Result<(), Refusal> {
    match issuers.verify(token, now()) {
        Verdict::Verified(_) => Ok(()),
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::UnknownKey(_) => Err(Refusal::Key),
    }
}

fn header_with(signer: &Signer, name: &str, value: Value) -> String {
    let mut header = signer.header();
    header[name] = value;
    header.to_string()
}

#[tokio::test]
async fn a_right_token_of_every_algorithm_is_taken() {
    for known in Known::each() {
        assert_eq!(known.outcome(&known.signer.sign(&payload())), Ok(()));
        let Verdict::Verified(claims) = known.issuers.verify(&known.signer.sign(&payload()), now()) else {
            panic!("the token is right")
        };
        assert_eq!(
            (&*claims.issuer, claims.subject.as_str(), claims.token_id.as_deref()),
            (ISSUER, "ada", Some("t1"))
        );
        assert_eq!(claims.expires_at.as_millis(), (NOW + 300 + 10) * 1_000);
        assert!(claims.grants.is_empty());
        for header in [
            json!({"alg": known.signer.header()["alg"]}),
            json!({"alg": known.signer.header()["alg"], "typ": "at+jwt"}),
        ] {
            let token = known.signer.sign_texts(&header.to_string(), &payload().to_string());
            assert_eq!(known.outcome(&token), Ok(()), "{header}");
        }
    }
}

#[tokio::test]
async fn what_nobody_has_signed_is_refused() {
    for known in Known::each() {
        let message = |header: &Value| {
            format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(header.to_string()),
                URL_SAFE_NO_PAD.encode(payload().to_string())
            )
        };
        for alg in [
            "none", "None", "NONE", "nOnE", "", "HS1", "HS256 ", "hs256", "RS512", "PS256", "ES384",
            "ES256K", "null",
        ] {
            let unsigned = message(&json!({"alg": alg, "kid": known.signer.name}));
            for signature in ["", "AA", "c2lnbmF0dXJl"] {
                assert_eq!(
                    known.outcome(&format!("{unsigned}.{signature}")),
                    Err(Refusal::Algorithm),
                    "{alg}"
                );
            }
        }
        let unsigned = message(&known.signer.header());
        for signature in ["", "AA", "c2lnbmF0dXJl"] {
            assert_eq!(known.outcome(&format!("{unsigned}.{signature}")), Err(Refusal::Signature));
        }
        // Written in another form of base 64.
        let right = known.signer.sign(&payload());
        let (message, signature) = right.rsplit_once('.').unwrap();
        for other in [format!("{signature}="), format!("{signature}\n"), STANDARD.encode([0xff; 64])] {
            assert_eq!(known.outcome(&format!("{message}.{other}")), Err(Refusal::Signature), "{other}");
        }
    }
}

#[tokio::test]
async fn what_somebody_else_has_signed_is_refused() {
    for (known, stranger) in Known::each().into_iter().zip(Signer::each()) {
        let stranger = stranger.named(&known.signer.name);
        // A secret follows from the name here.
        if known.signer.verifies == stranger.verifies {
            continue;
        }
        assert_eq!(known.outcome(&stranger.sign(&payload())), Err(Refusal::Signature));
        let header = json!({"alg": known.signer.header()["alg"]}).to_string();
        assert_eq!(
            known.outcome(&stranger.sign_texts(&header, &payload().to_string())),
            Err(Refusal::Signature)
        );
    }
}

/// The best known forgery: the public key, taken as the secret of HS256.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    for known in Known::each() {
        let texts =
            [known.signer.verifies.clone(), known.signer.verifies.trim().to_owned(), set(&[&known.signer])];
        let jwk = known.signer.jwk();
        let parts = ["n", "x", "k"].iter().filter_map(|name| jwk[*name].as_str().map(str::to_owned));
        for secret in texts.into_iter().chain(parts) {
            if known.signer.algorithm == jsonwebtoken::Algorithm::HS256 && secret == known.signer.verifies {
                continue;
            }
            for kid in [json!({"alg": "HS256", "kid": known.signer.name}), json!({"alg": "HS256"})] {
                let message = format!(
                    "{}.{}",
                    URL_SAFE_NO_PAD.encode(kid.to_string()),
                    URL_SAFE_NO_PAD.encode(payload().to_string())
                );
                let key = EncodingKey::from_secret(secret.as_bytes());
                let signature =
                    jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
                        .unwrap();
                let refused = known.outcome(&format!("{message}.{signature}"));
                assert!(matches!(refused, Err(Refusal::Algorithm | Refusal::Signature)), "{refused:?}");
            }
        }
    }
}

/// A key has one algorithm, also where its issuer has keys of several.
#[tokio::test]
async fn a_key_is_not_taken_for_one_of_another_algorithm() {
    let signers = [Signer::rsa("r"), Signer::curve("e"), Signer::edwards("d")];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(&signers.each_ref())).unwrap();
    let issuers = issuers(&format!("{ISSUER};aud=tidemill;file={}", path.display()));
    for (at, signer) in signers.iter().enumerate() {
        assert_eq!(verdict(&issuers, &signer.sign(&payload())), Ok(()));
        let other = &signers[(at + 1) % 3];
        let cases = [
            (header_with(signer, "kid", json!(other.name)), Refusal::Algorithm),
            (header_with(signer, "alg", other.header()["alg"].clone()), Refusal::Algorithm),
            (other.header().to_string(), Refusal::Signature),
            (header_with(signer, "alg", json!("HS256")), Refusal::Algorithm),
        ];
        for (header, refusal) in cases {
            let token = signer.sign_texts(&header, &payload().to_string());
            assert_eq!(verdict(&issuers, &token), Err(refusal), "{header}");
        }
    }
}

#[tokio::test]
async fn the_name_of_a_key_is_no_path_and_no_url() {
    for known in Known::each() {
        let names = [
            "",
            "x",
            "../keys.json",
            "/etc/passwd",
            "/dev/null",
            "../../../../../../dev/null",
            "file:///etc/passwd",
            "http://127.0.0.1/",
            "' OR 1=1 --",
            "h\0",
            "\u{0}",
            "*",
            "{name}",
            "R",
            "r ",
        ];
        for name in names {
            let token = known
                .signer
                .sign_texts(&header_with(&known.signer, "kid", json!(name)), &payload().to_string());
            assert_eq!(known.outcome(&token), Err(Refusal::Key), "{name}");
        }
        for wrong in [json!(null), json!(1), json!(["r"]), json!({"r": 1}), json!(true)] {
            known.refuses_texts(&header_with(&known.signer, "kid", wrong), &payload().to_string(), "form");
        }
    }
}

/// A header may bring its own keys, or say where they are: they are not looked at.
#[tokio::test]
async fn a_token_does_not_bring_its_own_key() {
    for known in Known::each() {
        let stranger = Signer::edwards("stranger");
        let more = [
            ("jwk", stranger.jwk()),
            ("jku", json!("http://127.0.0.1:1/jwks.json")),
            ("x5u", json!("http://127.0.0.1:1/certificate")),
            ("x5c", json!(["AA=="])),
        ];
        for (name, value) in more {
            // What is right otherwise is taken: nothing is made of it.
            let header = header_with(&known.signer, name, value.clone());
            assert_eq!(
                known.outcome(&known.signer.sign_texts(&header, &payload().to_string())),
                Ok(()),
                "{name}"
            );
            let refused = known
                .outcome(&stranger.sign_texts(&header_with(&stranger, name, value), &payload().to_string()));
            assert!(matches!(refused, Err(Refusal::Key | Refusal::Algorithm)), "{name}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn headers_of_other_forms_are_refused() {
    for known in Known::each() {
        let (alg, kid) = (known.signer.header()["alg"].clone(), &known.signer.name);
        let cases = [
            (header_with(&known.signer, "crit", json!(["b64"])), "form"),
            (header_with(&known.signer, "crit", json!([])), "form"),
            (header_with(&known.signer, "crit", json!(null)), "form"),
            (header_with(&known.signer, "typ", json!("logout+jwt")), "form"),
            (header_with(&known.signer, "typ", json!("dpop+jwt")), "form"),
            (header_with(&known.signer, "typ", json!(1)), "form"),
            (header_with(&known.signer, "alg", json!(1)), "form"),
            (header_with(&known.signer, "alg", json!([alg])), "form"),
            (header_with(&known.signer, "alg", json!(null)), "form"),
            (json!({"kid": kid}).to_string(), "form"),
            (format!(r#"{{"alg": {alg}, "alg": {alg}, "kid": "{kid}"}}"#), "form"),
            (format!(r#"{{"alg": "none", "alg": {alg}}}"#), "form"),
            (format!(r#"{{"alg": {alg}, "kid": "x", "kid": "{kid}"}}"#), "form"),
            (format!(r#"{{"alg": {alg}}} x"#), "form"),
            (format!("[{alg}]"), "form"),
            (alg.to_string(), "form"),
            (String::new(), "form"),
            ("{".to_owned(), "form"),
            ("\u{feff}{}".to_owned(), "form"),
        ];
        for (header, reason) in cases {
            known.refuses_texts(&header, &payload().to_string(), reason);
        }
    }
}

#[tokio::test]
async fn tokens_of_other_forms_are_refused() {
    for known in Known::each() {
        let right = known.signer.sign(&payload());
        let (message, signature) = right.rsplit_once('.').unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let forms = [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "....".to_owned(),
            header.to_owned(),
            message.to_owned(),
            format!("{right}."),
            format!(".{right}"),
            format!("{right}.{signature}"),
            // Five parts, as an encrypted token has.
            format!("{header}.{claims}.{signature}.{signature}.{signature}"),
            format!("{header}..{claims}.{signature}"),
            format!(" {right}"),
            format!("{header}=.{claims}.{signature}"),
            format!("{header}. {claims}.{signature}"),
            format!("{header}.{}.{signature}", claims.replace('.', "")) + "é.",
            json!({"protected": header, "payload": claims, "signature": signature}).to_string(),
            "\0.\0.\0".to_owned(),
        ];
        for token in forms {
            let refused = known.outcome(&token);
            assert!(matches!(refused, Err(Refusal::Form(_))), "{token}: {refused:?}");
        }
        for text in ["", "{", "[]", "null", "\"ada\"", "{} {}", "{\"iss\": NaN}", "\u{feff}{}"] {
            known.refuses_texts(&known.signer.header().to_string(), text, "form");
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    for known in Known::each() {
        let long = |bytes: usize| known.signer.sign(&with("more", json!("x".repeat(bytes))));
        let fits =
            (0..JWT_BYTES_MAX).step_by(256).map(long).take_while(|token| token.len() <= JWT_BYTES_MAX).last();
        assert_eq!(known.outcome(&fits.unwrap()), Ok(()));
        assert_eq!(known.outcome(&long(JWT_BYTES_MAX)), Err(Refusal::TooLong));
        assert_eq!(known.outcome(&"a.".repeat(JWT_BYTES_MAX)), Err(Refusal::TooLong));
        assert_eq!(known.outcome(&"x".repeat(64 * 1024 * 1024)), Err(Refusal::TooLong));
        for claim in ["aud", "exp", "sub", "tidemill", "scope"] {
            let deep = format!("{}{}", "[".repeat(1_500), "]".repeat(1_500));
            let payload = with(claim, json!("DEEP")).to_string().replace("\"DEEP\"", &deep);
            known.refuses_texts(&known.signer.header().to_string(), &payload, "claim");
        }
    }
}

#[tokio::test]
async fn times_are_whole_and_right() {
    for known in Known::each() {
        for claim in ["exp", "nbf", "iat"] {
            let wrong = [
                json!(NOW.to_string()),
                json!("9999"),
                json!("never"),
                json!(""),
                json!(null),
                json!(true),
                json!([NOW]),
                json!({"at": NOW}),
                json!(-1),
                json!(-1.5),
                json!(1e300),
                json!(u64::MAX),
                json!(i64::MAX),
                json!(f64::MAX),
                json!(f64::MIN),
                json!(253_402_300_800_u64),
            ];
            for value in wrong {
                known.refuses(&with(claim, value), "claim");
            }
            // Numbers as only a text can have them.
            for number in ["1e309", "-1e309", "99999999999999999999999999", "1E+400"] {
                let text = with(claim, json!("NUMBER")).to_string().replace("\"NUMBER\"", number);
                let refused =
                    known.outcome(&known.signer.sign_texts(&known.signer.header().to_string(), &text));
                assert!(
                    matches!(refused, Err(Refusal::Claim { .. } | Refusal::Form(_))),
                    "{text}: {refused:?}"
                );
            }
            for number in ["NaN", "Infinity", "-Infinity", "0x7f", "01", "+1"] {
                let text = with(claim, json!("NUMBER")).to_string().replace("\"NUMBER\"", number);
                known.refuses_texts(&known.signer.header().to_string(), &text, "form");
            }
        }
        // Ten seconds of leeway, and not one more.
        let cases = [
            (with("exp", json!(NOW - 9)), "taken"),
            (with("exp", json!(NOW - 10)), "expired"),
            (with("exp", json!(0)), "expired"),
            (with("exp", json!(1.5)), "expired"),
            (with("exp", json!(253_402_207_199_u64)), "taken"),
            (with("nbf", json!(NOW + 10)), "taken"),
            (with("nbf", json!(NOW + 11)), "not_yet"),
            (with("nbf", json!(9_999_999_999_u64)), "not_yet"),
            (with("nbf", json!(NOW - 1)), "taken"),
            (with("iat", json!(NOW + 100)), "taken"),
        ];
        for (payload, reason) in cases {
            known.refuses(&payload, reason);
        }
        let fraction = |claim: &str, value: String| {
            with(claim, json!("NUMBER")).to_string().replace("\"NUMBER\"", &value)
        };
        let header = known.signer.header().to_string();
        known.refuses_texts(&header, &fraction("exp", format!("{}.5", NOW - 10)), "taken");
        known.refuses_texts(&header, &fraction("exp", format!("{}.5", NOW - 11)), "expired");
        known.refuses_texts(&header, &fraction("nbf", format!("{}.5", NOW + 10)), "not_yet");
    }
}

#[tokio::test]
async fn what_must_be_said_is_said_once_and_as_it_must() {
    for known in Known::each() {
        for claim in ["exp", "aud", "iss", "sub"] {
            known.refuses(&without(claim), "claim");
            known.refuses(&with(claim, json!(null)), "claim");
        }
        for claim in ["nbf", "iat", "jti"] {
            known.refuses(&without(claim), "taken");
            known.refuses(&with(claim, json!(null)), "claim");
        }
        for claim in ["iss", "sub", "jti"] {
            for wrong in [json!(1), json!(true), json!(["ada"]), json!({"name": "ada"})] {
                known.refuses(&with(claim, wrong), "claim");
            }
        }
        for claim in ["sub", "jti"] {
            for wrong in
                [json!(""), json!("a\nb"), json!("a\u{0}"), json!("\u{1b}[2J"), json!("x".repeat(257))]
            {
                known.refuses(&with(claim, wrong), "claim");
            }
            known.refuses(&with(claim, json!("x".repeat(256))), "taken");
        }
        for wrong in
            [json!(1), json!({"tidemill": 1}), json!(["tidemill", 1]), json!([["tidemill"]]), json!(true)]
        {
            known.refuses(&with("aud", wrong), "claim");
        }
        for others in [
            json!("other"),
            json!([]),
            json!(["other"]),
            json!(""),
            json!("tidemill "),
            json!("Tidemill"),
            json!("tidemill,relay"),
        ] {
            known.refuses(&with("aud", others), "audience");
        }
        for ours in [json!("tidemill"), json!("relay"), json!(["other", "relay"])] {
            known.refuses(&with("aud", ours), "taken");
        }
        let near = [
            "",
            "https://issuer.example",
            "https://issuer.example//",
            "HTTPS://issuer.example/",
            "https://issuer.example/ ",
            "tidemill",
        ];
        for other in near {
            known.refuses(&with("iss", json!(other)), "issuer");
        }
        // Said twice: two readers could read two things.
        for (name, value) in payload().as_object().unwrap() {
            let twice = payload().to_string().replacen('{', &format!("{{\"{name}\": {value},"), 1);
            known.refuses_texts(&known.signer.header().to_string(), &twice, "form");
        }
        let escaped = payload().to_string().replacen('{', r#"{"\u0065xp": 9999999999,"#, 1);
        known.refuses_texts(&known.signer.header().to_string(), &escaped, "form");
    }
}
