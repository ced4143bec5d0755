//! TLS as a transport, over any other one, and the clients of it: that the relay's connections can
//! carry it.
//!
//! It must not know what is tested.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use parking_lot::Mutex;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tidemill::link::Transport;
use tidemill::server::{Accepted, Bound, Listen, Listener, TcpListen};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pipe::Client;

/// Bytes that a connection takes before it can send them: a few records.
pub(crate) const HELD_BYTES_MAX: usize = 64 * 1024;

/// What both sides need.
#[derive(Clone)]
pub(crate) struct Papers {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// Bytes that all connections have taken for their clients, sent or not.
    taken: Arc<AtomicUsize>,
}

/// A connection with TLS.
struct Tls {
    inner: Box<dyn Transport>,
    session: Mutex<ServerConnection>,
    taken: Arc<AtomicUsize>,
}

/// A transport as the library of TLS wants it.
struct Records<'a>(&'a dyn Transport);

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Papers").finish_non_exhaustive()
    }
}

impl Papers {
    /// Makes a certificate of its own for `localhost`.
    pub(crate) fn make() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a certificate and its key");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a root");
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client), taken: Arc::default() }
    }

    /// Returns TLS over another transport.
    pub(crate) fn over(&self, inner: Box<dyn Transport>) -> Box<dyn Transport> {
        let mut session = ServerConnection::new(self.server.clone()).expect("a session");
        session.set_buffer_limit(Some(HELD_BYTES_MAX));
        Box::new(Tls { inner, session: Mutex::new(session), taken: self.taken.clone() })
    }

    /// Returns how many bytes the connections have taken for their clients, sent or not.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Connects, and agrees on keys.
    pub(crate) async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.expect("the relay listens");
        self.agree(stream).await
    }

    /// Agrees on keys.
    pub(crate) async fn agree(&self, stream: TcpStream) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(self.client.clone());
        connector.connect(name(), stream).await.expect("keys are agreed on")
    }

    /// Returns the client's side of a session, to be driven by hand.
    pub(crate) fn client(&self) -> ClientConnection {
        let mut session = ClientConnection::new(self.client.clone(), name()).expect("a session");
        session.set_buffer_limit(None);
        session
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

impl Tls {
    /// Sends on what the session holds. Returns whether that was all.
    fn send(&self, session: &mut ServerConnection) -> io::Result<bool> {
        while session.wants_write() {
            match session.write_tls(&mut Records(&*self.inner)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Hands bytes to the session, and sends on what becomes of them.
    fn take(&self, write: impl FnOnce(&mut ServerConnection) -> io::Result<usize>) -> io::Result<usize> {
        let mut session = self.session.lock();
        if session.is_handshaking() {
            // To wait for the socket would not help.
            return Err(ErrorKind::NotConnected.into());
        }
        if !self.send(&mut session)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = write(&mut session)?;
        self.taken.fetch_add(count, Ordering::Relaxed);
        self.send(&mut session)?;
        Ok(count)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // Its last word: without it the client could not tell the end from a cut.
        let _ = self.shut_down_write();
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Transport for Tls {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut session = self.session.lock();
        loop {
            let processed = session.process_new_packets();
            // What it answers by itself, above all when something is wrong.
            self.send(&mut session)?;
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            session.read_tls(&mut Records(&*self.inner))?;
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.take(|session| session.writer().write(bytes))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(|session| session.writer().write_vectored(parts))
    }

    fn try_flush(&self) -> io::Result<bool> {
        Ok(self.send(&mut self.session.lock())? && self.inner.try_flush()?)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.lock();
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            // What is wrong is told by reading.
            Ok(_) | Err(_) => return Poll::Ready(Ok(())),
        }
        while !self.send(&mut session)? {
            if self.inner.poll_writable(cx)?.is_pending() {
                break;
            }
        }
        self.inner.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_writable(cx)
    }

    fn shut_down_write(&self) -> io::Result<()> {
        let mut session = self.session.lock();
        session.send_close_notify();
        self.send(&mut session)?;
        self.inner.shut_down_write()
    }

    fn tune(&self) -> io::Result<()> {
        self.inner.tune()
    }
}

impl Read for Records<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Records<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A listener whose connections carry TLS over TCP.
#[derive(Debug)]
pub(crate) struct TlsListen {
    papers: Papers,
    tcp: Arc<dyn Listen>,
}

#[derive(Debug)]
struct Open {
    papers: Papers,
    tcp: Box<dyn Listener>,
    bound: Bound,
}

impl TlsListen {
    pub(crate) fn at(address: SocketAddr, papers: &Papers) -> Arc<dyn Listen> {
        Arc::new(Self { papers: papers.clone(), tcp: TcpListen::at(address) })
    }
}

impl fmt::Display for TlsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tcp.fmt(f)
    }
}

#[async_trait]
impl Listen for TlsListen {
    async fn bind(&self) -> io::Result<Box<dyn Listener>> {
        let tcp = self.tcp.bind().await?;
        let Bound { url, address } = tcp.bound();
        let bound = Bound { url: url.replacen("http", "https", 1), address: *address };
        Ok(Box::new(Open { papers: self.papers.clone(), tcp, bound }))
    }
}

#[async_trait]
impl Listener for Open {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    async fn accept(&self) -> io::Result<Accepted> {
        let Accepted { transport, from } = self.tcp.accept().await?;
        Ok(Accepted { transport: self.papers.over(transport), from })
    }
}

/// A client on the other end of a pipe, whose records are cut where the test wants.
pub(crate) struct TlsClient {
    pipe: Client,
    session: ClientConnection,
    /// What was read.
    plain: Vec<u8>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("session", &self.session).finish_non_exhaustive()
    }
}

impl TlsClient {
    /// Agrees on keys.
    pub(crate) async fn agree(papers: &Papers, pipe: Client) -> Self {
        let mut client = Self { pipe, session: papers.client(), plain: Vec::new() };
        while client.session.is_handshaking() {
            let piece = client.records();
            if !piece.is_empty() {
                client.pipe.send(&piece);
            }
            if client.session.is_handshaking() {
                client.read().await;
            }
        }
        // The last word of the handshake is the client's.
        let piece = client.records();
        if !piece.is_empty() {
            client.pipe.send(&piece);
        }
        client
    }

    pub(crate) fn pipe(&self) -> &Client {
        &self.pipe
    }

    /// Returns bytes as one record, or as many as they need.
    pub(crate) fn record(&mut self, plain: &[u8]) -> Vec<u8> {
        self.session.writer().write_all(plain).expect("there is no limit");
        self.records()
    }

    /// Sends bytes as one record, or as many as they need.
    pub(crate) fn send(&mut self, plain: &[u8]) {
        let record = self.record(plain);
        self.pipe.send(&record);
    }

    /// Says that nothing more comes.
    pub(crate) fn end(&mut self) {
        self.session.send_close_notify();
        let record = self.records();
        self.pipe.send(&record);
        self.pipe.end();
    }

    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).expect("a vector takes everything");
        }
        records
    }

    /// Reads more; returns whether there was any.
    async fn read(&mut self) -> bool {
        let mut bytes = &self.pipe.more().await[..];
        let was_any = !bytes.is_empty();
        while !bytes.is_empty() {
            self.session.read_tls(&mut bytes).expect("room for more");
            let state = self.session.process_new_packets().expect("well-formed records");
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.session.reader().read_exact(&mut plain).expect("so many bytes");
            self.plain.extend_from_slice(&plain);
        }
        was_any
    }

    /// Reads until there is enough; returns everything that came, also if the relay hangs up before.
    pub(crate) async fn until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        while !is_enough(&self.plain) && self.read().await {}
        std::mem::take(&mut self.plain)
    }
}
