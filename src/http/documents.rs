//! Documents about the relay, for people and programs: the `OpenAPI` document, its readable page, the
//! page of problem codes, and what stands at `/`.
//!
//! **Invariant:** no page loads anything from another host; a content security policy says so too.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use tidemill_proto::Code;
use utoipa::OpenApi;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::failure::Mistaken;
use super::media::APPLICATION_JSON;
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::relay::Failure;

/// What the `OpenAPI` document says beside the paths.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Tidemill",
        description = "A persistent message relay built on streams. Errors are problem documents (RFC 9457); `/problems` explains their codes. The WebSocket `/ws` is described in `/asyncapi.json`. `x-permission` names the right that an operation needs; `caller` is to say who calls."
    ),
    tags(
        (name = "messages", description = "Publishing and reading"),
        (name = "presence", description = "Who is in which room"),
        (name = "schedules", description = "Messages that are published later, and those that come again and again"),
        (name = "work", description = "Groups of consumers that share the messages of a topic"),
        (name = "keys", description = "Buckets of keys with their current values"),
        (name = "limits", description = "Limits of applications: how much may be done in a time"),
        (name = "series", description = "Series of measurements, by the minute"),
        (name = "leases", description = "Leases, of which one renewal keeps many locks, keys and members alive"),
        (name = "locks", description = "Locks, whose fences keep out who has lost them"),
        (name = "topics", description = "Topics and what they hold"),
        (name = "access", description = "Users, tokens and roles, and what decides"),
        (name = "operations", description = "Health, readiness, metrics"),
    ),
)]
pub(super) struct Api;

/// Scripts and styles come from the relay itself; Swagger UI sets styles inline and draws its icons
/// from `data:` addresses.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
);

/// Returns the pages that are read in a browser.
pub(super) fn pages() -> Router<Http> {
    // Without the setting, the page sends the document's address to a validator of its vendor.
    let config = Config::new(["/openapi.json"]).validator_url("none").try_it_out_enabled(true);
    Router::from(SwaggerUi::new("/docs").config(config))
        .route("/problems", axum::routing::get(problems))
        .route("/", axum::routing::get(root))
        .layer(map_response(with_policy))
}

async fn with_policy(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

pub(super) fn routes(serve_docs: bool) -> Concern {
    Concern::switched(serve_docs).route(Needs::Nothing, routes!(openapi)).pages(pages())
}

/// The `OpenAPI` document
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations",
    responses((status = 200, description = "This document", body = Object, content_type = "application/json"), Mistaken),
)]
pub(super) async fn openapi(State(http): State<Http>, uri: Uri) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let text: Bytes = http.0.openapi.get().cloned().unwrap_or_default();
    Ok(([(CONTENT_TYPE, APPLICATION_JSON)], text).into_response())
}

/// What stands at `/`: a page for people, who come with a browser, and JSON for everybody else.
async fn root(State(http): State<Http>, uri: Uri, headers: HeaderMap) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = if accepted.any(|value| value.contains("text/html")) {
        let console = if http.0.options.serve_console { CONSOLE_LINE } else { "" };
        Html(ROOT_PAGE.replace("{console}", console)).into_response()
    } else {
        root_json(http.0.options.serve_console).into_response()
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The line of the console, where it is served.
const CONSOLE_LINE: &str = r#"
<li><a href="/console/">The console</a>, to look at it and to run it</li>"#;

const ROOT_PAGE: &str = concat!(
    r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tidemill</title>
<style>body { max-width: 40rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color-scheme: light dark }</style>
</head><body>
<h1>Tidemill</h1>
<p>A persistent message relay, version "#,
    env!("CARGO_PKG_VERSION"),
    r#".</p>
<ul>{console}
<li><a href="/docs">The API</a>, to read and to try (<a href="/openapi.json">OpenAPI</a>)</li>
<li><a href="/asyncapi.json">The WebSocket</a> at <code>/ws</code>, for programs</li>
<li><a href="/problems">Problems</a>: what every error code means</li>
<li><a href="/api/v1/topics">Topics</a> that there are</li>
<li><a href="/health">Health</a>, <a href="/ready">readiness</a> and <a href="/metrics">metrics</a></li>
</ul>
</body></html>
"#
);

fn root_json(serves_console: bool) -> impl IntoResponse {
    let begin = concat!(
        r#"{"name":"tidemill","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","docs":"/docs","openapi":"/openapi.json","asyncapi":"/asyncapi.json","problems":"/problems","health":"/health""#,
    );
    let console = if serves_console { r#","console":"/console/""# } else { "" };
    ([(CONTENT_TYPE, APPLICATION_JSON)], format!("{begin}{console}}}"))
}

async fn problems(uri: Uri) -> Result<Html<String>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let mut rows = String::new();
    for code in Code::ALL {
        let retry = match (code.retryable(), code.retryable_under_key()) {
            (true, _) => "yes",
            (false, true) => "under an <code>Idempotency-Key</code>",
            (false, false) => "no",
        };
        // Writing into a string cannot fail.
        let _ = writeln!(
            rows,
            "<section id=\"{code}\"><h2>{title}</h2><p><code>{code}</code> · status {status} · retryable: {retry}</p><p>{text}</p></section>",
            code = code.as_str(),
            title = escaped(code.title()),
            status = code.status(),
            text = code_spans(&escaped(code.explanation().trim())),
        );
    }
    Ok(Html(PROBLEMS_PAGE.replace("{rows}", &rows)))
}

const PROBLEMS_PAGE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tidemill: problems</title>
<style>
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color-scheme: light dark }
h2 { font-size: 1.1rem; margin: 2rem 0 0 } p { margin: .25rem 0 } section:target { outline: 2px solid; outline-offset: .5rem }
</style></head><body>
<h1>Problems</h1>
<p>Every error of the relay is a problem document (RFC 9457, <code>application/problem+json</code>).
Programs tell problems apart by <code>code</code>; <code>retryable</code> says whether the same request,
sent again later, can succeed and does no harm. <a href="/docs">The paths</a> are documented too.</p>
{rows}</body></html>
"#;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Turns what stands between backticks into code.
fn code_spans(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            let _ = write!(out, "<code>{part}</code>");
        } else {
            out.push_str(part);
        }
    }
    out
}
