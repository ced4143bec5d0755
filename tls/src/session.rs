//! One connection of the relay with TLS: bytes that have come are read, and bytes that are to go are sealed.
//!
//! It holds the beginning of a record that has not come whole, and what could not be sent yet, and gives
//! both back when they are empty: an idle connection costs its keys. It does no I/O, and must not know what
//! it carries.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, ServerConfig};

/// What HTTP/2 is called where a protocol is agreed on (RFC 9113 section 3.2).
pub(crate) const H2: &[u8] = b"h2";

/// Most bytes of one record before it is sealed (RFC 8446 section 5.1).
pub const PLAIN_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a record on the wire: what TLS 1.2 allows, which is more than TLS 1.3 does, and its head.
pub const RECORD_BYTES_MAX: usize = PLAIN_BYTES_MAX + 2048 + 5;

/// A client's connection.
pub struct ServerSession {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message of several, that has not come whole.
    partial: Vec<u8>,
    /// What is still to be sent, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    is_agreed: bool,
    is_over: bool,
    /// What the client sends is not read any more: the library must not be asked again, since what it had
    /// partly seen is gone.
    is_failed: bool,
}

impl fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSession").field("is_agreed", &self.is_agreed).finish_non_exhaustive()
    }
}

/// How a look at what has come ends.
enum Step {
    /// There is more to do.
    Again,
    /// Nothing more can be done before more comes.
    Rests,
}

impl ServerSession {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            is_agreed: false,
            is_over: false,
            is_failed: false,
        })
    }

    /// Returns whether keys are agreed on, so that bytes may be sealed.
    #[must_use]
    pub const fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// Returns whether HTTP/2 was agreed on.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.tls.alpn_protocol() == Some(H2)
    }

    /// Returns whether the client has said that nothing more comes.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads what has arrived, up to [`RECORD_BYTES_MAX`] at once, and hands on what it says. What is to be
    /// answered, an alert among it, is in [`outgoing`](Self::outgoing) afterwards.
    ///
    /// # Errors
    /// The client breaks the rules, or sends what cannot be read in one record: the connection is to end.
    pub fn receive(&mut self, arrived: &mut [u8], plain: impl FnMut(&[u8])) -> Result<(), Error> {
        self.check()?;
        let received = self.receive_some(arrived, plain);
        self.is_failed = received.is_err();
        received
    }

    /// Returns an error where the connection has failed already.
    fn check(&self) -> Result<(), Error> {
        if self.is_failed { Err(Error::General("the connection has failed".to_owned())) } else { Ok(()) }
    }

    fn receive_some(&mut self, arrived: &mut [u8], mut plain: impl FnMut(&[u8])) -> Result<(), Error> {
        if self.is_over {
            return Ok(());
        }
        if self.partial.is_empty() {
            let used = self.read(arrived, &mut plain)?;
            if !self.is_over {
                self.partial.extend_from_slice(&arrived[used..]);
            }
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(arrived);
            let used = self.read(&mut partial, &mut plain)?;
            if used < partial.len() && !self.is_over {
                partial.drain(..used);
                self.partial = partial;
            }
        }
        if self.partial.len() > RECORD_BYTES_MAX {
            return Err(Error::General("a handshake message is too large".to_owned()));
        }
        Ok(())
    }

    /// Returns how many bytes were used up.
    fn read(&mut self, bytes: &mut [u8], plain: &mut impl FnMut(&[u8])) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let (discard, step) = self.step(&mut bytes[used..], plain);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Rests) => return Ok(used),
                Err(error) => {
                    // The alert that says what is wrong. Only that: the rest must not be read again.
                    while self.tls.wants_write() {
                        let (discard, step) = self.step(&mut bytes[used..], plain);
                        used += discard;
                        if step.is_err() {
                            break;
                        }
                    }
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, bytes: &mut [u8], plain: &mut impl FnMut(&[u8])) -> (usize, Result<Step, Error>) {
        let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(bytes);
        let step = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut read = Ok(Step::Again);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plain(record.payload);
                        }
                        Err(error) => read = Err(error),
                    }
                }
                read
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut self.outgoing, |room| data.encode(room)).map(|()| Step::Again)
            }
            // It is in `outgoing`, from where it is sent once.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                self.is_agreed = true;
                Ok(Step::Rests)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.is_over = true;
                Ok(Step::Again)
            }
            // Nothing that comes before keys are agreed on is offered or read.
            Ok(_) => Ok(Step::Rests),
        };
        (discard, step)
    }

    /// Seals up to [`PLAIN_BYTES_MAX`] bytes. What is returned goes behind everything that is in
    /// [`outgoing`](Self::outgoing); where `scratch` is too small, it is there already.
    ///
    /// # Errors
    /// Nothing may be sealed: keys are not agreed on, or are used up.
    pub fn seal<'a>(&mut self, plain: &[u8], scratch: &'a mut [u8]) -> Result<&'a [u8], Error> {
        self.check()?;
        let state = loop {
            // With what is partly there: the library knows how much of it it has seen.
            match self.tls.process_tls_records(&mut self.partial).state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, |room| data.encode(room))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.is_over = true,
                state => break state,
            }
        };
        let ConnectionState::WriteTraffic(mut traffic) = state else {
            return Err(Error::HandshakeNotComplete);
        };
        match traffic.encrypt(plain, scratch) {
            Ok(count) => Ok(&scratch[..count]),
            Err(EncryptError::InsufficientSize(_)) => {
                append(&mut self.outgoing, |room| traffic.encrypt(plain, room))?;
                Ok(&[])
            }
            Err(EncryptError::EncryptExhausted) => Err(Error::EncryptError),
        }
    }

    /// Says that nothing more comes, in [`outgoing`](Self::outgoing).
    ///
    /// # Errors
    /// Keys are not agreed on, so that nothing can be said.
    pub fn end(&mut self) -> Result<(), Error> {
        self.check()?;
        loop {
            match self.tls.process_tls_records(&mut self.partial).state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.outgoing, |room| data.encode(room))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.is_over = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    return append(&mut self.outgoing, |room| traffic.queue_close_notify(room));
                }
                _ => return Err(Error::HandshakeNotComplete),
            }
        }
    }

    /// Returns what is to be sent.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// Adds what was sealed and could not be sent.
    pub fn hold(&mut self, sealed: &[u8]) {
        self.outgoing.extend_from_slice(sealed);
    }

    /// Notes that so many bytes of what is to be sent are sent.
    pub fn note_sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.outgoing.len() {
            self.sent = 0;
            self.outgoing = Vec::new();
        }
    }
}

/// Why the library did not write, where more room would help.
trait Lacking {
    /// Returns how much room it takes; else the error that there is.
    fn required(self) -> Result<usize, Error>;
}

impl Lacking for EncodeError {
    fn required(self) -> Result<usize, Error> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
            Self::AlreadyEncoded => Err(Error::EncryptError),
        }
    }
}

impl Lacking for EncryptError {
    fn required(self) -> Result<usize, Error> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Ok(required_size),
            Self::EncryptExhausted => Err(Error::EncryptError),
        }
    }
}

/// Appends what `write` writes, with the room that it asks for.
fn append<E: Lacking>(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Error> {
    let from = out.len();
    let mut written = write(&mut []);
    if let Err(lacking) = written {
        out.resize(from + lacking.required()?, 0);
        written = write(&mut out[from..]);
    }
    let count =
        written.map_err(|lacking| lacking.required().map_or_else(|error| error, |_| Error::EncryptError))?;
    out.truncate(from + count);
    Ok(())
}

#[cfg(test)]
mod tests;
