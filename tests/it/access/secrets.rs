//! Secrets of every kind: whatever is done with them, rightly and wrongly, no log, no refusal, no metric and no `Debug`
//! tells one.

use std::net::SocketAddr;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tidemill::access::{AccessOptions, FirstAdministrator, Issuer, NewToken, Provider, TokenKind, TokenText};
use tidemill::proto::access::{
    AccountCreate, AccountUpdate, DeviceTokenForm, LogInForm, LoggedIn, Refresh, Revoke, UserUpdate,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::credentials::lying::Stub;
use crate::support::http2::Http2;
use crate::support::process::Relay;
use crate::support::relay::{Answer, STUCK};
use crate::support::server::{Kind, Server};
use crate::support::tls::Papers;

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JWT_SECRET: &str = "jwt-secret-0123456789abcdef-jwt-secret";
const CLIENT_SECRET: &str = "client-secret-of-the-provider";
const ADMIN_PASSWORD: &str = "first horse battery";
const VALKEY_PASSWORD: &str = "valkey-password-3f9a";
/// In 2100.
const LATER: u64 = 4_102_444_800;

/// A relay that speaks TLS, what it was asked, and what it has told.
struct Asked {
    address: SocketAddr,
    papers: Papers,
    /// What nobody may find.
    secrets: Vec<(String, String)>,
    /// Answers that are about secrets and hold none.
    told: String,
}

impl Asked {
    fn keep(&mut self, what: &str, secret: &str) -> String {
        assert!(secret.len() > 7, "{what} is found in anything: {secret}");
        self.secrets.push((what.to_owned(), secret.to_owned()));
        secret.to_owned()
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let mut stream = self.papers.connect(self.address).await;
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("the relay reads");
        let mut all = Vec::new();
        // A stream, and what is upgraded, has no end: its head is there at once.
        let _ = timeout(STUCK, async {
            while stream.read_buf(&mut all).await.is_ok_and(|count| count > 0) {
                let is_open = all.starts_with(b"HTTP/1.1 101 ")
                    || all.windows(17).any(|part| part.eq_ignore_ascii_case(b"text/event-stream"));
                if is_open && all.windows(4).any(|four| four == b"\r\n\r\n") {
                    break;
                }
            }
        })
        .await;
        Answer::parse(&all)
    }

    /// Asks for something that must work, and returns the answer, which may give a secret away.
    async fn right(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = self.send(method, path, headers, body).await;
        assert!(answer.status < 400, "{method} {path}: {answer:?}");
        answer
    }

    /// Asks for something that is refused, and keeps what is told of it.
    async fn wrong(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let answer = self.send(method, path, headers, body).await;
        assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
        let told = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
        self.told += &told;
    }
}

fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer:?}")).to_owned()
}

