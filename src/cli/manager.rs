//! What manages the process as a service, as systemd does: the socket that it hands over, and what it is told.
//!
//! Outside of a service nothing of this does anything. It must not know what is served.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::interval;

use super::CliError;

/// Returns the socket that the process was given to listen on, if it was given one (`LISTEN_FDS`, `LISTEN_PID`). It must
/// listen where the settings say: who is let in is decided by that.
///
/// It takes these variables out of the environment, so there must be no other thread yet.
pub(super) fn handed_socket(listen: SocketAddr) -> Result<Option<TcpListener>, CliError> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        let count = sockets.len();
        let what =
            format!("{count} sockets are handed over (LISTEN_FDS); the relay takes one, where clients come");
        return Err(CliError::Usage(what));
    }
    let failed = |cause: std::io::Error| {
        CliError::Failed("what is handed over (LISTEN_FDS) is no TCP socket that listens", cause.into())
    };
    let Some(socket) = sockets.take_tcp_listener(0).map_err(failed)? else { return Ok(None) };
    let bound = socket.local_addr().map_err(failed)?;
    if bound != listen {
        let what = format!(
            "the socket that is handed over (LISTEN_FDS) is bound to {bound}, and the settings say listen = {listen}; change one of them"
        );
        return Err(CliError::Usage(what));
    }
    Ok(Some(socket))
}

/// Says that the relay serves.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the relay stops, and finishes what is under way.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that settings are being read again; [`tell_ready`] follows.
pub(super) fn tell_reloading() {
    // What manages services looks at when that was said.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Says again and again that the process is alive, where that is asked for (`WATCHDOG_USEC`); for ever.
pub(super) async fn tell_alive() -> std::convert::Infallible {
    let Some(every) = sd_notify::watchdog_enabled().map(|within| within / 2) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // It serves all the same.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "what manages this service cannot be told how it is");
    }
}
