//! Who sent the last request over a connection is remembered: nobody may notice, neither who sends the next one with
//! something else, nor who has lost a right since.

use serde_json::{Value, json};
use tidemill::access::Issuer;
use tidemill::clock::Clock;
use tidemill::proto::Code;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use super::closed::{ROOT, close, send, start, token, user};
use super::issuers::{ISSUER, sign};
use crate::support::relay::{Answer, TestRelay, fast_path, memory, read_answer};

/// How long a right holds that was taken away.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Publishes to `t` over a connection, as who shows this.
async fn publish(stream: &mut TcpStream, who: Option<&str>) -> Answer {
    let who = who.map(|who| format!("authorization: {who}\r\n")).unwrap_or_default();
    let head = "POST /api/v1/topics/t/messages HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n";
    let request = format!("{head}{who}content-length: 1\r\n\r\n1");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    read_answer(stream).await
}

/// Publishes until it is refused, and returns how that is told.
async fn refused(stream: &mut TcpStream, who: &str) -> u16 {
    let began = Instant::now();
    loop {
        let answer = publish(stream, Some(who)).await;
        if answer.status != 201 {
            return answer.status;
        }
        assert!(began.elapsed() < GONE_WITHIN, "it may still publish");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_request_is_of_who_sends_it() {
    let relay = start(memory()).await;
    let (_, may) = token(&relay, ROOT, &["allow publish t"]).await;
    let (_, may_too) = token(&relay, ROOT, &["allow publish *"]).await;
    let (_, may_not) = token(&relay, ROOT, &["allow read t"]).await;
    let end = may.len() - 1;
    let mistyped = format!("{}{}", &may[..end], if may.ends_with('0') { '1' } else { '0' });
    for (next, expected) in [
        (Some(&*may), 201),
        (Some(&*may_too), 201),
        (Some(&*may_not), 403),
        (Some(&*mistyped), 401),
        (Some(&may[..end]), 401),
        (Some(""), 401),
        (None, 401),
        (Some(ROOT), 401),
    ] {
        let mut stream = relay.connect().await;
        for (who, expected) in [(Some(&*may), 201), (Some(&may), 201), (next, expected), (Some(&may), 201)] {
            assert_eq!(publish(&mut stream, who).await.status, expected, "{who:?} before {next:?}");
        }
    }
    let metrics = send(&relay, Some(&admin(&relay).await), "GET", "/metrics", &Value::Null).await;
    let count =
        metrics.text().lines().find_map(|line| line.strip_prefix("tidemill_http_fast_path_requests_total "));
    let count: u64 = count.map_or(0, |count| count.parse().expect("a number"));
    assert_eq!(count >= 16, fast_path(), "{count} requests took the fast path");
    relay.stop().await;
}

/// Returns who may see the metrics.
async fn admin(relay: &TestRelay) -> String {
    token(relay, ROOT, &["allow admin *"]).await.1
}

#[tokio::test]
async fn what_is_taken_away_is_gone_for_who_is_known_on_a_connection() {
    let relay = start(memory()).await;
    user(&relay, "ann", &["write"]).await;
    let form = "username=ann&password=correct+horse";
    let log_in = async || {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = relay.send("POST", "/auth/login", &headers, form.as_bytes()).await;
        answer.json()["access_token"].as_str().expect("an access token").to_owned()
    };
    let (id, by_token) = token(&relay, ROOT, &["allow publish t"]).await;
    let by_log_in = format!("Bearer {}", log_in().await);
    let of_role = format!("Bearer {}", log_in().await);
    for (who, (method, path, body), expected) in [
        (&by_token, ("DELETE", format!("/api/v1/tokens/{id}"), Value::Null), 401),
        (&of_role, ("PUT", "/api/v1/roles/write".to_owned(), json!({ "rules": ["allow read *"] })), 403),
        (&by_log_in, ("DELETE", "/api/v1/users/ann".to_owned(), Value::Null), 401),
    ] {
        if expected == 401 {
            let rules = json!({ "rules": ["allow publish,read *"] });
            send(&relay, Some(ROOT), "PUT", "/api/v1/roles/write", &rules).await;
        }
        let mut stream = relay.connect().await;
        for _ in 0..3 {
            assert_eq!(publish(&mut stream, Some(who)).await.status, 201);
        }
        let done = send(&relay, Some(ROOT), method, &path, &body).await;
        assert!(done.status < 300, "{done:?}");
        assert_eq!(refused(&mut stream, who).await, expected, "{method} {path}");
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_is_known_on_a_connection_is_so_until_it_expires() {
    let life = Duration::from_secs(2);
    let relay = TestRelay::start_with(memory(), |options| {
        close(options);
        options.access.issuers = Issuer::parse_all(&format!("{ISSUER};leeway=0")).expect("an issuer");
        options.access.log_ins.access = life;
    })
    .await;
    user(&relay, "ann", &["write"]).await;
    let began = Clock::system().now();
    let jwt = sign(|claims| {
        claims["exp"] = (began.saturating_add(life).as_millis() / 1_000).into();
        claims["tidemill"] = json!({ "publish": ["t"] });
    });
    let form = "username=ann&password=correct+horse";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let log_in = relay.send("POST", "/auth/login", &headers, form.as_bytes()).await.json();
    let body = json!({ "name": "t", "rules": ["allow publish t"], "expires_in": life.as_secs() });
    let token = send(&relay, Some(ROOT), "POST", "/api/v1/tokens", &body).await.json();
    let texts =
        [&jwt, log_in["access_token"].as_str().expect("a token"), token["token"].as_str().expect("a token")];
    let relay = &relay;
    let until_refused = async |text: &str| {
        let bearer = format!("Bearer {text}");
        let mut stream = relay.connect().await;
        let mut count = 0;
        let refused = loop {
            let answer = publish(&mut stream, Some(&bearer)).await;
            if answer.status != 201 {
                break answer.problem().code;
            }
            count += 1;
            let latest = began.saturating_add(life + Duration::from_secs(1));
            assert!(Clock::system().now() < latest, "{text:.3} is good for too long");
            sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(refused, Code::Unauthenticated);
        assert!(count > 0, "{text:.3} lets nobody in");
    };
    tokio::join!(until_refused(texts[0]), until_refused(texts[1]), until_refused(texts[2]));
}
