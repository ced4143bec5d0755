//! Certificates, connections with TLS over any other kind, and the clients of them.
//!
//! It must not know what is tested.

use std::fmt;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tidemill::link::{Protocol, Tls, Transport};
use tidemill::proto::Timestamp;
use tidemill_tls::{ServerIdentity, ServerTls};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pipe::Client;

/// Bytes that a connection takes before it can send them: a record.
pub(crate) const HELD_BYTES_MAX: usize = 16 * 1024;

/// What both sides need.
#[derive(Clone)]
pub(crate) struct Papers {
    server: ServerTls,
    client: Arc<ClientConfig>,
    /// The certificate and its key, in PEM.
    pub(crate) certificate_pem: String,
    key_pem: String,
    /// Bytes that all connections have taken for their clients, sent or not.
    taken: Arc<AtomicUsize>,
}

/// A connection with TLS that counts what it takes.
#[derive(Debug)]
struct Counted {
    tls: Tls,
    taken: Arc<AtomicUsize>,
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Papers").finish_non_exhaustive()
    }
}

impl Papers {
    /// Makes a certificate of its own for `localhost` and 127.0.0.1.
    pub(crate) fn make() -> Self {
        Self::of(&["localhost", "127.0.0.1"])
    }

    /// Makes papers of who has these names.
    pub(crate) fn of(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Self::with(&CertificateParams::new(names).expect("names"))
    }

    /// Makes a certificate for `localhost` that is good until then.
    pub(crate) fn until(end: Timestamp) -> Self {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_millis(end.as_millis());
        Self::with(&params)
    }

    fn with(params: &CertificateParams) -> Self {
        let signing_key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&signing_key).expect("a signature");
        let (certificate_pem, key_pem) = (cert.pem(), signing_key.serialize_pem());
        let identity = ServerIdentity::from_pem(certificate_pem.as_bytes(), key_pem.as_bytes());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a root");
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self {
            server: ServerTls::new(identity.expect("a certificate and its key")),
            client: Arc::new(client),
            certificate_pem,
            key_pem,
            taken: Arc::default(),
        }
    }

    /// Returns what a relay shows.
    pub(crate) fn server(&self) -> ServerTls {
        self.server.clone()
    }

    /// Writes the certificate and its key as two files.
    pub(crate) fn write(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.certificate_pem).expect("a folder that can be written");
        std::fs::write(key, &self.key_pem).expect("a folder that can be written");
    }

    /// Returns TLS over another transport.
    pub(crate) fn over(&self, inner: Box<dyn Transport>) -> Box<dyn Transport> {
        let session = self.server.session().expect("a session");
        Box::new(Counted { tls: Tls::over(inner, session), taken: self.taken.clone() })
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
        self.try_agree(stream, &[]).await.expect("keys are agreed on")
    }

    /// Agrees on keys, and on one of these protocols.
    pub(crate) async fn try_agree(
        &self,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config)).connect(name(), stream).await
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

impl Counted {
    fn count(&self, taken: io::Result<usize>) -> io::Result<usize> {
        self.taken.fetch_add(*taken.as_ref().unwrap_or(&0), Ordering::Relaxed);
        taken
    }
}

impl Transport for Counted {
    fn poll_agreed(&self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        self.tls.poll_agreed(cx)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tls.try_read(buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.count(self.tls.try_write(bytes))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.count(self.tls.try_write_vectored(parts))
    }

    fn try_flush(&self) -> io::Result<bool> {
        self.tls.try_flush()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.poll_readable(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.poll_writable(cx)
    }

    fn is_left(&self) -> bool {
        self.tls.is_left()
    }

    fn shut_down_write(&self) -> io::Result<()> {
        self.tls.shut_down_write()
    }

    fn tune(&self) -> io::Result<()> {
        self.tls.tune()
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
