//! The `OpenAPI` document and the pages.

use serde_json::{Value, json};
use tidemill::proto::{Code, TopicSelector};
use tidemill::server::ServerOptions;

use crate::support::relay::{TestRelay, memory};

#[expect(clippy::too_many_lines, reason = "it has a line for each operation")]
#[tokio::test]
async fn the_document_lists_every_path() {
    let relay = TestRelay::start(memory()).await;
    let document = relay.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().expect("a version").starts_with("3."));
    let mut operations: Vec<_> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    operations.sort_unstable();
    assert_eq!(
        operations,
        [
            "delete /api/v1/admin/sessions/{session}",
            "delete /api/v1/buckets/{bucket}",
            "delete /api/v1/keys/{bucket}/{key}",
            "delete /api/v1/leases/{lease}",
            "delete /api/v1/locks/{lock}",
            "delete /api/v1/presence/{room}/{member}",
            "delete /api/v1/roles/{role}",
            "delete /api/v1/series/{series}",
            "delete /api/v1/tokens/{token_id}",
            "delete /api/v1/topics/{topic}",
            "delete /api/v1/topics/{topic}/groups/{group}",
            "delete /api/v1/topics/{topic}/messages/{message_id}",
            "delete /api/v1/topics/{topic}/recurring/{name}",
            "delete /api/v1/topics/{topic}/scheduled/{schedule_id}",
            "delete /api/v1/users/{name}",
            "delete /auth/users/{user_id}",
            "get /api/v1/admin/drain",
            "get /api/v1/admin/nodes",
            "get /api/v1/admin/sessions",
            "get /api/v1/admin/slow",
            "get /api/v1/buckets",
            "get /api/v1/buckets/{bucket}",
            "get /api/v1/groups",
            "get /api/v1/keys/{bucket}",
            "get /api/v1/keys/{bucket}/{key}",
            "get /api/v1/leases/{lease}",
            "get /api/v1/locks",
            "get /api/v1/locks/{lock}",
            "get /api/v1/me",
            "get /api/v1/presence",
            "get /api/v1/presence/{room}",
            "get /api/v1/roles",
            "get /api/v1/series",
            "get /api/v1/series/{series}",
            "get /api/v1/stream",
            "get /api/v1/tokens",
            "get /api/v1/topics",
            "get /api/v1/topics/stats",
            "get /api/v1/topics/{topic}",
            "get /api/v1/topics/{topic}/groups",
            "get /api/v1/topics/{topic}/groups/{group}",
            "get /api/v1/topics/{topic}/groups/{group}/messages/{message_id}",
            "get /api/v1/topics/{topic}/messages",
            "get /api/v1/topics/{topic}/messages/{message_id}",
            "get /api/v1/topics/{topic}/messages/{message_id}/payload",
            "get /api/v1/topics/{topic}/recurring",
            "get /api/v1/topics/{topic}/recurring/{name}",
            "get /api/v1/topics/{topic}/scheduled",
            "get /api/v1/users",
            "get /api/v1/users/{name}",
            "get /auth/me",
            "get /auth/oidc/providers",
            "get /auth/users",
            "get /auth/users/stats",
            "get /health",
            "get /messages/poll/stats",
            "get /metrics",
            "get /openapi.json",
            "get /ready",
            "patch /api/v1/topics/{topic}",
            "patch /api/v1/topics/{topic}/groups/{group}",
            "patch /auth/users/{user_id}",
            "post /api/v1/access/explain",
            "post /api/v1/admin/copy/read",
            "post /api/v1/admin/copy/write",
            "post /api/v1/admin/drain",
            "post /api/v1/admin/reload",
            "post /api/v1/buckets/{bucket}/revoke",
            "post /api/v1/keys/{bucket}",
            "post /api/v1/keys/{bucket}/{key}/increment",
            "post /api/v1/keys/{bucket}/{key}/touch",
            "post /api/v1/leases",
            "post /api/v1/leases/{lease}/renew",
            "post /api/v1/limits/take",
            "post /api/v1/limits/{name}/peek",
            "post /api/v1/limits/{name}/refund",
            "post /api/v1/limits/{name}/take",
            "post /api/v1/locks/renew",
            "post /api/v1/locks/{lock}",
            "post /api/v1/locks/{lock}/release",
            "post /api/v1/locks/{lock}/renew",
            "post /api/v1/messages",
            "post /api/v1/messages/bulk",
            "post /api/v1/series",
            "post /api/v1/series/{series}",
            "post /api/v1/tickets",
            "post /api/v1/tokens",
            "post /api/v1/topics",
            "post /api/v1/topics/{topic}/cancel",
            "post /api/v1/topics/{topic}/close",
            "post /api/v1/topics/{topic}/groups/{group}/claim",
            "post /api/v1/topics/{topic}/groups/{group}/pause",
            "post /api/v1/topics/{topic}/groups/{group}/purge",
            "post /api/v1/topics/{topic}/groups/{group}/redrive",
            "post /api/v1/topics/{topic}/groups/{group}/resume",
            "post /api/v1/topics/{topic}/groups/{group}/seek",
            "post /api/v1/topics/{topic}/messages",
            "post /api/v1/topics/{topic}/scheduled/{schedule_id}/now",
            "post /api/v1/topics/{topic}/trim",
            "post /api/v1/work/ack",
            "post /api/v1/work/claim",
            "post /api/v1/work/extend",
            "post /api/v1/work/nack",
            "post /api/v1/work/reject",
            "post /api/v1/work/release",
            "post /auth/cookie",
            "post /auth/device/code",
            "post /auth/device/token",
            "post /auth/login",
            "post /auth/logout",
            "post /auth/register",
            "post /auth/token/refresh",
            "post /auth/token/revoke",
            "post /messages/poll",
            "put /api/v1/buckets/{bucket}",
            "put /api/v1/keys/{bucket}/{key}",
            "put /api/v1/presence/{room}/{member}",
            "put /api/v1/roles/{role}",
            "put /api/v1/topics/{topic}",
            "put /api/v1/topics/{topic}/groups/{group}",
            "put /api/v1/topics/{topic}/recurring/{name}",
            "put /api/v1/users/{name}",
        ]
    );
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(schemas.contains_key(name), "`{name}` is referred to and not described");
    }
    relay.stop().await;
}

