//! TLS to clients: what files do, HTTP/2, and who abuses it.
//!
//! | file | owns |
//! |---|---|
//! | `files` | the certificate and its key, as settings, and while they change |
//! | `http2` | that HTTP/2 is served as HTTP/1.1 is |
//! | `abuse` | clients that break the rules, or keep to them and take nothing |
//! | `claims` | who reads what it claimed and goes |
//! | `commands` | the relay's own client, and curl |
//! | `unread` | requests that are answered before their bodies have come |

mod abuse;
mod claims;
mod commands;
mod files;
mod http2;
mod unread;

use std::net::SocketAddr;

use tidemill::server::{ServerOptions, TcpListen, TlsListen};

use crate::support::relay::{TestRelay, memory};
use crate::support::tls::Papers;

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The window that a client of HTTP/2 gives where it does not matter.
const WINDOW: u32 = 1 << 24;

/// Starts a relay that listens with TLS too; returns where.
async fn start(change: impl FnOnce(&mut ServerOptions)) -> (TestRelay, Papers, SocketAddr) {
    let papers = Papers::make();
    let relay = TestRelay::start_with(memory(), |options| {
        options.listen.push(TlsListen::over(TcpListen::at(FREE), papers.server()));
        change(options);
    })
    .await;
    let address = relay.bound[1].address.expect("TCP has an address");
    (relay, papers, address)
}
