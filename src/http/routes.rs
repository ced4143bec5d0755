//! Routes by concern: each concern says which paths it has, what a caller needs the right to, and
//! whether it is switched on. What is served, and what the `OpenAPI` document says, are made of that.
//!
//! It must not know what any path does. Rights are checked by the gate; what stands here is told to
//! readers of the document, and a test holds the two together.

use std::collections::HashMap;

use axum::Router;
use axum::routing::MethodRouter;
use utoipa::openapi::OpenApi;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::Http;
use crate::access::Verb;

/// The field of an operation in the document that names the right it needs.
pub(super) const PERMISSION: &str = "x-permission";

/// What a caller needs for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: whoever reaches the port may have it.
    Nothing,
    /// To say who calls; what is answered is about that caller.
    Caller,
    /// The right to this, for the topic or the relay that the request is about.
    Right(Verb),
}

impl Needs {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Caller => "caller",
            Self::Right(verb) => verb.as_str(),
        }
    }
}

/// The routes of one concern.
pub(super) struct Concern {
    is_on: bool,
    described: OpenApiRouter<Http>,
    pages: Router<Http>,
}

impl Concern {
    /// Returns a concern without routes, which every relay serves.
    pub(super) fn new() -> Self {
        Self::switched(true)
    }

    /// Returns a concern without routes that a setting switches on or off.
    pub(super) fn switched(is_on: bool) -> Self {
        Self { is_on, described: OpenApiRouter::new(), pages: Router::new() }
    }

    /// Adds what `routes!` makes of handlers.
    pub(super) fn route(
        mut self,
        needs: Needs,
        (schemas, mut paths, handlers): UtoipaMethodRouter<Http>,
    ) -> Self {
        for item in paths.paths.values_mut() {
            for operation in operations(item) {
                let permission = Extensions::from_iter([(PERMISSION, needs.as_str())]);
                operation.extensions.get_or_insert_default().merge(permission);
            }
        }
        self.described = self.described.routes((schemas, paths, handlers));
        self
    }

    /// Adds handlers of a path that the document leaves out.
    pub(super) fn undescribed(mut self, path: &str, handlers: MethodRouter<Http>) -> Self {
        self.described = self.described.route(path, handlers);
        self
    }

    /// Adds pages for people, which are no part of the API.
    pub(super) fn pages(mut self, pages: Router<Http>) -> Self {
        self.pages = self.pages.merge(pages);
        self
    }
}

/// Returns the handlers of all concerns that are switched on, and the document of their paths.
pub(super) fn assemble(
    document: OpenApi,
    concerns: impl IntoIterator<Item = Concern>,
) -> (Router<Http>, OpenApi) {
    let mut described = OpenApiRouter::with_openapi(document);
    let mut pages = Router::new();
    for concern in concerns.into_iter().filter(|concern| concern.is_on) {
        described = described.merge(concern.described);
        pages = pages.merge(concern.pages);
    }
    let (handlers, document) = described.split_for_parts();
    (handlers.merge(pages), document)
}

