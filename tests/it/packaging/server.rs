//! A real server, started with a given configuration file and reached over a Unix socket, so that no
//! port can be taken by another test.
//!
//! It speaks as much of RESP2 as the tests of the shipped files need.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::server::Kind;

const PASSWORD: &str = "a password of the tests";

/// How often the server is looked for until it must be there, with a pause of [`PAUSE`] each.
const LOOKS_MAX: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

/// A running server with a folder of its own. Both go when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    socket: PathBuf,
    folder: TempDir,
}

impl Server {
    /// Starts a server with this file, a socket and a password, and nothing else.
    pub(super) fn with_file(kind: Kind, file: &Path) -> Option<Self> {
        let binary = kind.find()?;
        let folder = folder();
        let socket = folder.path().join("s");
        let mut command = Command::new(binary);
        command.arg(file).args(arguments(&socket)).args(["--requirepass", PASSWORD]);
        Some(Self::start(command, folder, socket))
    }

    /// Starts a server with a shell script made for a container: its paths are replaced by ours.
    pub(super) fn with_script(script: &str, file: &Path) -> Option<Self> {
        let binary = Kind::Valkey.find()?;
        let folder = folder();
        let socket = folder.path().join("s");
        let secret = folder.path().join("password");
        fs::write(&secret, format!("{PASSWORD}\n")).expect("the folder can be written");
        let with_arguments = format!("{} {}", file.display(), arguments(&socket).join(" "));
        let script = script
            .replace("valkey-server ", &format!("{} ", binary.display()))
            .replace("/etc/valkey/valkey.conf", &with_arguments)
            .replace("/run/secrets/valkey_password", &secret.display().to_string());
        let mut command = Command::new("/bin/sh");
        command.args(["-euc", &script]);
        Some(Self::start(command, folder, socket))
    }

    fn start(mut command: Command, folder: TempDir, socket: PathBuf) -> Self {
        let log = File::create(folder.path().join("log")).expect("the folder can be written");
        let process = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a file can be shared"))
            .stdout(log)
            .spawn()
            .expect("the server can be started");
        let mut server = Self { process, socket, folder };
        for _ in 0..LOOKS_MAX {
            if UnixStream::connect(&server.socket).is_ok() {
                return server;
            }
            let ended = server.process.try_wait().expect("our process can be asked");
            assert!(ended.is_none(), "the server has ended:\n{}", server.log());
            std::thread::sleep(PAUSE);
        }
        panic!("the server does not listen:\n{}", server.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends a command after logging in and returns the answer as text: one line per element, an error
    /// with its `-`.
    pub(super) fn ask(&self, command: &[&str]) -> String {
        let mut connection = self.connect();
        let login = exchange(&mut connection, &["AUTH", PASSWORD]);
        assert_eq!(login, "OK");
        exchange(&mut connection, command)
    }

    /// Sends a command without logging in.
    pub(super) fn ask_without_password(&self, command: &[&str]) -> String {
        exchange(&mut self.connect(), command)
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.socket).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket has timeouts");
        BufReader::new(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is a folder for temporary files")
}

fn arguments(socket: &Path) -> Vec<String> {
    let socket = socket.display().to_string();
    ["--port", "0", "--unixsocket", &socket].map(str::to_owned).to_vec()
}

fn exchange(connection: &mut BufReader<UnixStream>, command: &[&str]) -> String {
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        let _ = write!(request, "${}\r\n{word}\r\n", word.len());
    }
    io::Write::write_all(connection.get_mut(), request.as_bytes()).expect("the server reads");
    let mut lines = Vec::new();
    read_reply(connection, &mut lines);
    lines.join("\n")
}

fn read_reply(connection: &mut BufReader<UnixStream>, lines: &mut Vec<String>) {
    let mut head = String::new();
    connection.read_line(&mut head).expect("the server answers");
    let head = head.trim_end();
    let (kind, rest) = head.split_at(1);
    match kind {
        "+" | ":" => lines.push(rest.to_owned()),
        "$" | "*" if rest == "-1" => lines.push("(nil)".to_owned()),
        "$" => {
            let length: usize = rest.parse().expect("a length is a number");
            let mut bytes = vec![0; length + 2];
            connection.read_exact(&mut bytes).expect("the server sends what it announced");
            lines.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        "*" => {
            let length: usize = rest.parse().expect("a length is a number");
            for _ in 0..length {
                read_reply(connection, lines);
            }
        }
        _ => lines.push(head.to_owned()),
    }
}
