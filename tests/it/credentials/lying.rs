//! A provider of OpenID Connect that lies, is mistaken, or is somebody else: nobody is signed in by it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidemill::access::{AccessOptions, Mode, Provider};
use tidemill::clock::Clock;
use tidemill::http::OwnUrl;
use tidemill::proto::Code;
use tidemill::storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::signer::{Signer, set};
use crate::support::relay::{Answer, TestRelay, memory};

/// What the provider says.
#[derive(Clone)]
struct Says {
    description: Value,
    keys: String,
    status: StatusCode,
    tokens: String,
}

/// The provider. Dropping it ends it.
pub(crate) struct Stub {
    pub(crate) issuer: String,
    says: Arc<Mutex<Says>>,
    pub(crate) signer: Signer,
    _over: DropGuard,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let signer = Signer::curve("e");
        let description = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"),
            "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
        });
        let keys = set(&[&signer]);
        let says = Says { description, keys, status: StatusCode::OK, tokens: String::new() };
        let says = Arc::new(Mutex::new(says));
        let router =
            Router::new()
                .route(
                    "/.well-known/openid-configuration",
                    get(|State(says): State<Arc<Mutex<Says>>>| async move {
                        Json(says.lock().description.clone())
                    }),
                )
                .route(
                    "/keys",
                    get(|State(says): State<Arc<Mutex<Says>>>| async move { says.lock().keys.clone() }),
                )
                .route(
                    "/token",
                    post(|State(says): State<Arc<Mutex<Says>>>| async move {
                        let says = says.lock().clone();
                        (says.status, [("content-type", "application/json")], says.tokens)
                    }),
                )
                .with_state(says.clone());
        let over = CancellationToken::new();
        let serving = async move { axum::serve(listener, router).await };
        tokio_util::task::TaskTracker::new().spawn(over.clone().run_until_cancelled_owned(serving));
        Self { issuer, says, signer, _over: over.drop_guard() }
    }

    /// Returns a right ID token of a sign-in.
    pub(crate) fn right(&self, nonce: &str) -> Value {
        let seconds = Clock::system().now().as_millis() / 1_000;
        json!({
            "iss": self.issuer, "aud": "relay", "sub": "ann", "iat": seconds, "exp": seconds + 300, "nonce": nonce,
        })
    }

    pub(crate) fn gives(&self, id_token: &str) {
        let tokens = json!({ "access_token": "x", "token_type": "Bearer", "id_token": id_token });
        self.says.lock().tokens = tokens.to_string();
    }
}

async fn relay(stub: &Stub) -> TestRelay {
    relay_on(stub, memory()).await
}

async fn relay_on(stub: &Stub, storage: Storage) -> TestRelay {
    let provider = format!("one;issuer={};client_id=relay;client_secret=s", stub.issuer);
    TestRelay::start_with(storage, |options| {
        let providers = Provider::parse_all(&provider).unwrap();
        options.access = AccessOptions { mode: Mode::Closed, providers, ..AccessOptions::open() };
        options.http.own_url = OwnUrl::Named("https://relay.example".to_owned());
    })
    .await
}

/// A browser that is with the provider.
struct Away {
    state: String,
    nonce: String,
    cookie: String,
}