/// Returns the methods of each path in the document, as a sentence lists them.
pub(super) fn methods(document: &OpenApi) -> HashMap<String, String> {
    let methods = |item: &PathItem| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let named = [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)];
        let there = named.into_iter().filter(|(_, operation)| operation.is_some());
        there.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
    };
    document.paths.paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, query, .. } = item;
    [get, put, post, delete, options, head, patch, trace, query].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use serde_json::Value;
    use tidemill_proto::{NodeId, Timestamp};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::access::{Access, Audit, Caller, Rules, Sessions, TrustedHosts, WebRules, Who};
    use crate::clock::Clock;
    use crate::features::{Feature, Features};
    use crate::http::HttpOptions;
    use crate::limits::{Entrance, Kept, Limits, TrustedProxies};
    use crate::metrics::Metrics;
    use crate::relay::{Durabilities, PresenceOptions, Relay, RelayOptions, TakesAway, test_policy};
    use crate::storage::test_storage;

    /// A request for each operation that would do something: its method and pattern, the query and body.
    const REQUESTS: &[(&str, &str, &str, &str)] = &[
        ("post", "/api/v1/messages", "", r#"{"topic":"t","payload":1}"#),
        ("post", "/api/v1/messages/bulk", "", r#"{"messages":[{"topic":"t","payload":1}]}"#),
        ("post", "/api/v1/topics/{topic}/messages", "", "1"),
        ("get", "/api/v1/topics/{topic}/messages", "", ""),
        ("get", "/api/v1/topics/{topic}/messages/{message_id}", "", ""),
        ("delete", "/api/v1/topics/{topic}/messages/{message_id}", "", ""),
        ("get", "/api/v1/topics/{topic}/messages/{message_id}/payload", "", ""),
        ("get", "/api/v1/stream", "?topics=t", ""),
        ("post", "/messages/poll", "", r#"{"topics":["t"],"timeout":1}"#),
        ("get", "/messages/poll/stats", "", ""),
        ("post", "/api/v1/topics", "", r#"{"topic_name":"t"}"#),
        ("get", "/api/v1/topics", "", ""),
        ("get", "/api/v1/topics/stats", "", ""),
        ("get", "/api/v1/topics/{topic}", "", ""),
        ("put", "/api/v1/topics/{topic}", "", "{}"),
        ("patch", "/api/v1/topics/{topic}", "", "{}"),
        ("delete", "/api/v1/topics/{topic}", "", ""),
        ("post", "/api/v1/topics/{topic}/trim", "", r#"{"keep":0}"#),
        ("get", "/api/v1/topics/{topic}/groups", "", ""),
        ("get", "/api/v1/topics/{topic}/groups/{group}", "", ""),
        ("put", "/api/v1/topics/{topic}/groups/{group}", "", "{}"),
        ("patch", "/api/v1/topics/{topic}/groups/{group}", "", "{}"),
        ("delete", "/api/v1/topics/{topic}/groups/{group}", "", ""),
        ("post", "/api/v1/topics/{topic}/groups/{group}/seek", "", r#"{"to":"latest"}"#),
        ("post", "/api/v1/topics/{topic}/groups/{group}/pause", "", ""),
        ("post", "/api/v1/topics/{topic}/groups/{group}/resume", "", ""),
        ("post", "/api/v1/topics/{topic}/groups/{group}/redrive", "", r#"{"all":true}"#),
        ("post", "/api/v1/topics/{topic}/groups/{group}/purge", "", r#"{"all":true}"#),
        ("get", "/api/v1/topics/{topic}/groups/{group}/messages/{message_id}", "", ""),
        ("post", "/api/v1/topics/{topic}/groups/{group}/claim", "", r#"{"consumer":"c"}"#),
        ("post", "/api/v1/work/claim", "", r#"{"consumer":"c","from":[{"topic":"t","group":"g"}]}"#),
        ("post", "/api/v1/work/ack", "", RECEIPTS),
        ("post", "/api/v1/work/nack", "", RECEIPTS),
        ("post", "/api/v1/work/extend", "", RECEIPTS),
        ("post", "/api/v1/work/reject", "", RECEIPTS),
        ("post", "/api/v1/work/release", "", RECEIPTS),
        ("post", "/api/v1/limits/{name}/take", "", POLICIES),
        ("post", "/api/v1/limits/{name}/peek", "", POLICIES),
        ("post", "/api/v1/limits/{name}/refund", "", POLICIES),
        (
            "post",
            "/api/v1/limits/take",
            "",
            r#"{"takes":[{"name":"x","policies":[{"limit":1,"per":"1s"}]}]}"#,
        ),
        ("post", "/api/v1/series/{series}", "", r#"{"value":1}"#),
        ("get", "/api/v1/series", "", ""),
        ("get", "/api/v1/series/{series}", "?last=5m", ""),
        ("delete", "/api/v1/series/{series}", "", ""),
        ("post", "/api/v1/series", "", r#"{"points":[{"name":"x","value":1}]}"#),
        ("get", "/api/v1/topics/{topic}/scheduled", "", ""),
        ("delete", "/api/v1/topics/{topic}/scheduled/{schedule_id}", "", ""),
        ("post", "/api/v1/topics/{topic}/scheduled/{schedule_id}/now", "", ""),
        ("get", "/api/v1/topics/{topic}/recurring", "", ""),
        ("get", "/api/v1/topics/{topic}/recurring/{name}", "", ""),
        ("put", "/api/v1/topics/{topic}/recurring/{name}", "", r#"{"cron":"* * * * *","payload":1}"#),
        ("delete", "/api/v1/topics/{topic}/recurring/{name}", "", ""),
        ("post", "/api/v1/topics/{topic}/close", "", ""),
        ("post", "/api/v1/topics/{topic}/cancel", "", r#"{"reason":"r"}"#),
        ("get", "/api/v1/keys/{bucket}", "", ""),
        ("post", "/api/v1/keys/{bucket}", "", r#"{"changes":[{"op":"delete","key":"k"}]}"#),
        ("get", "/api/v1/keys/{bucket}/{key}", "", ""),
        ("put", "/api/v1/keys/{bucket}/{key}", "", "1"),
        ("delete", "/api/v1/keys/{bucket}/{key}", "", ""),
        ("post", "/api/v1/keys/{bucket}/{key}/increment", "", ""),
        ("post", "/api/v1/keys/{bucket}/{key}/touch", "", ""),
        ("get", "/api/v1/buckets", "", ""),
        ("get", "/api/v1/buckets/{bucket}", "", ""),
        ("put", "/api/v1/buckets/{bucket}", "", "{}"),
        ("delete", "/api/v1/buckets/{bucket}", "", ""),
        ("post", "/api/v1/buckets/{bucket}/revoke", "", r#"{"owner":"ann"}"#),
        ("get", "/api/v1/groups", "", ""),
        ("get", "/api/v1/presence", "", ""),
        ("get", "/api/v1/presence/{room}", "", ""),
        ("put", "/api/v1/presence/{room}/{member}", "", ""),
        ("delete", "/api/v1/presence/{room}/{member}", "", ""),
        ("get", "/api/v1/locks", "", ""),
        ("post", "/api/v1/locks/{lock}", "", r#"{"holder":"h","ttl":1}"#),
        ("get", "/api/v1/locks/{lock}", "", ""),
        ("delete", "/api/v1/locks/{lock}", "", ""),
        ("post", "/api/v1/locks/{lock}/renew", "", r#"{"token":"00000000000000000000000000000000","ttl":1}"#),
        ("post", "/api/v1/locks/{lock}/release", "", r#"{"token":"00000000000000000000000000000000"}"#),
        (
            "post",
            "/api/v1/locks/renew",
            "",
            r#"{"renewals":[{"name":"n","token":"00000000000000000000000000000000","ttl":1}]}"#,
        ),
        ("post", "/api/v1/leases", "", r#"{"ttl":"30s"}"#),
        ("get", "/api/v1/leases/{lease}", "", ""),
        ("delete", "/api/v1/leases/{lease}", "", ""),
        ("post", "/api/v1/leases/{lease}/renew", "", ""),
        ("post", "/api/v1/tokens", "", r#"{"name":"n","rules":[]}"#),
        ("post", "/api/v1/tickets", "", r#"{"topics":["t*"]}"#),
        ("get", "/api/v1/tokens", "", ""),
        ("delete", "/api/v1/tokens/{token_id}", "", ""),
        ("get", "/api/v1/users", "", ""),
        ("get", "/api/v1/users/{name}", "", ""),
        ("put", "/api/v1/users/{name}", "", "{}"),
        ("delete", "/api/v1/users/{name}", "", ""),
        ("get", "/api/v1/roles", "", ""),
        ("put", "/api/v1/roles/{role}", "", r#"{"rules":[]}"#),
        ("delete", "/api/v1/roles/{role}", "", ""),
        ("post", "/api/v1/access/explain", "", r#"{"verb":"read","topic":"t"}"#),
        ("post", "/auth/login", "", "username=n&password=p"),
        ("post", "/auth/cookie", "", r#"{"username":"n","password":"p"}"#),
        ("post", "/auth/device/code", "", "client_hint=h"),
        (
            "post",
            "/auth/device/token",
            "",
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=c",
        ),
        ("get", "/auth/oidc/providers", "", ""),
        ("post", "/auth/token/refresh", "", r#"{"refresh_token":"t"}"#),
        ("post", "/auth/token/revoke", "", r#"{"refresh_token":"t"}"#),
        ("post", "/auth/logout", "", ""),
        ("get", "/auth/me", "", ""),
        ("post", "/auth/register", "", r#"{"username":"n","password":"12345678"}"#),
        ("get", "/auth/users", "", ""),
        ("get", "/auth/users/stats", "", ""),
        ("patch", "/auth/users/{user_id}", "", "{}"),
        ("delete", "/auth/users/{user_id}", "", ""),
        ("get", "/api/v1/admin/nodes", "", ""),
        ("get", "/api/v1/admin/sessions", "", ""),
        ("delete", "/api/v1/admin/sessions/{session}", "", ""),
        ("get", "/api/v1/admin/slow", "", ""),
        ("get", "/api/v1/me", "", ""),
        ("post", "/api/v1/admin/copy/read", "", r#"{"version":1,"read":"refuses_new"}"#),
        ("post", "/api/v1/admin/copy/write", "", r#"{"version":1,"write":{"delete":{"topic":"t"}}}"#),
        ("post", "/api/v1/admin/reload", "", ""),
        ("get", "/api/v1/admin/drain", "", ""),
        ("post", "/api/v1/admin/drain", "", ""),
        ("get", "/health", "", ""),
        ("get", "/ready", "", ""),
        ("get", "/metrics", "", ""),
        ("get", "/openapi.json", "", ""),
    ];

    const POLICIES: &str = r#"{"policies":[{"limit":1,"per":"1s"}]}"#;

    const RECEIPTS: &str = r#"{"receipts":["t/g/0000000000000001/1-1/1"]}"#;

    fn router(caller: Caller, change: impl FnOnce(&mut HttpOptions)) -> Router {
        let mut options = HttpOptions::test();
        (options.serve_docs, options.serve_metrics) = (true, true);
        change(&mut options);
        let token = CancellationToken::new();
        let sessions = Sessions::new(token.child_token());
        let clock = Clock::manual(Timestamp::from_millis(1));
        let relay_options = RelayOptions {
            payload_bytes_max: 1_000,
            value_bytes_max: 1_000,
            pending_bytes_max: 1 << 20,
            live_bytes_max: 1 << 20,
            live_topics_max: 100,
            topic_auto_create: true,
            durability: Durabilities::default(),
            policy: test_policy(),
            retention: None,
            features: Features::all(),
            presence: PresenceOptions::usual(NodeId::new(0)),
            takes_away: TakesAway::CountAlone,
            slow_after: std::time::Duration::ZERO,
        };
        let relay = Relay::start(
            test_storage(),
            clock,
            relay_options,
            Kept::unbounded(),
            sessions,
            &TaskTracker::new(),
            &token,
        );
        let web = WebRules::new([], TrustedHosts::Any);
        let (access, proxies) = (Access::always(caller), TrustedProxies::default());
        let entrance = Entrance::new(access, Limits::none(), proxies, Audit::new(Metrics::new()));
        Http::new(relay, entrance, options, web, Metrics::new(), NodeId::new(1), token).router(Router::new())
    }

    async fn send(router: &Router, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let is_form = path == "/auth/login" || path.starts_with("/auth/device/");
        let kind = if is_form { "application/x-www-form-urlencoded" } else { "application/json" };
        let request = Request::builder().method(method.to_uppercase().as_str()).uri(path);
        let request = request.header("host", "relay").header("content-type", kind);
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let answer = TowerToHyperService::new(router.clone()).call(request).await.expect("an answer");
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn document(router: &Router) -> Value {
        send(router, "get", "/openapi.json", "").await.1
    }

    #[tokio::test]
    async fn the_rights_that_the_document_names_are_those_that_the_gate_asks_for() {
        let nobody = router(Caller::nobody(1), |_| {});
        let unsaid = router(Caller::new(Who::Anonymous, Rules::default(), None, None), |_| {});
        let document = document(&nobody).await;
        let paths = document["paths"].as_object().expect("paths");
        let mut seen = 0;
        for (path, item) in paths {
            for (method, operation) in item.as_object().expect("operations") {
                let asked = |request: &&(&str, &str, &str, &str)| request.0 == method && request.1 == path;
                let (.., query, body) =
                    REQUESTS.iter().find(asked).unwrap_or_else(|| panic!("no request for {method} {path}"));
                let target = path.replace("{topic}", "t").replace("{message_id}", "1-0");
                let target = target.replace("{token_id}", "x").replace("{name}", "x").replace("{role}", "x");
                let target = target.replace("{user_id}", "x").replace("{group}", "g").replace("{lock}", "l");
                let target = target.replace("{schedule_id}", "1-0");
                let target = target.replace("{bucket}", "b").replace("{key}", "k");
                let target = target.replace("{room}", "r").replace("{member}", "m");
                let target = target.replace("{lease}", &"0".repeat(32)).replace("{series}", "s");
                let target = target + query;
                let (status, _) = send(&nobody, method, &target, body).await;
                let needs = operation[PERMISSION].as_str().expect("a right");
                let (of_nobody, _) = send(&unsaid, method, &target, body).await;
                let is_asked = of_nobody == StatusCode::UNAUTHORIZED;
                assert_eq!(is_asked, needs != "nothing", "{method} {path} from who says nothing");
                if needs == "nothing" || needs == "caller" {
                    assert_ne!(status, StatusCode::FORBIDDEN, "{method} {path}");
                } else {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} needs {needs}");
                }
                seen += 1;
            }
        }
        assert_eq!(seen, REQUESTS.len());
    }

    #[tokio::test]
    async fn what_is_switched_off_is_neither_served_nor_described() {
        let off = router(Caller::anyone(), |options| options.serve_metrics = false);
        assert_eq!(send(&off, "get", "/metrics", "").await.0, StatusCode::NOT_FOUND);
        assert!(document(&off).await["paths"].get("/metrics").is_none());
        let off =
            router(Caller::anyone(), |options| options.features = Features::all().without(Feature::Delays));
        for path in ["/api/v1/topics/t/scheduled", "/api/v1/topics/t/recurring"] {
            assert_eq!(send(&off, "get", path, "").await.0, StatusCode::NOT_FOUND, "{path}");
        }
        assert!(document(&off).await["paths"].get("/api/v1/topics/{topic}/scheduled").is_none());
        let off =
            router(Caller::anyone(), |options| options.features = Features::all().without(Feature::Groups));
        for path in ["/api/v1/topics/t/groups", "/api/v1/topics/t/groups/g"] {
            assert_eq!(send(&off, "get", path, "").await.0, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(send(&off, "post", "/api/v1/work/ack", RECEIPTS).await.0, StatusCode::NOT_FOUND);
        assert!(document(&off).await["paths"].get("/api/v1/work/ack").is_none());
        let off =
            router(Caller::anyone(), |options| options.features = Features::all().without(Feature::Keys));
        for path in ["/api/v1/buckets", "/api/v1/keys/b", "/api/v1/keys/b/k"] {
            assert_eq!(send(&off, "get", path, "").await.0, StatusCode::NOT_FOUND, "{path}");
        }
        assert!(document(&off).await["paths"].get("/api/v1/keys/{bucket}").is_none());
        let off =
            router(Caller::anyone(), |options| options.features = Features::all().without(Feature::Limits));
        assert_eq!(send(&off, "post", "/api/v1/limits/x/take", POLICIES).await.0, StatusCode::NOT_FOUND);
        assert!(document(&off).await["paths"].get("/api/v1/limits/take").is_none());
        let off = router(Caller::anyone(), |options| options.serve_docs = false);
        for path in ["/openapi.json", "/docs", "/problems"] {
            assert_eq!(send(&off, "get", path, "").await.0, StatusCode::NOT_FOUND, "{path}");
        }
        for path in ["/health", "/metrics", "/api/v1/topics"] {
            assert_eq!(send(&off, "get", path, "").await.0, StatusCode::OK, "{path}");
        }
    }
}
