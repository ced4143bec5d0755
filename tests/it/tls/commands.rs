//! The relay's own commands, and curl, against a relay with TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

use crate::support::process::{Ended, Relay, run};
use crate::support::tls::Papers;

/// A relay with TLS and the files of its certificate.
struct Secured {
    relay: Relay,
    /// As a client calls it.
    url: String,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start() -> Self {
        Self::start_with(&Papers::make())
    }

    fn start_with(papers: &Papers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        papers.write(&certificate, &key);
        let paths = [&certificate, &key].map(|path| path.to_str().unwrap());
        let relay = Relay::start(&[], &["--tls-cert", paths[0], "--tls-key", paths[1]]);
        let url = format!("https://localhost:{}", relay.address().port());
        Self { relay, url, folder }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let certificate = self.certificate();
        let trust = ("TIDEMILL_CA_CERT", certificate.to_str().unwrap());
        run(&[("TIDEMILL_URL", &self.url), trust], arguments, "")
    }
}

#[test]
fn commands_trust_the_certificates_that_they_are_told_to() {
    let secured = Secured::start();
    assert_eq!(secured.run(&["publish", "t", r#"{"n":1}"#]).lines().len(), 1);
    assert!(secured.run(&["read", "t"]).lines()[0].contains(r#"{"n":1}"#));
    assert!(secured.run(&["health"]).lines()[0].starts_with("healthy"));
    let tail = ["tail", "t", "--after", "earliest", "-n", "1", "-o", "raw"];
    let ended = secured.run(&tail);
    assert_eq!(ended.lines(), [r#"{"n":1}"#]);

    let certificate = secured.certificate();
    let flag = format!("--ca-cert={}", certificate.display());
    let url = format!("--url={}", secured.url);
    let ended = run(&[], &[&tail[..], &[&flag, &url]].concat(), "");
    assert_eq!(ended.lines(), [r#"{"n":1}"#]);
    assert!(ended.stderr.contains(&flag), "it says how to go on: {}", ended.stderr);

    // Whoever is told nothing trusts it not.
    let other = secured.folder.path().join("other.pem");
    Papers::make().write(&other, &secured.folder.path().join("unused.pem"));
    let other = format!("--ca-cert={}", other.display());
    for command in [&["read", "t"][..], &["tail", "t", "-n", "1"], &["publish", "t", "1"], &["health"]] {
        for trust in [&[][..], &[&*other]] {
            let stranger = run(&[], &[command, trust, &[&url]].concat(), "");
            let error = stranger.error(1);
            let what = format!("the relay at {} shows a certificate that is not trusted (", secured.url);
            assert!(error.contains(&what) && !error.contains("cannot reach"), "{command:?}: {error}");
            assert!(error.contains("--ca-cert PATH or TIDEMILL_CA_CERT"), "{command:?}: {error}");
            // The other one is signed under the same name.
            let why = if trust.is_empty() {
                "nobody who is trusted has signed it"
            } else {
                "it is not signed with"
            };
            assert!(error.contains(&format!("not trusted ({why}")), "{error}");
        }
    }
}

#[test]
fn a_relay_with_tls_that_is_asked_without_is_told_as_such() {
    let secured = Secured::start();
    let url = format!("http://localhost:{}", secured.relay.address().port());
    for command in [
        &["read", "t"][..],
        &["tail", "t", "-n", "1"],
        &["publish", "t", "1"],
        &["publish", "t"],
        &["health"],
        &["topics"],
    ] {
        let ended = run(&[("TIDEMILL_URL", &url)], command, "1\n");
        let told = format!("the answer of {url} is not a relay's: it speaks TLS: write https://");
        assert_eq!(ended.error(1), told, "{command:?}");
    }
}

#[test]
fn a_certificate_of_another_name_is_told_as_such() {
    let secured = Secured::start_with(&Papers::of(&["relay.example"]));
    for command in [&["read", "t"][..], &["tail", "t", "-n", "1"]] {
        let ended = secured.run(command);
        let error = ended.error(1);
        assert!(error.contains("shows a certificate that is not trusted ("), "{error}");
        assert!(error.contains("relay.example") && error.contains("as its certificate does"), "{error}");
        assert!(!error.contains("--ca-cert"), "{error}");
    }
}

/// A key of another kind stands under the name of who has signed it.
#[test]
fn no_certificate_is_answered_in_the_words_of_a_program() {
    let secured = Secured::start();
    let other = secured.folder.path().join("other.pem");
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).expect("a name").self_signed(&key).expect("a signature");
    std::fs::write(&other, certificate.pem()).unwrap();
    let trust = format!("--ca-cert={}", other.display());
    for command in [&["read", "t"][..], &["tail", "t", "-n", "1"]] {
        let ended = run(&[("TIDEMILL_URL", &secured.url)], &[command, &[&trust]].concat(), "");
        let error = ended.error(1);
        assert!(error.contains("(it is not signed with the key of who is trusted"), "{error}");
        assert!(!error.contains(['{', '[']), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_trusted_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    for command in [&["read", "t"][..], &["tail", "t"], &["health"]] {
        for (path, says) in
            [(Path::new("/nowhere.pem"), "cannot be read"), (&empty, "has no certificate in PEM")]
        {
            let path = path.to_str().unwrap();
            let ended = run(&[], &[command, &["--ca-cert", path]].concat(), "");
            let error = ended.error(2);
            assert!(error.contains(path) && error.contains("--ca-cert") && error.contains(says), "{error}");
            let ended = run(&[("TIDEMILL_CA_CERT", path)], command, "");
            assert!(ended.error(2).contains("variable TIDEMILL_CA_CERT"), "{ended:?}");
        }
    }
}

#[test]
fn a_relay_is_well_to_its_neighbour_who_has_the_same_file() {
    let secured = Secured::start();
    let listen = secured.relay.address().to_string();
    let certificate = secured.certificate();
    let variables =
        [("TIDEMILL_LISTEN", listen.as_str()), ("TIDEMILL_TLS_CERT", certificate.to_str().unwrap())];
    for arguments in [&["health"][..], &["health", "--ready"]] {
        run(&variables, arguments, "").lines();
    }
    // Another relay's certificate is none.
    let (other, unused) = (secured.folder.path().join("other.pem"), secured.folder.path().join("unused.pem"));
    Papers::make().write(&other, &unused);
    let variables = [variables[0], ("TIDEMILL_TLS_CERT", other.to_str().unwrap())];
    assert_eq!(run(&variables, &["health"], "").code, Some(1));
}

#[test]
fn curl_speaks_both_versions() {
    let secured = Secured::start();
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]).arg(secured.certificate());
        let output = command.args(arguments).output().expect("there is a curl");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let messages = format!("{}/api/v1/topics/t/messages", secured.url);
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let told = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
        let publish = [flag, "-H", "content-type: application/json", "-d", "1", &messages];
        let (out, error) = curl(&[&told[..], &publish].concat());
        assert_eq!(out, format!("{version} 201"), "{error}");
        for accept in ["accept: text/event-stream", "accept: application/x-ndjson"] {
            let events = format!("{messages}?after=earliest");
            let (out, _) = curl(&[flag, "--no-buffer", "--max-time", "1", "-H", accept, &events]);
            assert!(out.contains(r#""payload":1"#), "{flag} {accept}: {out}");
        }
    }
}
