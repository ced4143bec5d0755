//! Texts of issuers.

use secrecy::ExposeSecret as _;

use super::*;

fn parsed(text: &str) -> Issuer {
    Issuer::parse(text).unwrap()
}

fn refused(text: &str) -> String {
    Issuer::parse(text).unwrap_err().to_string()
}

#[test]
fn an_issuer_is_read_field_by_field() {
    let issuer = parsed("https://issuer.example/;aud=tidemill;jwks=https://issuer.example/jwks.json");
    assert_eq!(issuer.name, "https://issuer.example/");
    assert_eq!(issuer.audiences, ["tidemill"]);
    assert_eq!(issuer.algorithms, Algorithm::PUBLIC);
    assert_eq!(issuer.leeway, Duration::from_secs(10));
    assert!(
        matches!(&issuer.keys, KeySource::Url(url) if url.to_string() == "https://issuer.example/jwks.json")
    );

    let issuer = parsed("a;leeway=0;alg=ES256,EdDSA;file=/keys/a.pem;aud=one,two");
    assert_eq!(issuer.audiences, ["one", "two"]);
    assert_eq!(issuer.algorithms, [Algorithm::Es256, Algorithm::EdDsa]);
    assert_eq!(issuer.leeway, Duration::ZERO);
    assert!(matches!(&issuer.keys, KeySource::File(path) if path.to_str() == Some("/keys/a.pem")));

    // A secret may have the sign by which fields end their names.
    let issuer = parsed("a;aud=one;secret=a=b=");
    assert_eq!(issuer.algorithms, [Algorithm::Hs256]);
    assert!(matches!(&issuer.keys, KeySource::Text(text) if text.expose_secret() == "a=b="));
    let issuer = parsed(r#"a;aud=one;key={"kty":"OKP","crv":"Ed25519","x":"AA"}"#);
    assert_eq!(issuer.algorithms, Algorithm::PUBLIC);
    assert_eq!(parsed("a;aud=one;file=/keys/a;alg=HS256").algorithms, [Algorithm::Hs256]);
}

#[test]
fn several_stand_one_behind_the_other() {
    let issuers = Issuer::parse_all("\n a;aud=x;file=/a\tb;aud=x;file=/b\r\n\n c;aud=x;file=/c ").unwrap();
    assert_eq!(issuers.iter().map(|issuer| issuer.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(Issuer::parse_all("").unwrap().is_empty());
    assert!(Issuer::parse_all("a;aud=x;file=/a b").is_err());
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let cases = [
        ("", "does not begin with an issuer"),
        (";aud=x;file=/a", "does not begin with an issuer"),
        ("aud=x;file=/a", "does not begin with an issuer"),
        ("a", "has no `aud` for `a`; write `aud=tidemill`"),
        ("a;file=/a", "has no `aud`"),
        ("a;aud=,;file=/a", "has no `aud`"),
        ("a;aud=;file=/a", "has `aud` for `a`, which is empty"),
        ("a;aud=x", "has no keys for `a`; write `jwks="),
        ("a;aud=x;file=", "has `file` for `a`, which is empty"),
        ("a;aud=x;file=/a;file=/b", "is set twice"),
        ("a;aud=x;aud=y;file=/a", "is set twice"),
        ("a;aud=x;file=/a;jwks=https://b.example/", "beside another place of the keys"),
        ("a;aud=x;jwks=http://b.example/", "is not encrypted"),
        ("a;aud=x;jwks=https://169.254.169.254/", "never fetched from"),
        ("a;aud=x;file=/a;alg=none", "is none of HS256, RS256, ES256, EdDSA"),
        ("a;aud=x;file=/a;alg=HS512", "is none of HS256"),
        ("a;aud=x;file=/a;alg=rs256", "is none of HS256"),
        ("a;aud=x;file=/a;alg=HS256,RS256", "has HS256 beside others"),
        ("a;aud=x;jwks=https://b.example/;alg=HS256", "whose keys are behind a URL"),
        ("a;aud=x;secret=s;alg=RS256", "signs with public keys; leave out `alg`"),
        ("a;aud=x;file=/a;leeway=31", "is no number of seconds up to 30"),
        ("a;aud=x;file=/a;leeway=-1", "is no number of seconds up to 30"),
        ("a;aud=x;file=/a;leeway=1.5", "is no number of seconds up to 30"),
        ("a;aud=x;file=/a;nonsense=1", "has a field for `a` that is none of aud, alg,"),
        ("a;aud=x;file=/a;", "has a field for `a` that is none of aud, alg,"),
    ];
    for (text, told) in cases {
        let refused = refused(text);
        assert!(refused.contains(told), "{text}: {refused}");
    }
}

#[test]
fn secrets_are_not_repeated() {
    let shown = format!("{:?}", parsed("a;aud=one;secret=hush-hush"));
    assert!(!shown.contains("hush"), "{shown}");
    // The text behind it as well: a secret may have had the sign that ends a field.
    for text in [
        "a;aud=one;secret=hush;hush",
        "a;aud=one;secret=hush;secret=hush",
        "a;secret=hush;alg=hush",
        "a;aud=x;secret=hush;alg=RS256",
    ] {
        let refused = refused(text);
        assert!(!refused.contains("hush"), "{text}: {refused}");
    }
}
