//! The console, served: a page, its scripts and its styles, as they lie in the binary.
//!
//! It must not know what stands in them.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tidemill_proto::{Code, Problem};

use super::etag::Validator;
use super::routes::Concern;
use super::{Http, query};
use crate::console::{FILES, POLICY};
use crate::relay::Failure;

pub(super) fn routes(serve_console: bool) -> Concern {
    let pages: Router<Http> = Router::new()
        .route("/console", get(led_there))
        .route("/console/", get(page))
        .route("/console/{file}", get(file));
    Concern::switched(serve_console).pages(pages)
}

/// The scripts are found beside the page, so its address has a `/` at its end: a relative one, as a proxy may have put
/// the relay below a path.
async fn led_there(uri: Uri) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok((StatusCode::PERMANENT_REDIRECT, [(LOCATION, "console/")]).into_response())
}

async fn page(uri: Uri, headers: HeaderMap) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    served("", &headers)
}

async fn file(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    served(&name, &headers)
}

fn served(name: &str, request: &HeaderMap) -> Result<Response, Failure> {
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| {
        Problem::new(Code::NotFound, "the console has no such file; it begins at `/console/`")
    })?;
    let mut response = file.text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(Validator::of(&[file.text.as_bytes()]).answer(request, response))
}
