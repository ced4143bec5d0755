//! Log-ins over HTTP, on the paths and in the form that pulsar-relay's clients know.
//!
//! It must not know how tokens are made, kept or told good from bad: `access` does.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tidemill_proto::Problem;
use tidemill_proto::access::{Account, CookieLogIn, CookieMade, LogInForm, LoggedIn, Refresh, Revoke};
use utoipa_axum::routes;

use super::body::Received;
use super::called::{Administered, origin};
use super::failure::Problems;
use super::media::{self, Media};
use super::routes::{Concern, Needs};
use super::{Http, cookies, form, json, query};
use crate::relay::Failure;

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Nothing, routes!(log_in))
        .route(Needs::Nothing, routes!(log_in_browser))
        .route(Needs::Nothing, routes!(refresh))
        .route(Needs::Nothing, routes!(revoke))
        .route(Needs::Caller, routes!(log_out))
        .route(Needs::Caller, routes!(own_account))
}

/// Log a user in
///
/// The access token says who calls for a short time; for the refresh token there is a new one of each, once.
#[utoipa::path(
    post, path = "/auth/login", tag = "access",
    request_body(content = LogInForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = LoggedIn), Problems),
)]
pub(super) async fn log_in(State(http): State<Http>, request: Request) -> Result<Json<LoggedIn>, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    form::require(&head.headers)?;
    let body = http.0.budget.receive(&head.headers, body, http.anybody_limit()).await?;
    let names = ["username", "password", "grant_type", "scope", "client_id", "client_secret"];
    let [name, password, grant, _, _, _] = form::fields(&body.bytes, names)?;
    if grant.is_some_and(|grant| !matches!(&*grant, "" | "password")) {
        return Err(Problem::field("grant_type", "must be `password`").into());
    }
    let name = name.ok_or_else(|| json::missing("username"))?;
    let password = SecretString::from(password.ok_or_else(|| json::missing("password"))?.into_owned());
    let look = async || http.0.access.log_in(&name, &password).await;
    Ok(Json(http.0.entrance.log_in_with(&name, &origin(&head.extensions), look).await?))
}

/// Log a user in who sits at a browser
///
/// The answer sets a cookie that no script can read. It says who calls in place of `Authorization`, with requests of
/// pages of the relay itself.
#[utoipa::path(
    post, path = "/auth/cookie", tag = "access",
    request_body(content(
        (CookieLogIn = "application/json"),
        (CookieLogIn = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, body = CookieMade), Problems),
)]
pub(super) async fn log_in_browser(State(http): State<Http>, request: Request) -> Result<Response, Failure> {
    cookies::check_sender(&http, &request)?;
    let own_url = http.own_url(&request);
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    let is_json = matches!(media::of(&head.headers)?, Media::Json(_));
    if !is_json {
        form::require(&head.headers)?;
    }
    let body = http.0.budget.receive(&head.headers, body, http.anybody_limit()).await?;
    let names = ["username", "password"];
    let [name, password] = if is_json {
        let [name, password]: [Option<&RawValue>; 2] = json::fields(&body.bytes, names)?;
        let read = |field, raw: Option<_>| raw.map(|raw| json::string(field, raw)).transpose();
        [read("username", name)?, read("password", password)?]
    } else {
        form::fields(&body.bytes, names)?
    };
    let name = name.ok_or_else(|| json::missing("username"))?;
    let password = SecretString::from(password.ok_or_else(|| json::missing("password"))?.into_owned());
    let origin = origin(&head.extensions);
    let look = async || http.0.access.log_in_browser(&name, &password, &origin).await;
    let cookie = http.0.entrance.log_in_with(&name, &origin, look).await?;
    http.0.metrics.auth().cookie();
    let mut response = Json(CookieMade { expires_at: cookie.expires_at }).into_response();
    response.headers_mut().insert(SET_COOKIE, cookies::keeping(&cookie, &own_url));
    Ok(response)
}

/// Prolong a log-in
///
/// The refresh token is good once. Where one is used a second time, the log-in is over, with all its tokens.
#[utoipa::path(
    post, path = "/auth/token/refresh", tag = "access",
    request_body = Refresh,
    responses((status = 200, description = "The next tokens", body = LoggedIn), Problems),
)]
pub(super) async fn refresh(State(http): State<Http>, request: Request) -> Result<Json<LoggedIn>, Failure> {
    let origin = origin(request.extensions());
    let body = receive(&http, request).await?;
    let [token]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["refresh_token"])?;
    Ok(Json(http.0.access.prolong(&secret(token)?, &origin).await?))
}

/// End the log-in of a refresh token
///
/// Its access tokens are gone on every node within a second, and what is open by them ends. Of a token that is not
/// good nothing is told.
#[utoipa::path(
    post, path = "/auth/token/revoke", tag = "access",
    request_body = Revoke,
    responses((status = 204, description = "It is over, if there was one"), Problems),
)]
pub(super) async fn revoke(State(http): State<Http>, request: Request) -> Result<StatusCode, Failure> {
    let origin = origin(request.extensions());
    let body = receive(&http, request).await?;
    let [token, chain]: [Option<&RawValue>; 2] =
        json::fields(&body.bytes, ["refresh_token", "revoke_chain"])?;
    json::optional(chain).map(|raw| json::switch("revoke_chain", raw)).transpose()?;
    http.0.access.end_log_in(&secret(token)?, &origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Log out
///
/// The log-in of the access token or the cookie is over, with all its tokens. Whoever came by no log-in stays as it
/// is.
#[utoipa::path(
    post, path = "/auth/logout", tag = "access",
    responses((status = 204, description = "It is over, if there was one"), Problems),
)]
pub(super) async fn log_out(
    State(http): State<Http>,
    Administered(administration): Administered,
    request: Request,
) -> Result<Response, Failure> {
    let [] = query::parameters(request.uri(), [])?;
    let own_url = http.own_url(&request);
    let has_cookie = cookies::has_log_in(request.headers(), &own_url);
    administration.log_out().await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if has_cookie {
        response.headers_mut().insert(SET_COOKIE, cookies::forgetting(&own_url));
    }
    Ok(response)
}

/// Show who calls
#[utoipa::path(
    get, path = "/auth/me", tag = "access",
    responses((status = 200, body = Account), Problems),
)]
pub(super) async fn own_account(
    State(http): State<Http>,
    Administered(administration): Administered,
    uri: Uri,
) -> Result<Json<Account>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let mut account = administration.own_account().await?;
    let caller = administration.caller();
    if let Some(owner) = caller.owner() {
        let mut owned = http.0.relay.as_caller(caller.clone()).owned_topics(Some(owner)).await?;
        account.owned_topics = owned.remove(owner).unwrap_or_default();
    }
    Ok(Json(account))
}

fn secret(raw: Option<&RawValue>) -> Result<SecretString, Failure> {
    let raw = raw.ok_or_else(|| json::missing("refresh_token"))?;
    Ok(SecretString::from(json::string("refresh_token", raw)?.into_owned()))
}

async fn receive(http: &Http, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    http.0.budget.receive(&head.headers, body, http.anybody_limit()).await
}
