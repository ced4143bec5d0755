//! A relay as a reader of the documents starts it: the binary, on a port of its own.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// The address that the documents name.
const URL_IN_DOCUMENTS: &str = "http://127.0.0.1:8080";

/// How often the relay is looked for until it must listen, with a pause of [`PAUSE`] each.
const LOOKS_MAX: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

/// A running relay. It is killed when dropped.
#[derive(Debug)]
pub(super) struct Relay {
    process: Child,
    url: String,
    folder: TempDir,
}

impl Relay {
    /// Starts `tidemill serve` with these settings and no others, and waits until it is ready.
    pub(super) fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let output = File::create(folder.path().join("output")).expect("the folder is ours");
        let process = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .arg("serve")
            .env_clear()
            .env("TIDEMILL_LISTEN", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a file can be shared"))
            .stdout(output)
            .spawn()
            .expect("the binary can be run");
        let mut relay = Self { process, url: String::new(), folder };
        for _ in 0..LOOKS_MAX {
            if let Some(url) = listening_at(&relay.output()).filter(|url| is_ready(url)) {
                relay.url = url;
                return relay;
            }
            let ended = relay.process.try_wait().expect("our process can be asked");
            assert!(ended.is_none(), "the relay has ended:\n{}", relay.output());
            std::thread::sleep(PAUSE);
        }
        panic!("the relay does not say where it listens, or is not ready:\n{}", relay.output());
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Runs a block of a document in `folder`, and returns its status and all that it printed.
    pub(super) fn run(&self, block: &str, folder: &Path) -> (ExitStatus, String) {
        let script = block.replace(URL_IN_DOCUMENTS, &self.url);
        let done = Command::new("bash")
            .args(["-euc", &script])
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .expect("there is a shell");
        let printed = [done.stdout, done.stderr].concat();
        (done.status, String::from_utf8_lossy(&printed).into_owned())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the address in what a relay prints, once its port is complete.
fn listening_at(output: &str) -> Option<String> {
    let start = output.find("http://127.0.0.1:")?;
    let port = &output[start + "http://127.0.0.1:".len()..];
    let digits = port.bytes().take_while(u8::is_ascii_digit).count();
    let is_complete = digits > 0 && digits < port.len() && !port.starts_with("0\n");
    is_complete.then(|| output[start..start + "http://127.0.0.1:".len() + digits].to_owned())
}

/// Returns whether the relay at this address says that it is ready.
fn is_ready(url: &str) -> bool {
    let address = url.trim_start_matches("http://");
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let asked = stream.set_read_timeout(Some(Duration::from_secs(5))).and_then(|()| {
        stream.write_all(request.as_bytes())?;
        stream.read_to_end(&mut answer)
    });
    asked.is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
}

#[test]
fn the_address_is_read_once_it_is_complete() {
    assert_eq!(listening_at("listening on http://127.0.0.1:80"), None);
    assert_eq!(
        listening_at("listening on http://127.0.0.1:8091\n"),
        Some("http://127.0.0.1:8091".to_owned())
    );
    assert_eq!(listening_at("curl http://127.0.0.1:8091/health"), Some("http://127.0.0.1:8091".to_owned()));
    assert_eq!(listening_at("nothing"), None);
}