/// The same token over HTTP/2, and on a WebSocket, where messages are published and read.
async fn over_other_transports(asked: &mut Asked, token: &str) {
    let bearer = format!("Bearer {token}");
    let http2 = Http2::connect(&asked.papers, asked.address, 65_535).await;
    let headers = [("content-type", "application/json"), ("authorization", &*bearer)];
    let payload = asked.keep("a payload over HTTP/2", "another-payload-of-somebody");
    let body = json!({ "topic": "t", "payload": payload }).to_string();
    let published = http2.send(Method::POST, "/api/v1/messages", &headers, body.as_bytes()).await;
    assert_eq!(published.status, 201, "{published:?}");
    let page = http2.send(Method::GET, "/api/v1/topics/t/messages", &headers, b"").await;
    assert!(page.text().contains(&payload), "{page:?}");

    let mut request = "ws://localhost/ws".into_client_request().expect("a request");
    let offered = format!("bearer, bearer.{token}").parse().expect("a header");
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let stream = asked.papers.connect(asked.address).await;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("it upgrades");
    let payload = asked.keep("a payload on a socket", "a-third-payload-of-somebody");
    for frame in [
        json!({ "type": "subscribe", "topics": ["t"], "offset": "earliest" }),
        json!({ "type": "publish", "topic": "t", "payload": payload }),
        json!({ "type": "publish", "topic": "t", "payload": payload, "more": payload }),
    ] {
        socket.send(Message::text(frame.to_string())).await.expect("the relay reads");
    }
    let (mut has_come, mut is_refused) = (false, false);
    while !(has_come && is_refused) {
        let frame = timeout(STUCK, socket.next()).await.expect("something comes").expect("it is open");
        let frame = frame.expect("a frame").into_text().expect("text");
        has_come |= frame.contains(&payload);
        is_refused |= frame.contains(r#""type":"error""#);
    }
}

async fn tokens_and_tickets(asked: &mut Asked) {
    let basic = STANDARD.encode(format!("admin:{ADMIN_PASSWORD}"));
    let basic = format!("Basic {}", asked.keep("a name and a password in base64", &basic));
    let admin = [JSON, ("authorization", &*basic)];
    let password = asked.keep("a user's password", "ann's horse staple");
    asked
        .right(
            "PUT",
            "/api/v1/users/ann",
            &admin,
            &json!({ "password": password, "roles": ["write"] }).to_string(),
        )
        .await;
    let wanted =
        json!({ "name": "n", "rules": ["allow publish,read,manage *", "allow admin *"] }).to_string();
    let made = asked.right("POST", "/api/v1/tokens", &admin, &wanted).await;
    let token = asked.keep("a token", &text(&made, "token"));
    let bearer = format!("Bearer {token}");
    let who = [JSON, ("authorization", &*bearer)];
    asked.right("POST", "/api/v1/messages", &who, r#"{"topic":"t","payload":"a-payload-of-somebody"}"#).await;
    asked.keep("a payload", "a-payload-of-somebody");
    over_other_transports(asked, &token).await;
    // Told with something else: where a secret is that has been told to somebody by mistake.
    asked.wrong("GET", &format!("/api/v1/topics?token={token}"), &who, "").await;
    asked.wrong("GET", &format!("/api/v1/topics/t?access_token={token}"), &who, "").await;
    asked
        .wrong(
            "POST",
            "/api/v1/tokens",
            &who,
            &json!({ "name": "n", "rules": ["x"], "secret": token }).to_string(),
        )
        .await;
    asked.wrong("POST", "/api/v1/tokens", &who, &json!({ "name": token }).to_string()).await;
    asked.wrong("GET", "/api/v1/topics", &[("authorization", &format!("Bearer {token}x"))], "").await;
    asked.wrong("GET", "/api/v1/topics", &[("authorization", &format!("Token {token}"))], "").await;
    let made_up = NewToken::make(TokenKind::Token);
    let made_up = asked.keep("a token that was made up", secrecy::ExposeSecret::expose_secret(&made_up.text));
    asked.wrong("GET", "/api/v1/topics", &[("authorization", &format!("Bearer {made_up}"))], "").await;
    asked
        .wrong(
            "GET",
            "/ws",
            &[("upgrade", "websocket"), ("sec-websocket-protocol", &format!("bearer, bearer.{made_up}"))],
            "",
        )
        .await;

    for _ in 0..2 {
        let made = asked.right("POST", "/api/v1/tickets", &who, r#"{"topics":["t"]}"#).await;
        let ticket = asked.keep("a ticket", &text(&made, "ticket"));
        let path = format!("/api/v1/topics/t/messages?after=latest&ticket={ticket}");
        asked.wrong("GET", &path, &[("authorization", &*bearer), ("accept", "text/event-stream")], "").await;
        asked.right("GET", &path, &[("accept", "text/event-stream")], "").await;
        asked.wrong("GET", &path, &[("accept", "text/event-stream")], "").await;
        asked.wrong("GET", &format!("/api/v1/topics/t?ticket={ticket}"), &[], "").await;
        asked.wrong("GET", &format!("/ws?ticket={ticket}"), &[], "").await;
    }
    let id = text(&made, "token_id");
    asked.right("DELETE", &format!("/api/v1/tokens/{id}"), &who, "").await;
    asked.wrong("GET", "/api/v1/topics", &who, "").await;
}

async fn log_ins_and_devices(asked: &mut Asked) {
    let password = "ann's+horse+staple";
    let wrong = asked.keep("a password that is wrong", "not-the-horse");
    asked.wrong("POST", "/auth/login", &[FORM], &format!("username=ann&password={wrong}")).await;
    // Somebody types it in the place of the name.
    asked.wrong("POST", "/auth/login", &[FORM], "username=ann's+horse+staple&password=x").await;
    asked.wrong("POST", "/auth/login", &[FORM], &format!("username=ann&pasword={password}")).await;
    asked
        .wrong("POST", "/auth/login", &[JSON], &json!({ "username": "ann", "password": wrong }).to_string())
        .await;
    asked.wrong("POST", &format!("/auth/login?password={wrong}"), &[FORM], "username=ann&password=x").await;
    let made =
        asked.right("POST", "/auth/login", &[FORM], &format!("username=ann&password={password}")).await;
    let access = asked.keep("an access token", &text(&made, "access_token"));
    let refresh = asked.keep("a refresh token", &text(&made, "refresh_token"));
    let made =
        asked.right("POST", "/auth/cookie", &[FORM], &format!("username=ann&password={password}")).await;
    let cookie = made.header("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned();
    asked.keep("the cookie of a log-in", cookie.split_once('=').expect("a value").1);
    asked.right("GET", "/auth/me", &[("cookie", &*cookie), ("sec-fetch-site", "same-origin")], "").await;
    asked
        .wrong("POST", "/auth/logout", &[("cookie", &*cookie), ("origin", "https://evil.example")], "")
        .await;
    asked.wrong("GET", "/auth/me", &[("cookie", &*format!("{cookie}x"))], "").await;
    asked.right("POST", "/auth/logout", &[("cookie", &*cookie), ("sec-fetch-site", "same-origin")], "").await;
    asked.wrong("GET", "/auth/me", &[("cookie", &*cookie), ("sec-fetch-site", "same-origin")], "").await;
    let bearer = format!("Bearer {access}");
    asked.right("GET", "/auth/me", &[("authorization", &bearer)], "").await;
    let body = json!({ "refresh_token": refresh }).to_string();
    let next = asked.right("POST", "/auth/token/refresh", &[JSON], &body).await;
    asked.keep("the next access token", &text(&next, "access_token"));
    asked.keep("the next refresh token", &text(&next, "refresh_token"));
    asked.wrong("POST", "/auth/token/refresh", &[JSON], &body).await;
    asked
        .wrong(
            "POST",
            "/auth/token/revoke",
            &[JSON],
            &json!({ "refresh_token": format!("{refresh}x") }).to_string(),
        )
        .await;
    asked.wrong("GET", "/auth/me", &[("authorization", &bearer)], "").await;

    let codes = asked.right("POST", "/auth/device/code", &[FORM], "").await;
    let device = asked.keep("the code of a device", &text(&codes, "device_code"));
    let code = asked.keep("the short code of a device", &text(&codes, "user_code"));
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    asked.wrong("POST", "/auth/device/token", &[FORM], &format!("{grant}&device_code={device}")).await;
    asked.wrong("POST", "/auth/device/token", &[FORM], &format!("{grant}&device_code={device}x")).await;
    asked.right("GET", &format!("/auth/device?user_code={code}"), &[], "").await;
    let decide = format!("user_code={code}&username=ann&decision=allow&password=");
    asked.send("POST", "/auth/device", &[FORM], &format!("{decide}{wrong}")).await;
    asked.right("POST", "/auth/device", &[FORM], &format!("{decide}{password}")).await;
}

fn sign(secret: &str) -> String {
    let claims =
        json!({ "iss": "own", "aud": "tidemill", "sub": "ada", "exp": LATER, "tidemill": { "read": ["*"] } });
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("it is signed")
}

async fn jwts_and_sign_ins(asked: &mut Asked, stub: &Stub) {
    for (what, secret) in
        [("a JWT", JWT_SECRET), ("a JWT of somebody else", "another-secret-0123456789abcdef-secret")]
    {
        let jwt = sign(secret);
        // What was signed is in its first two parts, and nobody can do anything with that.
        asked.keep(what, jwt.rsplit_once('.').expect("three parts").1);
        let bearer = format!("Bearer {jwt}");
        let path = "/api/v1/topics";
        if what == "a JWT" {
            asked.right("GET", path, &[("authorization", &bearer)], "").await;
        } else {
            asked.wrong("GET", path, &[("authorization", &bearer)], "").await;
        }
    }
    for is_good in [true, false] {
        let left = asked.right("GET", "/auth/oidc/one/login", &[], "").await;
        let location = url::Url::parse(left.header("location").expect("an address")).expect("a URL");
        let part = |name: &str| location.query_pairs().find(|(of, _)| of == name).expect(name).1.into_owned();
        let (state, nonce) = (asked.keep("a state", &part("state")), part("nonce"));
        let cookie =
            left.header("set-cookie").expect("a cookie").split(';').next().expect("a pair").to_owned();
        asked.keep("the mark of a browser", cookie.split_once('=').expect("a value").1);
        let mut claims = stub.right(if is_good { &nonce } else { "another" });
        // Nobody here has that name already.
        claims["sub"] = json!("cleo");
        let id_token = stub.signer.sign(&claims);
        asked.keep("an ID token", id_token.rsplit_once('.').expect("three parts").1);
        stub.gives(&id_token);
        let code = asked.keep("the code of a provider", &format!("authorization-code-{is_good}"));
        let path = format!("/auth/oidc/one/callback?code={code}&state={state}");
        let cookie = [("cookie", &*cookie)];
        asked.wrong("GET", &path, &[], "").await;
        if is_good {
            let tokens = asked.right("GET", &path, &cookie, "").await;
            asked.keep("an access token of a sign-in", &text(&tokens, "access_token"));
            asked.keep("a refresh token of a sign-in", &text(&tokens, "refresh_token"));
        }
        asked.wrong("GET", &path, &cookie, "").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_relay_tells_is_a_secret() {
    let Some(server) = Server::start(Kind::Valkey, &["--requirepass", VALKEY_PASSWORD]).await else { return };
    let (stub, papers) = (Stub::start().await, Papers::make());
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    papers.write(&certificate, &key);
    let key_text = std::fs::read_to_string(&key).expect("it was written");
    let port = server.port().to_string();
    let issuers = format!("own;aud=tidemill;alg=HS256;secret={JWT_SECRET}");
    let providers = format!("one;issuer={};client_id=relay;client_secret={CLIENT_SECRET}", stub.issuer);
    let relay = spawn_blocking(move || {
        let variables = [
            ("LOG_LEVEL", "trace"),
            ("TIDEMILL_ADMIN_PASSWORD", ADMIN_PASSWORD),
            ("TIDEMILL_JWT_ISSUERS", &issuers),
            ("TIDEMILL_OIDC_PROVIDERS", &providers),
            ("TIDEMILL_PUBLIC_URL", "https://localhost"),
            ("STORAGE_BACKEND", "valkey"),
            ("VALKEY_PORT", &port),
            ("VALKEY_PASSWORD", VALKEY_PASSWORD),
        ];
        let arguments =
            ["--tls-cert", certificate.to_str().expect("UTF-8"), "--tls-key", key.to_str().expect("UTF-8")];
        Relay::start(&variables, &arguments)
    });
    let relay = relay.await.expect("it starts");
    let mut asked = Asked { address: relay.address(), papers, secrets: Vec::new(), told: String::new() };
    for (what, secret) in [
        ("the password of the first administrator", ADMIN_PASSWORD),
        ("the secret of an issuer", JWT_SECRET),
        ("the secret of a provider's client", CLIENT_SECRET),
        ("the password of the server", VALKEY_PASSWORD),
    ] {
        asked.keep(what, secret);
    }
    for line in key_text.lines().filter(|line| !line.starts_with('-') && line.len() > 20) {
        asked.keep("the key of the certificate", line);
    }
    tokens_and_tickets(&mut asked).await;
    log_ins_and_devices(&mut asked).await;
    jwts_and_sign_ins(&mut asked, &stub).await;
    let basic = format!("Basic {}", STANDARD.encode(format!("admin:{ADMIN_PASSWORD}")));
    let headers = [JSON, ("authorization", &*basic)];
    let made =
        asked.right("POST", "/api/v1/tokens", &headers, r#"{"name":"m","rules":["allow admin *"]}"#).await;
    let admin = format!("Bearer {}", text(&made, "token"));
    for path in ["/metrics", "/health", "/api/v1/tokens", "/api/v1/users", "/api/v1/roles", "/auth/users"] {
        let answer = asked.right("GET", path, &[("authorization", &*admin)], "").await;
        asked.told += answer.text();
    }
    let (code, log) = spawn_blocking(move || relay.stop()).await.expect("it ends");
    assert_eq!(code, Some(0), "{log}");
    for line in ["token made", "logged in", "log-in refused", "refused"] {
        assert!(log.contains(line), "the log tells of `{line}`");
    }
    assert!(log.len() > 10_000 && asked.told.len() > 5_000, "{} and {}", log.len(), asked.told.len());
    for (what, secret) in &asked.secrets {
        // The last part is what makes a text of the relay a secret: its id is none.
        let last = secret.rsplit_once('_').map(|(_, last)| last);
        // A JWT may have the character anywhere.
        let telling = last.filter(|last| last.len() >= 16).unwrap_or(secret);
        for (place, text) in [("the log", &log), ("an answer", &asked.told)] {
            let line = text.lines().find(|line| line.contains(telling));
            assert!(line.is_none(), "{place} tells {what}: {line:?}");
        }
    }
    for hash in ["$argon2", "argon2id"] {
        assert!(!log.contains(hash) && !asked.told.contains(hash), "{hash}");
    }
}

#[test]
fn nothing_that_is_shown_for_debugging_is_a_secret() {
    const SECRET: &str = "0123456789abcdef-secret-0123456789";

    let secret = || SECRET.to_owned();
    let issuers = Issuer::parse_all(&format!("own;aud=t;alg=HS256;secret={SECRET}")).expect("an issuer");
    let provider = format!("one;issuer=https://id.example;client_id=relay;client_secret={SECRET}");
    let providers = Provider::parse_all(&provider).expect("a provider");
    let first = FirstAdministrator::parse("root", SECRET.into()).expect("a name and a password");
    let mut options = crate::support::relay::options();
    options.access = AccessOptions { issuers, providers, ..AccessOptions::open() };
    options.first_administrator = Some(first);
    let made = NewToken::make(TokenKind::Token);
    let made_text = secrecy::ExposeSecret::expose_secret(&made.text).to_owned();
    let shown = [
        format!("{options:?} {options:#?}"),
        format!("{made:?} {:?}", TokenText::parse(TokenKind::Token, &made_text)),
        format!("{:?}", TokenText::parse(TokenKind::Ticket, &made_text)),
        format!("{:?}", UserUpdate { password: Some(secret()), ..UserUpdate::default() }),
        format!(
            "{:?}",
            AccountCreate { username: "n".into(), password: secret(), email: None, permissions: vec![] }
        ),
        format!(
            "{:?}",
            AccountUpdate { password: Some(secret()), email: None, permissions: None, is_active: None }
        ),
        format!(
            "{:?}",
            LogInForm {
                username: "n".into(),
                password: secret(),
                grant_type: None,
                scope: None,
                client_id: None,
                client_secret: Some(secret()),
            }
        ),
        format!("{:?}", Refresh { refresh_token: secret() }),
        format!("{:?}", Revoke { refresh_token: secret(), revoke_chain: None }),
        format!("{:?}", DeviceTokenForm { grant_type: "g".into(), device_code: secret(), client_id: None }),
        format!(
            "{:?}",
            LoggedIn {
                access_token: secret(),
                token_type: "bearer".into(),
                expires_in: 1,
                refresh_token: secret(),
                refresh_token_secondary: Some(secret()),
            }
        ),
    ];
    let (_, made_secret) = made_text.rsplit_once('_').expect("a secret");
    for text in shown {
        assert!(!text.contains(SECRET) && !text.contains(made_secret), "{text}");
        // Nor as a list of bytes.
        assert!(!text.contains("48, 49, 50, 51"), "{text}");
    }
    let of_wire: Result<LoggedIn, _> =
        serde_json::from_value(json!({ "access_token": SECRET, "token_type": Value::Null }));
    assert!(!of_wire.expect_err("it is none").to_string().contains(SECRET));
}
