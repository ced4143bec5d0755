//! Both sides in one process: who is trusted, and who is not.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;

use super::*;

const PIPE_BYTES: usize = 16 * 1024;

/// An authority, and what it has signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn make() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a signature").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> ClientIdentity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signature");
        ClientIdentity {
            certificate_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate"))
            .expect("an authority");
        roots
    }

    /// Returns a server for `tide.example` that asks for a certificate of this authority.
    fn server(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider))
                .build()
                .expect("a verifier");
        let identity = self.sign("tide.example");
        let chain = CertificateDer::pem_slice_iter(&identity.certificate_pem).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&identity.key_pem).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.expect("certificates"), key)
            .expect("a server");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Connects, and returns what the server answers.
async fn answer(server: TlsAcceptor, tls: ClientTls<'_>, host: &str) -> Result<u8, TlsError> {
    let (near, far) = duplex(PIPE_BYTES);
    let serve = async move {
        // A client that turns away is what some of the tests want.
        if let Ok(mut stream) = server.accept(far).await {
            drop(stream.write_all(b"!").await);
            drop(stream.shutdown().await);
        }
    };
    let ask = async move {
        let mut stream: TlsStream<DuplexStream> = tls.connect(host, near).await?;
        // In TLS 1.3 a server that refuses the client's certificate says so behind the handshake.
        Ok(stream.read_u8().await?)
    };
    tokio::join!(serve, ask).1
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_its_name() {
    let (authority, stranger) = (Authority::make(), Authority::make());
    let identity = authority.sign("client");
    let trusting = ClientTls { roots_pem: Some(authority.pem.as_bytes()), identity: Some(&identity) };
    let answered = answer(authority.server(), trusting, "tide.example").await;
    assert!(matches!(answered, Ok(b'!')), "{answered:?}");
    let refused = answer(authority.server(), trusting, "mill.example").await;
    assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");
    let misled = ClientTls { roots_pem: Some(stranger.pem.as_bytes()), ..trusting };
    let refused = answer(authority.server(), misled, "tide.example").await;
    assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");
    let system = ClientTls { identity: Some(&identity), ..ClientTls::default() };
    let refused = answer(authority.server(), system, "tide.example").await;
    assert!(matches!(refused, Err(TlsError::Handshake(_) | TlsError::Setup(_))), "{refused:?}");
}

#[tokio::test]
async fn a_client_is_trusted_by_what_it_shows() {
    let (authority, stranger) = (Authority::make(), Authority::make());
    let of_a_stranger = stranger.sign("client");
    for identity in [None, Some(&of_a_stranger)] {
        let tls = ClientTls { roots_pem: Some(authority.pem.as_bytes()), identity };
        let refused = answer(authority.server(), tls, "tide.example").await;
        assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_before_anything_is_sent() {
    let authority = Authority::make();
    let mut identity = authority.sign("client");
    let refused = answer(authority.server(), ClientTls::default(), "no name").await;
    assert!(matches!(refused, Err(TlsError::Host(_))), "{refused:?}");
    identity.key_pem = b"secret".to_vec();
    let tls = ClientTls { roots_pem: Some(authority.pem.as_bytes()), identity: Some(&identity) };
    let refused = answer(authority.server(), tls, "tide.example").await.expect_err("there is no key");
    assert!(matches!(refused, TlsError::Pem(_)), "{refused:?}");
    assert!(!format!("{refused} {tls:?}").contains("secret"));
}
