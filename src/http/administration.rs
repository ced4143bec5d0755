//! Users, tokens and roles over HTTP, and why somebody may do something.
//!
//! It must not know who may do it: `access` does.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use serde_json::value::RawValue;
use tidemill_proto::access::{
    Explain, Explained, LIFE_SECONDS_MAX, RoleInfo, RoleUpdate, TokenCreate, TokenCreated, TokenInfo,
    UserInfo, UserUpdate,
};
use tidemill_proto::{Problem, duration};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Administered;
use super::failure::Problems;
use super::path::NamePath;
use super::routes::{Concern, Needs};
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::Failure;

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Caller, routes!(create_token))
        .route(Needs::Caller, routes!(list_tokens))
        .route(Needs::Caller, routes!(revoke_token))
        .route(Needs::Right(Verb::Admin), routes!(list_users))
        .route(Needs::Right(Verb::Admin), routes!(get_user))
        .route(Needs::Right(Verb::Admin), routes!(put_user))
        .route(Needs::Right(Verb::Admin), routes!(delete_user))
        .route(Needs::Right(Verb::Admin), routes!(list_roles))
        .route(Needs::Right(Verb::Admin), routes!(put_role))
        .route(Needs::Right(Verb::Admin), routes!(delete_role))
        .route(Needs::Caller, routes!(explain))
}

/// Make a token
///
/// It can do what its rules allow, and never more than whoever makes it: what its maker surely may not is told. Its text
/// is shown this once.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "access",
    request_body = TokenCreate,
    responses((status = 201, description = "The token, with its text", body = TokenCreated), Problems),
)]
pub(super) async fn create_token(
    State(http): State<Http>,
    Administered(administration): Administered,
    request: Request,
) -> Result<(StatusCode, Json<TokenCreated>), Failure> {
    administration.check_said()?;
    let body = receive(&http, request).await?;
    let [name, rules, expires_in] = json::fields(&body.bytes, ["name", "rules", "expires_in"])?;
    let expires_in = json::optional(expires_in).map(|raw| {
        let read = duration::whole_seconds_json(raw.get(), LIFE_SECONDS_MAX);
        read.map_err(|error| Failure::from(Problem::field("expires_in", error)))
    });
    let wanted = TokenCreate {
        name: string("name", name)?,
        rules: json::strings("rules", rules.ok_or_else(|| json::missing("rules"))?)?,
        expires_in: expires_in.transpose()?,
    };
    Ok((StatusCode::CREATED, Json(administration.create_token(&wanted).await?)))
}

/// List tokens
///
/// Those that the caller has made; all, for who may administer the relay. When a token was used last is told to the
/// minute.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "access",
    responses((status = 200, body = Vec<TokenInfo>), Problems),
)]
pub(super) async fn list_tokens(
    Administered(administration): Administered,
    uri: Uri,
) -> Result<Json<Vec<TokenInfo>>, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok(Json(administration.tokens().await?))
}

/// Revoke a token, and those that it has made
///
/// Its maker may, who may administer the relay, and whoever shows the token itself. On every node it is gone within
/// a second, and what it has open is ended.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{token_id}", tag = "access",
    params(("token_id" = String, Path, description = "The id of the token")),
    responses((status = 204, description = "It is revoked"), Problems),
)]
pub(super) async fn revoke_token(
    Administered(administration): Administered,
    NamePath(id): NamePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    administration.revoke_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List users
#[utoipa::path(
    get, path = "/api/v1/users", tag = "access",
    responses((status = 200, body = Vec<UserInfo>), Problems),
)]
pub(super) async fn list_users(
    Administered(administration): Administered,
    uri: Uri,
) -> Result<Json<Vec<UserInfo>>, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok(Json(administration.users().await?))
}

/// Show a user
#[utoipa::path(
    get, path = "/api/v1/users/{name}", tag = "access",
    params(("name" = String, Path, description = "The name of the user")),
    responses((status = 200, body = UserInfo), Problems),
)]
pub(super) async fn get_user(
    Administered(administration): Administered,
    NamePath(name): NamePath,
    uri: Uri,
) -> Result<Json<UserInfo>, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok(Json(administration.user(&name).await?))
}

