//! Users over HTTP, on the paths and in the form that pulsar-relay's clients know.
//!
//! It must not know who may see and change them: `access` does.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::routing::patch;
use serde_json::value::RawValue;
use tidemill_proto::access::{Account, AccountCreate, AccountUpdate, AccountsStats};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Administered;
use super::failure::Problems;
use super::path::NamePath;
use super::routes::{Concern, Needs};
use super::{Http, json, media, query};
use crate::access::{Administration, Verb};
use crate::relay::Failure;

/// The path of the counts, which is that of a user of this name, too.
const STATS: &str = "stats";

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Admin), routes!(register))
        .route(Needs::Right(Verb::Admin), routes!(list_accounts))
        .route(Needs::Right(Verb::Admin), routes!(accounts_stats))
        .undescribed("/auth/users/stats", patch(update_stats).delete(delete_stats))
        .route(Needs::Right(Verb::Admin), routes!(update_account))
        .route(Needs::Right(Verb::Admin), routes!(delete_account))
}

/// Make a user
#[utoipa::path(
    post, path = "/auth/register", tag = "access",
    request_body = AccountCreate,
    responses((status = 201, body = Account), Problems),
)]
pub(super) async fn register(
    State(http): State<Http>,
    Administered(administration): Administered,
    request: Request,
) -> Result<(StatusCode, Json<Account>), Failure> {
    administration.check_admin()?;
    let body = receive(&http, request).await?;
    let [name, password, email, permissions]: [Option<&RawValue>; 4] =
        json::fields(&body.bytes, ["username", "password", "email", "permissions"])?;
    let wanted = AccountCreate {
        username: text("username", name)?.ok_or_else(|| json::missing("username"))?,
        password: text("password", password)?.ok_or_else(|| json::missing("password"))?,
        email: text("email", email)?,
        permissions: texts("permissions", permissions)?.unwrap_or_default(),
    };
    Ok((StatusCode::CREATED, Json(administration.register(wanted).await?)))
}

/// List users, with the topics that they own
#[utoipa::path(
    get, path = "/auth/users", tag = "access",
    responses((status = 200, body = Vec<Account>), Problems),
)]
pub(super) async fn list_accounts(
    State(http): State<Http>,
    Administered(administration): Administered,
    uri: Uri,
) -> Result<Json<Vec<Account>>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let accounts = administration.accounts().await?;
    let mut owned = http.0.relay.as_caller(administration.caller().clone()).owned_topics(None).await?;
    let with_owned = |(account, owner): (Account, Box<str>)| {
        let owned_topics = owned.remove(&*owner).unwrap_or_default();
        Account { owned_topics, ..account }
    };
    Ok(Json(accounts.into_iter().map(with_owned).collect()))
}

/// Count users
#[utoipa::path(
    get, path = "/auth/users/stats", tag = "access",
    responses((status = 200, body = AccountsStats), Problems),
)]
pub(super) async fn accounts_stats(
    Administered(administration): Administered,
    uri: Uri,
) -> Result<Json<AccountsStats>, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok(Json(administration.accounts_stats().await?))
}

/// Change a user
///
/// What is absent or null stays as it is. Roles that are no permissions stay, too.
#[utoipa::path(
    patch, path = "/auth/users/{user_id}", tag = "access",
    params(("user_id" = String, Path, description = "The name of the user")),
    request_body = AccountUpdate,
    responses((status = 200, body = Account), Problems),
)]
pub(super) async fn update_account(
    State(http): State<Http>,
    Administered(administration): Administered,
    NamePath(name): NamePath,
    request: Request,
) -> Result<Json<Account>, Failure> {
    update(&http, &administration, &name, request).await
}

/// Delete a user, and the tokens that it has made
#[utoipa::path(
    delete, path = "/auth/users/{user_id}", tag = "access",
    params(("user_id" = String, Path, description = "The name of the user")),
    responses((status = 204, description = "It is gone"), Problems),
)]
pub(super) async fn delete_account(
    Administered(administration): Administered,
    NamePath(name): NamePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    delete(&administration, &name, &uri).await
}

async fn update_stats(
    State(http): State<Http>,
    Administered(administration): Administered,
    request: Request,
) -> Result<Json<Account>, Failure> {
    update(&http, &administration, STATS, request).await
}

async fn delete_stats(Administered(administration): Administered, uri: Uri) -> Result<StatusCode, Failure> {
    delete(&administration, STATS, &uri).await
}

async fn update(
    http: &Http,
    administration: &Administration,
    name: &str,
    request: Request,
) -> Result<Json<Account>, Failure> {
    administration.check_admin()?;
    let body = receive(http, request).await?;
    let [email, password, permissions, is_active]: [Option<&RawValue>; 4] =
        json::fields(&body.bytes, ["email", "password", "permissions", "is_active"])?;
    let wanted = AccountUpdate {
        email: text("email", email)?,
        password: text("password", password)?,
        permissions: texts("permissions", permissions)?,
        is_active: json::optional(is_active).map(|raw| json::switch("is_active", raw)).transpose()?,
    };
    let mut account = administration.update_account(name, wanted).await?;
    let mut owned = http.0.relay.as_caller(administration.caller().clone()).owned_topics(Some(name)).await?;
    account.owned_topics = owned.remove(name).unwrap_or_default();
    Ok(Json(account))
}

async fn delete(administration: &Administration, name: &str, uri: &Uri) -> Result<StatusCode, Failure> {
    let [] = query::parameters(uri, [])?;
    administration.delete_account(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn text(field: &str, raw: Option<&RawValue>) -> Result<Option<String>, Failure> {
    json::optional(raw).map(|raw| Ok(json::string(field, raw)?.into_owned())).transpose()
}

fn texts(field: &str, raw: Option<&RawValue>) -> Result<Option<Vec<String>>, Failure> {
    json::optional(raw).map(|raw| json::strings(field, raw)).transpose()
}

async fn receive(http: &Http, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    http.0.budget.receive(&head.headers, body, http.small_limit()).await
}