impl Away {
    async fn new(relay: &TestRelay, stub: &Stub) -> Self {
        let answer = relay.get("/auth/oidc/one/login").await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let location = url::Url::parse(answer.header("location").unwrap()).unwrap();
        assert!(location.as_str().starts_with(&format!("{}/auth?", stub.issuer)), "{location}");
        let asked = |name: &str| {
            let mut pairs = location.query_pairs();
            pairs.find(|(of, _)| of == name).unwrap_or_else(|| panic!("{name}: {location}")).1.into_owned()
        };
        assert_eq!(asked("redirect_uri"), "https://relay.example/auth/oidc/one/callback");
        assert_eq!((asked("response_type"), asked("client_id")), ("code".to_owned(), "relay".to_owned()));
        assert_eq!(
            (asked("code_challenge_method"), asked("scope")),
            ("S256".to_owned(), "openid email profile".to_owned())
        );
        assert_eq!(asked("code_challenge").len(), 43);
        let cookie = answer.header("set-cookie").unwrap();
        for part in ["; HttpOnly", "; SameSite=Lax", "; Secure", "; Path=/auth;", "; Max-Age=600;"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let (cookie, _) = cookie.split_once(';').unwrap();
        Self { state: asked("state"), nonce: asked("nonce"), cookie: cookie.to_owned() }
    }

    async fn comes_back(&self, relay: &TestRelay) -> Answer {
        let target = format!("/auth/oidc/one/callback?code=c&state={}&iss=any", self.state);
        relay.send("GET", &target, &[("cookie", &self.cookie)], b"").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_id_token_must_say_it_says() {
    let stub = Stub::start().await;
    let relay = relay(&stub).await;
    let away = Away::new(&relay, &stub).await;
    stub.gives(&stub.signer.sign(&stub.right(&away.nonce)));
    let right = away.comes_back(&relay).await;
    assert_eq!(right.status, 200, "{right:?}");
    let other = Signer::curve("e");
    for (claim, value) in [
        ("iss", json!("https://issuer.example/")),
        ("aud", json!("tidemill")),
        ("aud", Value::Null),
        ("exp", json!(1)),
        ("exp", Value::Null),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("nonce", json!(1)),
        ("azp", json!("another")),
    ] {
        let away = Away::new(&relay, &stub).await;
        let mut payload = stub.right(&away.nonce);
        payload[claim] = value.clone();
        stub.gives(&stub.signer.sign(&payload));
        let problem = away.comes_back(&relay).await.problem();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidField, Some("code")),
            "{claim} {value}"
        );
    }
    let forged: [fn(&Stub, &Signer, &Value) -> String; 4] = [
        |_, other, payload| other.sign(payload),
        |stub, _, payload| stub.signer.sign_texts(r#"{"alg":"none"}"#, &payload.to_string()),
        |stub, _, payload| stub.signer.sign_texts(r#"{"alg":"HS256","kid":"e"}"#, &payload.to_string()),
        |_, _, _| "not a token".to_owned(),
    ];
    for (at, forge) in forged.into_iter().enumerate() {
        let away = Away::new(&relay, &stub).await;
        stub.gives(&forge(&stub, &other, &stub.right(&away.nonce)));
        let problem = away.comes_back(&relay).await.problem();
        assert_eq!(problem.field.as_deref(), Some("code"), "{at}: {problem:?}");
    }
    relay.stop().await;
}

/// What a provider sends back is shown by several at once, on two nodes: by whoever has looked over a shoulder, and by
/// a browser that sends its request again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_sends_back_is_good_once() {
    let (stub, storage) = (Stub::start().await, memory());
    let relays = [relay_on(&stub, storage.clone()).await, relay_on(&stub, storage).await];
    for _ in 0..4 {
        let away = Away::new(&relays[0], &stub).await;
        stub.gives(&stub.signer.sign(&stub.right(&away.nonce)));
        let other = Away { state: away.state.clone(), nonce: String::new(), cookie: "x=y".to_owned() };
        // Without the mark of the browser that began it, it is used up for nobody.
        assert_eq!(other.comes_back(&relays[0]).await.status, 400);
        let back = (0..8).map(|at| away.comes_back(&relays[at % 2]));
        let answers = futures_util::future::join_all(back).await;
        let good = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(good, 1, "{answers:?}");
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 400)), "{answers:?}");
        for relay in &relays {
            assert_eq!(away.comes_back(relay).await.status, 400);
        }
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_none_signs_nobody_in() {
    let stub = Stub::start().await;
    let relay = relay(&stub).await;
    let huge = format!("{{\"access_token\":\"{}\"}}", "x".repeat(2 << 20));
    for (status, tokens, code) in [
        (400, r#"{"error":"invalid_grant"}"#, Code::InvalidField),
        (200, r#"{"access_token":"x","token_type":"Bearer"}"#, Code::InvalidField),
        (200, "", Code::ProviderUnavailable),
        (200, "<html>", Code::ProviderUnavailable),
        (500, "down", Code::ProviderUnavailable),
        (302, "elsewhere", Code::ProviderUnavailable),
        (200, &*huge, Code::ProviderUnavailable),
    ] {
        let away = Away::new(&relay, &stub).await;
        {
            let mut says = stub.says.lock();
            (says.status, says.tokens) = (StatusCode::from_u16(status).unwrap(), tokens.to_owned());
        }
        let answer = away.comes_back(&relay).await;
        assert_eq!(answer.problem().code, code, "{status} {tokens:.40}");
        assert!(answer.header("location").is_none());
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_describes_somebody_else_or_leads_elsewhere_is_not_asked() {
    for (field, value) in [
        ("issuer", "https://issuer.example/"),
        ("token_endpoint", "http://169.254.169.254/latest"),
        ("token_endpoint", "http://id.example/token"),
        ("jwks_uri", "file:///etc/passwd"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("jwks_uri", ""),
    ] {
        let stub = Stub::start().await;
        stub.says.lock().description[field] = json!(value);
        let relay = relay(&stub).await;
        let answer = relay.get("/auth/oidc/one/login").await;
        assert_eq!(
            (answer.status, answer.problem().code),
            (502, Code::ProviderUnavailable),
            "{field} {value}"
        );
        relay.stop().await;
    }
}