/// Make a user, or change one
///
/// What is absent or null stays as it is. A user that shows its own name and password can change its password, and
/// nothing else.
#[utoipa::path(
    put, path = "/api/v1/users/{name}", tag = "access",
    params(("name" = String, Path, description = "The name of the user")),
    request_body = UserUpdate,
    responses(
        (status = 200, description = "The user was changed", body = UserInfo),
        (status = 201, description = "The user is new", body = UserInfo),
        Problems,
    ),
)]
pub(super) async fn put_user(
    State(http): State<Http>,
    Administered(administration): Administered,
    NamePath(name): NamePath,
    request: Request,
) -> Result<(StatusCode, Json<UserInfo>), Failure> {
    administration.check_may_write(&name)?;
    let body = receive(&http, request).await?;
    let [password, roles, email, is_active]: [Option<&RawValue>; 4] =
        json::fields(&body.bytes, ["password", "roles", "email", "is_active"])?;
    let text = |field, raw| json::optional(raw).map(|raw| json::string(field, raw)).transpose();
    let update = UserUpdate {
        password: text("password", password)?.map(Into::into),
        roles: json::optional(roles).map(|raw| json::strings("roles", raw)).transpose()?,
        email: text("email", email)?.map(Into::into),
        is_active: json::optional(is_active).map(|raw| json::switch("is_active", raw)).transpose()?,
    };
    let (user, is_new) = administration.put_user(&name, update).await?;
    Ok((written(is_new), Json(user)))
}

/// Delete a user, and the tokens that it has made
#[utoipa::path(
    delete, path = "/api/v1/users/{name}", tag = "access",
    params(("name" = String, Path, description = "The name of the user")),
    responses((status = 204, description = "It is gone"), Problems),
)]
pub(super) async fn delete_user(
    Administered(administration): Administered,
    NamePath(name): NamePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    administration.delete_user(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List roles
#[utoipa::path(
    get, path = "/api/v1/roles", tag = "access",
    responses((status = 200, body = Vec<RoleInfo>), Problems),
)]
pub(super) async fn list_roles(
    Administered(administration): Administered,
    uri: Uri,
) -> Result<Json<Vec<RoleInfo>>, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok(Json(administration.roles().await?))
}

/// Write the rules of a role
#[utoipa::path(
    put, path = "/api/v1/roles/{role}", tag = "access",
    params(("role" = String, Path, description = "The name of the role")),
    request_body = RoleUpdate,
    responses(
        (status = 200, description = "The role was there", body = RoleInfo),
        (status = 201, description = "The role is new", body = RoleInfo),
        Problems,
    ),
)]
pub(super) async fn put_role(
    State(http): State<Http>,
    Administered(administration): Administered,
    NamePath(role): NamePath,
    request: Request,
) -> Result<(StatusCode, Json<RoleInfo>), Failure> {
    administration.check_admin()?;
    let body = receive(&http, request).await?;
    let [rules]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["rules"])?;
    let rules = json::strings("rules", rules.ok_or_else(|| json::missing("rules"))?)?;
    let (role, is_new) = administration.put_role(&role, &rules).await?;
    Ok((written(is_new), Json(role)))
}

/// Delete a role
///
/// One that is ready-made gets back the rules that it had at first.
#[utoipa::path(
    delete, path = "/api/v1/roles/{role}", tag = "access",
    params(("role" = String, Path, description = "The name of the role")),
    responses((status = 204, description = "It is gone, or has its ready-made rules again"), Problems),
)]
pub(super) async fn delete_role(
    Administered(administration): Administered,
    NamePath(role): NamePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    administration.delete_role(&role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say what decides whether somebody may do something
///
/// About oneself, or, for who may administer the relay, about a user, a token, or `anonymous`.
#[utoipa::path(
    post, path = "/api/v1/access/explain", tag = "access",
    request_body = Explain,
    responses((status = 200, body = Explained), Problems),
)]
pub(super) async fn explain(
    State(http): State<Http>,
    Administered(administration): Administered,
    request: Request,
) -> Result<Json<Explained>, Failure> {
    administration.check_said()?;
    let body = receive(&http, request).await?;
    let [verb, topic, principal]: [Option<&RawValue>; 3] =
        json::fields(&body.bytes, ["verb", "topic", "principal"])?;
    let verb = string("verb", verb)?;
    let verb = Verb::parse(&verb)
        .ok_or_else(|| Problem::field("verb", "must be `publish`, `read`, `work`, `manage` or `admin`"))?;
    let topic = json::optional(topic).map(|raw| json::string("topic", raw)).transpose()?;
    let principal = json::optional(principal).map(|raw| json::string("principal", raw)).transpose()?;
    let caller = administration.principal(principal.as_deref()).await?;
    Ok(Json(http.0.relay.as_caller(caller).explain(verb, topic.as_deref()).await?))
}

const fn written(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

fn string(field: &'static str, raw: Option<&RawValue>) -> Result<String, Failure> {
    Ok(json::string(field, raw.ok_or_else(|| json::missing(field))?)?.into_owned())
}

pub(super) async fn receive(http: &Http, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    http.0.budget.receive(&head.headers, body, http.small_limit()).await
}
