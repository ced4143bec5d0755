//! One connection: from the accepted socket to its end.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidemill_proto::{Code, Problem};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::ServerOptions;
use super::admission::{Place, Refusal};
use super::socket::Socket;

/// Least size of a connection's read buffer in bytes: what the HTTP library asks for.
const READ_BUFFER_BYTES_MIN: usize = 8 * 1024;

/// Bytes that the kernel takes for a client before they can be sent: without this bound it takes
/// megabytes for one who does not read, and what lies behind them comes late. What is on its way is not
/// counted, so a fast link stays full.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// What every connection is served with.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    builder: http1::Builder,
    router: Router,
    write_timeout: Duration,
    draining: CancellationToken,
    cut: CancellationToken,
}

impl Connections {
    pub(super) fn new(
        options: &ServerOptions,
        router: Router,
        draining: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(options.header_timeout);
        // The edge refuses large heads with a problem document; the library's own limit, which says
        // only 431, lies well above.
        builder.max_buf_size((options.http.headers_bytes_max * 4).max(READ_BUFFER_BYTES_MIN * 8));
        Self { builder, router, write_timeout: options.write_timeout, draining, cut }
    }

    /// Serves a connection until one side ends it.
    pub(super) fn serve(&self, stream: TcpStream, place: Place) -> impl Future<Output = ()> + Send + 'static {
        let Self { builder, router, write_timeout, draining, cut } = self.clone();
        async move {
            prepare(&stream);
            let io = TokioIo::new(Socket::new(stream, write_timeout, place));
            let service = TowerToHyperService::new(router);
            let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => Some(ended),
                () = draining.cancelled() => None,
            };
            let ended = if let Some(ended) = ended {
                ended
            } else {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    () = cut.cancelled() => return,
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
    }
}

/// Sets what every connection needs of the kernel.
fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        tracing::debug!(%error, "cannot set TCP_NOTSENT_LOWAT");
    }
}

/// Refuses a connection with a problem document, without waiting for anything.
pub(super) fn refuse(stream: &TcpStream, refusal: Refusal) {
    let detail = match refusal {
        Refusal::Full => {
            "there are as many connections as the relay takes (setting `TIDEMILL_CONNECTIONS_MAX`)"
        }
        Refusal::AddressFull => {
            "there are as many connections from this address as the relay takes (setting `TIDEMILL_CONNECTIONS_PER_ADDRESS_MAX`)"
        }
    };
    let problem = Problem::new(Code::Overloaded, detail);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let seconds = problem.code.retry_after_seconds().unwrap_or(1);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: {seconds}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // A fresh socket has room for this; a client that cannot take it is not waited for.
    let written = stream.try_write(answer.as_bytes());
    // What has already arrived would reset the connection before the client reads the answer.
    let read = stream.try_read(&mut [0; 4096]);
    tracing::debug!(?refusal, written = written.is_ok(), read = read.is_ok(), "connection refused");
}