#[tokio::test]
async fn people_get_a_page_at_the_root_and_programs_get_json() {
    let relay = TestRelay::start(memory()).await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = relay.send("GET", "/", &[("accept", browser)], b"").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let links = page.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let links: Vec<_> = links.map(str::to_owned).collect();
    assert!(links.len() > 5);
    for link in links {
        let status = relay.get(&link).await.status;
        assert!(matches!(status, 200 | 303), "{link}: {status}");
    }
    for accept in [&[][..], &[("accept", "*/*")], &[("accept", "application/json")]] {
        let answer = relay.send("GET", "/", accept, b"").await;
        assert_eq!(answer.json()["name"], "tidemill");
        assert_eq!(answer.header("vary"), Some("accept"));
    }
    relay.stop().await;
}

#[tokio::test]
async fn the_root_names_the_console_where_there_is_one() {
    for serves in [false, true] {
        let set = |options: &mut ServerOptions| options.http.serve_console = serves;
        let relay = TestRelay::start_with(memory(), set).await;
        let told = relay.get("/").await.json()["console"].clone();
        assert_eq!(told, if serves { json!("/console/") } else { Value::Null });
        let page = relay.send("GET", "/", &[("accept", "text/html")], b"").await;
        assert_eq!(page.text().contains("/console/"), serves);
        assert_eq!(relay.get("/console/").await.status, if serves { 200 } else { 404 });
        relay.stop().await;
    }
}

#[tokio::test]
async fn the_readable_page_loads_nothing_from_outside() {
    let relay = TestRelay::start(memory()).await;
    let docs = relay.get("/docs").await;
    assert_eq!((docs.status, docs.header("location")), (303, Some("/docs/")));
    let page = relay.get("/docs/").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let links = |text: &str| -> Vec<String> {
        let attributes = text.split(['=', ' ', '>']).filter(|part| part.starts_with('"'));
        attributes.map(|part| part.trim_matches('"').to_owned()).filter(|part| part.contains('.')).collect()
    };
    let links = links(page.text());
    assert!(links.len() >= 4, "{links:?}");
    for link in links {
        assert!(!link.contains("//"), "{link} is elsewhere");
        let part = relay.get(&format!("/docs/{}", link.trim_start_matches("./"))).await;
        assert_eq!(part.status, 200, "{link}");
    }
    let start = relay.get("/docs/swagger-initializer.js").await;
    let start = start.text();
    assert!(start.contains("/openapi.json") && start.contains(r#""validatorUrl": "none""#), "{start}");
    assert_eq!(relay.get("/docs/nothing.js").await.problem().code, Code::NotFound);
    relay.stop().await;
}

#[tokio::test]
async fn every_code_is_explained_where_its_problem_points() {
    let relay = TestRelay::start(memory()).await;
    let kind = relay.get("/nothing").await.problem().kind;
    assert_eq!(kind, "/problems#not_found");
    let page = relay.get("/problems").await;
    assert!(page.header("content-type").expect("a type").starts_with("text/html"));
    for code in Code::ALL {
        assert!(page.text().contains(&format!("id=\"{}\"", code.as_str())), "{code:?}");
    }
    assert!(!page.text().contains('`') && !page.text().contains("http"));
    let root = relay.get("/").await;
    assert_eq!((root.status, root.json()["docs"].as_str()), (200, Some("/docs")));
    assert_eq!(root.json()["asyncapi"].as_str(), Some("/asyncapi.json"));
    relay.stop().await;
}

#[tokio::test]
async fn what_selects_topics_is_described_as_it_is_read() {
    let relay = TestRelay::start(memory()).await;
    let document = relay.get("/openapi.json").await.json();
    let parameters = document["paths"]["/api/v1/topics"]["get"]["parameters"].as_array().expect("parameters");
    let selected = parameters.iter().find(|parameter| parameter["name"] == "match").expect("it is described");
    let schema = json!({ "allOf": [selected["schema"]], "components": document["components"] });
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let long = [format!("{}*", "a".repeat(254)), format!("{}*", "a".repeat(255)), "a".repeat(256)];
    let texts = [
        "a",
        "a.b",
        "*",
        "**",
        "a*",
        "*a",
        "a.*",
        "*.*:*",
        "********",
        "a..*",
        "*********",
        "",
        ".*",
        "*.",
        ":*",
        "*:",
        "a.",
        ".",
        "a b*",
        "a/*",
        "*?",
        "é*",
        "*a*b*c*d*e*f*g*h",
        "*a*b*c*d*e*f*g*h*",
    ];
    for text in texts.into_iter().chain(long.iter().map(String::as_str)) {
        let taken = validator.is_valid(&Value::from(text));
        assert_eq!(taken, TopicSelector::parse(text).is_ok(), "{text:?}");
    }
    relay.stop().await;
}
