//! Sign-ins with a provider of OpenID Connect, on the paths that pulsar-relay's clients know: the list of providers,
//! where a browser leaves, and where it comes back.
//!
//! It must not know what a provider says, nor who a user is: `access` does.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use secrecy::{ExposeSecret as _, SecretString};
use tidemill_proto::Problem;
use tidemill_proto::access::OidcProvider;
use url::form_urlencoded;
use utoipa_axum::routes;

use super::called::origin;
use super::device_page::{Said, shown};
use super::failure::Mistaken;
use super::routes::{Concern, Needs};
use super::{Http, cookies, json, query, signed_in_page};
use crate::access::{SignInFor, SignedIn, mark_name_of};
use crate::limits::counted_as;
use crate::relay::Failure;

pub(super) fn routes() -> Concern {
    let pages = axum::Router::new()
        .route("/auth/oidc/{provider}/login", get(login))
        .route("/auth/oidc/{provider}/callback", get(callback));
    Concern::new().route(Needs::Nothing, routes!(providers)).pages(pages)
}

/// List the providers with whom users sign in
#[utoipa::path(
    get, path = "/auth/oidc/providers", tag = "access",
    responses((status = 200, body = Vec<OidcProvider>), Mistaken),
)]
pub(super) async fn providers(
    State(http): State<Http>,
    request: Request,
) -> Result<Json<Vec<OidcProvider>>, Failure> {
    let [] = query::parameters(request.uri(), [])?;
    let base = http.own_url(&request);
    let names = http.0.access.provider_names().into_iter();
    let all = names.map(|name| OidcProvider {
        login_url: format!("{base}/auth/oidc/{name}/login"),
        display_name: name.clone(),
        name,
    });
    Ok(Json(all.collect()))
}

/// Returns where a provider sends a browser back to that reaches the relay under this URL.
fn redirect(own_url: &str, provider: &str) -> String {
    format!("{own_url}/auth/oidc/{provider}/callback")
}

/// Sends a browser to the provider. Where it wants no cookie, `next` is read by nobody: whoever is signed in is sent
/// nowhere else.
async fn login(
    State(http): State<Http>,
    Path(provider): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let [next, code, cookie] = query::parameters(request.uri(), ["next", "device_user_code", "cookie"])?;
    let wanted = match (query::switch("cookie", cookie.as_deref())?, &code) {
        (false, None) => SignInFor::Tokens,
        (false, Some(code)) => SignInFor::Device(code),
        (true, None) => SignInFor::Cookie(next.as_deref().unwrap_or("/")),
        (true, Some(_)) => {
            return Err(Problem::field("cookie", "cannot stand beside `device_user_code`").into());
        }
    };
    let origin = origin(request.extensions());
    http.admit_anybody(&origin).await?;
    let own_url = http.own_url(&request);
    let (redirect, from) = (redirect(&own_url, &provider), origin.address().map(counted_as));
    let departure = http.0.access.begin_sign_in(&provider, &redirect, wanted, from).await?;
    let secure = if own_url.starts_with("https:") { "; Secure" } else { "" };
    // Sent along where a page of another site leads here: the provider's does.
    let cookie = format!(
        "{}={}; Path=/auth; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        departure.mark_name,
        departure.mark.expose_secret(),
        departure.life.as_secs()
    );
    let mut response = StatusCode::FOUND.into_response();
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(&departure.url)?);
    headers.insert(SET_COOKIE, header(&cookie)?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn header(text: &str) -> Result<HeaderValue, Failure> {
    let rule = "leads to an address that cannot be written in a header";
    HeaderValue::from_str(text).map_err(|_| Problem::field("provider", rule).into())
}

/// Takes a browser back from the provider.
async fn callback(
    State(http): State<Http>,
    Path(provider): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let [code, state, error] = sent_back(request.uri(), ["code", "state", "error"])?;
    if let Some(error) = error {
        let error: String = error.chars().take(64).flat_map(char::escape_debug).collect();
        return Err(
            Problem::field("error", format_args!("is `{error}`: nobody was signed in; begin anew")).into()
        );
    }
    let code = SecretString::from(code.ok_or_else(|| json::missing("code"))?);
    let state = SecretString::from(state.ok_or_else(|| json::missing("state"))?);
    let mark_name = mark_name_of(&state)?;
    let mark = cookies::only(request.headers(), &mark_name).unwrap_or_default().into();
    let origin = origin(request.extensions());
    http.admit_anybody(&origin).await?;
    let own_url = http.own_url(&request);
    let redirect = redirect(&own_url, &provider);
    let access = &http.0.access;
    Ok(match access.finish_sign_in(&provider, &redirect, &code, &state, &mark, &origin).await? {
        SignedIn::Tokens(tokens) => Json(tokens).into_response(),
        SignedIn::Device(device, confirmation) => {
            shown(StatusCode::OK, &Said::SignedIn(&device, confirmation.expose_secret(), &mark_name))
        }
        SignedIn::Cookie(cookie, next) => {
            http.0.metrics.auth().cookie();
            let mut response = signed_in_page::shown(&format!("{own_url}{next}"));
            response.headers_mut().insert(SET_COOKIE, cookies::keeping(&cookie, &own_url));
            response
        }
    })
}

/// Returns what a provider has sent back, of which others may stand there, too.
fn sent_back<const N: usize>(uri: &Uri, names: [&str; N]) -> Result<[Option<String>; N], Failure> {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let Some(at) = names.iter().position(|known| *known == name) else { continue };
        if values[at].replace(value.into_owned()).is_some() {
            return Err(Problem::field(name, "is there twice").into());
        }
    }
    Ok(values)
}
