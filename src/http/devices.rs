//! Devices over HTTP (RFC 8628), on the paths that pulsar-relay's clients know, and what comes of the page on which
//! a person types a device's code.
//!
//! It must not know how codes are kept, nor who may log in: `access` does.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json};
use secrecy::{ExposeSecret as _, SecretString};
use tidemill_proto::access::{DeviceCodes, DeviceForm, DeviceRefusal, DeviceTokenForm, LoggedIn};
use tidemill_proto::{Code, Problem};
use utoipa_axum::routes;

use super::body::Received;
use super::called::origin;
use super::device_page::{Said, shown};
use super::failure::{AsItIs, Problems};
use super::routes::{Concern, Needs};
use super::{Http, cookies, form, json, query};
use crate::access::DeviceAnswer;
use crate::limits::counted_as;
use crate::metrics::DeviceStep;
use crate::relay::Failure;

/// What the grant is called (RFC 8628 section 3.4).
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

const LET_IN: &str = "The device is let in. You can close this page.";
const REFUSED: &str = "The device is refused. You can close this page.";
const OPEN: &str = "This relay lets everybody in: the device needs nobody. You can close this page.";

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Nothing, routes!(device_code))
        .route(Needs::Nothing, routes!(device_token))
        .pages(axum::Router::new().route("/auth/device", get(page).post(decide)))
}

/// Give a device its codes
///
/// The device shows the short one, and asks with the long one until a user has let it in.
#[utoipa::path(
    post, path = "/auth/device/code", tag = "access",
    request_body(content = DeviceForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = DeviceCodes), Problems),
)]
pub(super) async fn device_code(
    State(http): State<Http>,
    request: Request,
) -> Result<Json<DeviceCodes>, Failure> {
    let origin = origin(request.extensions());
    http.admit_anybody(&origin).await?;
    let verification_uri = http.own_url(&request) + "/auth/device";
    let body = receive(&http, request).await?;
    let [hint, pair, _, _] = form::fields(&body.bytes, ["client_hint", "pair", "scope", "client_id"])?;
    let pair = query::switch("pair", pair.as_deref())?;
    let devices = http.0.metrics.devices();
    let device = http.0.access.begin_device(hint.as_deref(), pair, origin.address().map(counted_as)).await;
    let device = device.inspect_err(|_| devices.count(DeviceStep::NotStarted))?;
    devices.count(DeviceStep::Started);
    Ok(Json(DeviceCodes {
        device_code: device.device_code.expose_secret().to_owned(),
        verification_uri_complete: format!("{verification_uri}?user_code={}", device.user_code),
        user_code: device.user_code,
        verification_uri,
        expires_in: device.life.as_secs(),
        interval: device.ask_every.as_secs(),
    }))
}

/// Ask whether a device is let in
///
/// Until a user has decided, and where it was refused, it is 400 with an `error` of OAuth 2.0: `authorization_pending`,
/// `slow_down`, `access_denied` or `expired_token`.
#[utoipa::path(
    post, path = "/auth/device/token", tag = "access",
    request_body(content = DeviceTokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = LoggedIn),
        (status = 400, description = "There are no tokens for it, or not yet", content(
            (DeviceRefusal = "application/json"),
            (Problem = "application/problem+json"),
        )),
        Problems,
    ),
)]
pub(super) async fn device_token(State(http): State<Http>, request: Request) -> Result<Response, Failure> {
    let body = receive(&http, request).await?;
    let [grant, code, _] = form::fields(&body.bytes, ["grant_type", "device_code", "client_id"])?;
    let grant = grant.ok_or_else(|| json::missing("grant_type"))?;
    if grant != GRANT {
        let detail = format!("`grant_type` must be `{GRANT}`");
        return Ok(refused("unsupported_grant_type", &detail));
    }
    let code = SecretString::from(code.ok_or_else(|| json::missing("device_code"))?.into_owned());
    Ok(match http.0.access.device_tokens(&code).await? {
        DeviceAnswer::Pending => refused("authorization_pending", "nobody has decided yet; ask again"),
        DeviceAnswer::TooSoon => refused("slow_down", "wait five seconds longer before you ask again"),
        DeviceAnswer::Denied => refused("access_denied", "the device was refused; begin anew"),
        DeviceAnswer::Expired => refused("expired_token", "the code is unknown, too old or used; begin anew"),
        DeviceAnswer::Tokens(tokens) => {
            http.0.metrics.devices().count(DeviceStep::LoggedIn);
            Json(tokens).into_response()
        }
    })
}

