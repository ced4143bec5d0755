//! Settings that are read again, on demand: who asks for it, and what came of it.
//!
//! It must not know what settings there are, nor where they are read.

use axum::Json;
use axum::extract::{Request, State};
use tidemill_proto::reload::Reloaded;
use tidemill_proto::{Code, Problem};
use tokio::sync::{mpsc, oneshot};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, query};
use crate::access::{Verb, Who, changed};
use crate::relay::Failure;

/// Who waits for the settings to be read again.
#[derive(Debug)]
pub struct ReloadAsked {
    /// Who it is, for the log.
    pub by: String,
    /// Where it is told what came of it, or what is wrong with them.
    pub answer: oneshot::Sender<Result<Reloaded, String>>,
}

/// Where the settings are asked to be read again. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<ReloadAsked>);

/// Why nothing was taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The settings are wrong; nothing was changed.
    #[error("nothing was changed, for the settings are wrong: {0}")]
    Wrong(String),
    /// The relay is about to end.
    #[error("nothing was changed, for the relay is shutting down")]
    Ending,
}

impl Reloads {
    /// Returns where to ask, and where who reads the settings finds those who ask.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadAsked>) {
        // Each waits for its answer: one at a time is enough.
        let (asking, asked) = mpsc::channel(1);
        (Self(asking), asked)
    }

    /// Has the settings read again for somebody, and returns what was taken over.
    ///
    /// # Errors
    /// Nothing was.
    ///
    /// # Cancel safety
    /// When the future is dropped, the settings may be taken over all the same.
    pub async fn ask(&self, by: String) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(ReloadAsked { by, answer }).await.map_err(|_| ReloadError::Ending)?;
        answered.await.map_err(|_| ReloadError::Ending)?.map_err(ReloadError::Wrong)
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let code = match error {
            ReloadError::Wrong(_) => Code::InvalidRequest,
            ReloadError::Ending => Code::Overloaded,
        };
        Self::new(code, error.to_string())
    }
}

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Admin), routes!(reload))
}

/// Read the settings of this node again
///
/// Its file, and the files of secrets; variables and flags are those with which the process was started. What can be taken
/// over without a restart is: the level of the log, the limits of callers, and whose web pages, which names and which proxies
/// are trusted. The certificate is read again, too. Settings that are wrong change nothing, and are told with `400`.
#[utoipa::path(
    post, path = "/api/v1/admin/reload", tag = "operations",
    responses((status = 200, body = Reloaded), Problems),
)]
pub(super) async fn reload(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<Json<Reloaded>, Failure> {
    let [] = query::parameters(request.uri(), [])?;
    gate.check_admin()?;
    let Some(reloads) = http.0.reloads.get() else {
        let detail = "this relay is part of another program, which has its settings: nothing was changed";
        return Err(Problem::new(Code::Conflict, detail).into());
    };
    let told = reloads.ask(gate.caller().who().to_string()).await.map_err(Problem::from)?;
    if *gate.caller().who() != Who::Anyone {
        changed!(
            gate.caller().who(),
            gate.origin(),
            "settings read again",
            changed = told.changed.join(", ")
        );
    }
    Ok(Json(told))
}
