//! What ends what is open by a cookie, on every node.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::storage::Storage;
use tokio::time::timeout;

use super::{FORM, LOG_IN, SAME, log_in, me};
use crate::access::closed::{self, JSON, ROOT, send, user};
use crate::support::eventually;
use crate::support::raw::Stream;
use crate::support::relay::{TestRelay, memory};
use crate::support::ws::{Got, WsClient};

/// How long a node lets in who was sent away by another, and how long what is open goes on.
const GONE_WITHIN: Duration = Duration::from_secs(1);
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// What a browser has open.
struct Open {
    socket: WsClient,
    stream: Stream,
    /// By a ticket that was made with the cookie.
    by_ticket: Stream,
}

impl Open {
    async fn by(relay: &TestRelay, cookie: &str) -> Self {
        let own = format!("http://{}", relay.address);
        let headers = [("cookie", cookie), ("origin", &own)];
        let mut socket = WsClient::connect_with(relay.address, &headers).await.expect("it upgrades");
        socket.subscribe("t", "latest").await;
        let headers = format!("cookie: {cookie}\r\n");
        let stream =
            Stream::open(relay.address, "/api/v1/stream?topics=t", "text/event-stream", &headers).await;
        let made = [JSON, SAME, ("cookie", cookie)];
        let made = relay.send("POST", "/api/v1/tickets", &made, br#"{"topics":["t"]}"#).await.json();
        let path = format!("/api/v1/stream?topics=t&ticket={}", made["ticket"].as_str().expect("a text"));
        let by_ticket = Stream::open(relay.address, &path, "text/event-stream", "").await;
        Self { socket, stream: stream.expect("it opens"), by_ticket: by_ticket.expect("it opens") }
    }

    async fn ends(mut self) {
        let ended = async { (self.socket.got().await, self.socket.got().await) };
        assert_eq!(timeout(ENDED_WITHIN, ended).await.expect("in time"), (Got::End, Got::Close(4401)));
        for stream in [&mut self.stream, &mut self.by_ticket] {
            let told = timeout(ENDED_WITHIN, stream.rest()).await.expect("in time").expect("it ends well");
            assert!(String::from_utf8_lossy(&told).contains("revoked"), "{told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_browser_has_open_ends_with_its_log_in() {
    let running = TestRelay::start_with(memory(), |options| {
        closed::close(options);
        options.access.log_ins.cookie = Duration::from_mins(1);
        // A hundred log-ins take a while, in which nobody reads the socket.
        options.ws.ping_timeout = Duration::from_mins(2);
    })
    .await;
    let relay = &running;
    let put = async |body: Value| {
        let answer = send(relay, Some(ROOT), "PUT", "/api/v1/users/ann", &body).await;
        assert!(answer.status < 300, "{answer:?}");
    };
    for ends_by in ["log out", "password", "idle", "remove", "many"] {
        user(relay, "ann", &["read"]).await;
        put(json!({ "is_active": true })).await;
        let cookie = log_in(relay).await;
        let open = Open::by(relay, &cookie).await;
        match ends_by {
            "log out" => {
                let out = relay.send("POST", "/auth/logout", &[("cookie", &cookie), SAME], b"").await;
                assert_eq!(out.status, 204);
            }
            "password" => put(json!({ "password": "battery staple" })).await,
            "idle" => put(json!({ "is_active": false })).await,
            "remove" => {
                let gone = send(relay, Some(ROOT), "DELETE", "/api/v1/users/ann", &Value::Null).await;
                assert_eq!(gone.status, 204);
            }
            _ => {
                // What programs have is counted apart.
                for _ in 0..51 {
                    let form = relay.send("POST", "/auth/login", &[FORM], LOG_IN).await;
                    assert_eq!(form.status, 200);
                }
                assert_eq!(me(relay, &[("cookie", &cookie)]).await, 200);
                for _ in 0..50 {
                    log_in(relay).await;
                }
            }
        }
        open.ends().await;
        assert_eq!(me(relay, &[("cookie", &cookie)]).await, 401, "{ends_by}");
    }
    running.stop().await;

    let relay = TestRelay::start_with(memory(), |options| {
        closed::close(options);
        options.access.log_ins.cookie = Duration::from_secs(2);
    })
    .await;
    user(&relay, "ann", &["read"]).await;
    let cookie = log_in(&relay).await;
    let open = Open::by(&relay, &cookie).await;
    open.ends().await;
    assert_eq!(me(&relay, &[("cookie", &cookie)]).await, 401, "its time is over");
    relay.stop().await;
}

async fn nodes_agree(storage: Storage) {
    let relays = [closed::start(storage.clone()).await, closed::start(storage).await];
    let [one, other] = &relays;
    user(one, "ann", &["read"]).await;
    for _ in 0..3 {
        let cookie = log_in(one).await;
        assert_eq!(me(other, &[("cookie", &cookie)]).await, 200, "at once");
        let open = Open::by(other, &cookie).await;
        assert_eq!(one.send("POST", "/auth/logout", &[("cookie", &cookie), SAME], b"").await.status, 204);
        eventually(GONE_WITHIN, async || me(other, &[("cookie", &cookie)]).await == 401).await;
        open.ends().await;
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_memory_agree_on_cookies() {
    nodes_agree(memory()).await;
}

#[cfg(feature = "valkey")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_one_server_agree_on_cookies() {
    use crate::support::ground::Ground;
    use crate::support::server::Kind;

    let Some(ground) = Ground::on(Kind::Valkey).await else { return };
    nodes_agree(ground.storage.clone()).await;
}
