//! Who calls, and from where, as the relay sees it: what a proxy in front has passed on of that.

use axum::Json;
use axum::extract::{Request, State};
use tidemill_proto::access::CallerSeen;
use tidemill_proto::{Code, Problem};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::access::Who;
use crate::relay::Failure;

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Caller, routes!(show))
}

/// Show who calls
///
/// As the relay sees it: who, from which address, and under which URL. Behind a proxy the latter two are what that has
/// passed on, if the relay trusts it (`TRUSTED_PROXIES`).
#[utoipa::path(
    get, path = "/api/v1/me", tag = "operations", operation_id = "show_caller",
    responses((status = 200, body = CallerSeen), Problems),
)]
pub(super) async fn show(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<CallerSeen>, Failure> {
    let [] = query::parameters(request.uri(), [])?;
    if *gate.caller().who() == Who::Anonymous {
        let detail =
            "this is about who calls, and nothing says who does; send `Authorization: Bearer` with a token";
        return Err(Problem::new(Code::Unauthenticated, detail).into());
    }
    Ok(Json(CallerSeen {
        caller: gate.caller().who().to_string(),
        address: gate.origin().address(),
        url: http.own_url(&request),
    }))
}
