//! A TCP connection as a transport: it holds nothing of its own.

use std::io::{self, ErrorKind, IoSlice, Read as _};
use std::net::Shutdown;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::transport::{Protocol, Transport};

/// Bytes that the kernel takes for a client before they can be sent: without this bound it takes
/// megabytes for one who does not read, and what lies behind them comes late. What is on its way is not
/// counted, so a fast link stays full.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Whether a read that leaves room has taken everything, so that it need not be tried again: the kernel
/// tells of every arrival, not of a state.
const ARRIVALS_ARE_TOLD: bool = cfg!(target_os = "linux");

/// A TCP connection.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Tcp {
    /// Returns an accepted connection as a transport.
    #[must_use]
    pub const fn new(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl Transport for Tcp {
    fn poll_agreed(&self, _: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        Poll::Ready(Ok(Protocol::Http1))
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut partial = None;
        let read = self.0.try_io(Interest::READABLE, || {
            let count = (&*SockRef::from(&self.0)).read(buffer)?;
            if ARRIVALS_ARE_TOLD && 0 < count && count < buffer.len() {
                partial = Some(count);
                // The runtime is to wait for the next arrival, as if the next read had been tried.
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(count)
        });
        partial.map_or(read, Ok)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn try_flush(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    fn is_left(&self) -> bool {
        let ready = pin!(self.0.ready(Interest::READABLE));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    fn shut_down_write(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(Shutdown::Write)
    }

    fn tune(&self) -> io::Result<()> {
        self.0.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        SockRef::from(&self.0).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        Ok(())
    }
}