/// Returns an error as OAuth 2.0 has it, with the word that others find in a problem.
fn refused(error: &str, detail: &str) -> Response {
    let refusal = DeviceRefusal {
        error: error.to_owned(),
        error_description: detail.to_owned(),
        detail: detail.to_owned(),
    };
    (StatusCode::BAD_REQUEST, Extension(AsItIs), Json(refusal)).into_response()
}

async fn page(State(http): State<Http>, request: Request) -> Result<Response, Failure> {
    let [code] = query::parameters(request.uri(), ["user_code"])?;
    if http.0.access.is_open() {
        return Ok(shown(StatusCode::OK, &Said::Done(OPEN)));
    }
    match code.filter(|code| !code.is_empty()) {
        Some(code) => {
            // It says whether there is such a code: who tries them all is counted (RFC 8628 section 5.1).
            http.admit_anybody(&origin(request.extensions())).await?;
            answer_code(&http, &code, None).await
        }
        None => Ok(shown(StatusCode::OK, &Said::Nothing)),
    }
}

/// Shows the device of a code, and above it what is wrong, where something is.
async fn answer_code(http: &Http, code: &str, wrong: Option<&str>) -> Result<Response, Failure> {
    match http.0.access.waiting_device(code).await.map_err(Failure::from) {
        Ok(device) => Ok(match wrong {
            Some(wrong) => shown(StatusCode::FORBIDDEN, &Said::Wrong(&device, wrong)),
            None => shown(StatusCode::OK, &Said::Waiting(&device, &http.0.access.provider_names())),
        }),
        Err(failure) => wrong_code(failure),
    }
}

/// Shows what is wrong with a code.
fn wrong_code(failure: Failure) -> Result<Response, Failure> {
    if failure.code() != Code::InvalidField {
        return Err(failure);
    }
    Ok(shown(StatusCode::NOT_FOUND, &Said::WrongCode(&failure.problem().detail)))
}

/// A name and a password come with each decision, or what the page of a sign-in has, which is good once and in one
/// browser: a page of somebody else has nothing to send here.
async fn decide(State(http): State<Http>, request: Request) -> Result<Response, Failure> {
    let (headers, origin) = (request.headers().clone(), origin(request.extensions()));
    let body = receive(&http, request).await?;
    let names = ["user_code", "username", "password", "decision", "sign_in", "mark"];
    let [code, name, password, decision, sign_in, mark] = form::fields(&body.bytes, names)?;
    let lets_in = match decision.as_deref() {
        Some("allow") => true,
        Some("deny") => false,
        Some(_) | None => return Err(Problem::field("decision", "must be `allow` or `deny`").into()),
    };
    if http.0.access.is_open() {
        return Ok(shown(StatusCode::OK, &Said::Done(OPEN)));
    }
    if let Some(sign_in) = sign_in {
        let mark = cookies::only(&headers, &mark.ok_or_else(|| json::missing("mark"))?).unwrap_or_default();
        let sign_in = SecretString::from(sign_in.into_owned());
        http.0.access.decide_signed_in(&sign_in, &mark.into(), lets_in, &origin).await?;
        return Ok(decided(&http, lets_in));
    }
    let code = code.ok_or_else(|| json::missing("user_code"))?;
    let name = name.ok_or_else(|| json::missing("username"))?;
    let password = SecretString::from(password.ok_or_else(|| json::missing("password"))?.into_owned());
    let access = &http.0.access;
    let decide = async || access.decide_device(&code, &name, &password, lets_in, &origin).await;
    match http.0.entrance.log_in_with(&name, &origin, decide).await.map_err(Failure::from) {
        Ok(()) => Ok(decided(&http, lets_in)),
        Err(failure) if failure.code() == Code::Unauthenticated => {
            answer_code(&http, &code, Some(&failure.problem().detail)).await
        }
        Err(failure) => wrong_code(failure),
    }
}

/// Says that it is decided.
fn decided(http: &Http, lets_in: bool) -> Response {
    let (step, sentence) = if lets_in { (DeviceStep::LetIn, LET_IN) } else { (DeviceStep::Refused, REFUSED) };
    http.0.metrics.devices().count(step);
    shown(StatusCode::OK, &Said::Done(sentence))
}

async fn receive(http: &Http, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    form::require(&head.headers)?;
    http.0.budget.receive(&head.headers, body, http.anybody_limit()).await
}
