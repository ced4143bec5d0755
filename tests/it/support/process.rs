//! The real binary: run to its end with what it prints, or running as a relay.
//!
//! It must not know what is tested.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr as _;
use std::thread::JoinHandle;

use tokio::task::spawn_blocking;

use super::eventually;
use super::ground::SOON;
use super::relay::try_send;

/// The variable that names the binary to test: an optimised one steadies tests under load. Else it is the
/// one that was built with the tests.
const VARIABLE: &str = "TIDEMILL_BIN";

pub(crate) fn path() -> OsString {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_tidemill").into())
}

/// Returns the binary as a command that sees no variables of this process.
fn binary(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(path());
    command.env_clear().envs(variables.iter().copied());
    command
}

/// Returns the binary as a command that is given its standard input as the socket to listen on.
fn with_a_socket(variables: &[(&str, &str)]) -> Command {
    const SCRIPT: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null"#;
    let mut command = Command::new("/bin/sh");
    command.args(["-euc", SCRIPT, "sh"]).arg(path()).env_clear().envs(variables.iter().copied());
    command
}

fn as_input(socket: &TcpListener) -> Stdio {
    Stdio::from(OwnedFd::from(socket.try_clone().expect("a file more")))
}

/// Starts a command whose output is ours.
fn spawn(command: &mut Command, stdin: Stdio) -> Child {
    let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary can be run")
}

/// Returns the numbers from 0, a line each.
pub(crate) fn number_lines(count: usize) -> String {
    (0..count).flat_map(|number| [number.to_string(), "\n".to_owned()]).collect()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Returns the lines on standard output.
    ///
    /// # Panics
    /// The command failed.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<&str> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.lines().collect()
    }

    /// Returns the one line on standard error of a command that failed with `code`.
    ///
    /// # Panics
    /// It ended otherwise, or said more.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        self.stderr.trim_end().strip_prefix("error: ").expect("an error line")
    }
}

/// Runs the binary to its end.
pub(crate) fn run(variables: &[(&str, &str)], arguments: &[&str], input: &str) -> Ended {
    run_to_end(binary(variables).args(arguments), input)
}

/// Runs a command line that begins with `tidemill`, as a shell in this folder does.
pub(crate) fn run_line(line: &str, folder: &Path) -> Ended {
    let script = format!("tidemill() {{ \"$TIDEMILL_HERE\" \"$@\"; }}\n{line}");
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().env("TIDEMILL_HERE", path()).current_dir(folder).args(["-euc", &script]);
    run_to_end(&mut shell, "")
}

fn run_to_end(command: &mut Command, input: &str) -> Ended {
    let mut child = spawn(command, Stdio::piped());
    let mut stdin = child.stdin.take().expect("it was asked for");
    let input = input.to_owned();
    // Beside the reading of the output: either pipe may fill.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("writing does not panic");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Runs the binary with nobody to read its output, and returns its code and standard error.
pub(crate) fn run_unread(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = spawn(binary(&[]).args(arguments), Stdio::null());
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

/// Runs the binary against a relay, with its output on a terminal and a file as its input, and returns what the
/// terminal was sent.
///
/// # Panics
/// The command fails.
pub(crate) fn run_on_terminal(url: &str, columns: usize, arguments: &[&str], input: &str) -> String {
    // Opens a terminal of that width, and reads it until the command ends.
    const SCRIPT: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios
ours, its = pty.openpty()
fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, int(sys.argv[1]), 0, 0))
command = subprocess.Popen(sys.argv[3:], stdin=open(sys.argv[2]), stdout=its, stderr=its)
os.close(its)
while True:
    try:
        seen = os.read(ours, 65536)
    except OSError:
        break
    if not seen:
        break
    os.write(1, seen)
sys.exit(command.wait())
"#;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(input.as_bytes()).expect("the file is ours");
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, &columns.to_string()]).arg(file.path()).arg(path()).args(arguments);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("TERM", "xterm").env("TIDEMILL_URL", url);
    let output = command.output().expect("there is a python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    /// Starts a command without input.
    pub(crate) fn start(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut child = spawn(binary(variables).args(arguments), Stdio::null());
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        Self { child, stdout, stderr }
    }

    /// Starts a command, and returns what feeds it, too.
    pub(crate) fn fed(variables: &[(&str, &str)], arguments: &[&str]) -> (Self, ChildStdin) {
        let mut child = spawn(binary(variables).args(arguments), Stdio::piped());
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        (Self { child, stdout, stderr }, stdin)
    }

    /// Waits for a line on standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().expect("it is open").read_line(&mut line).expect("UTF-8");
        line
    }

    /// Waits for a line on standard error.
    pub(crate) fn note(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("UTF-8");
        line
    }

    /// Closes the standard output, as a reader does that has seen enough.
    pub(crate) fn leave(&mut self) {
        self.stdout = None;
    }

    /// Sends the signal of a terminal that goes away.
    pub(crate) fn hang_up(&self) {
        super::signals::send(&self.child, rustix::process::Signal::HUP);
    }

    /// Sends the signal of Ctrl-C.
    pub(crate) fn interrupt(&self) {
        super::signals::send(&self.child, rustix::process::Signal::INT);
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(pipe) = &mut self.stdout {
            pipe.read_to_string(&mut stdout).expect("UTF-8");
        }
        self.stderr.read_to_string(&mut stderr).expect("UTF-8");
        Ended { code: self.child.wait().expect("it ends").code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A relay that runs as its own process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    /// Reads what it logs: a relay whose log nobody takes stands still.
    log: Option<JoinHandle<String>>,
    /// Where it listens.
    pub(crate) url: String,
}

impl Relay {
    /// Starts a relay on a free port.
    pub(crate) fn start(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", variables, arguments)
    }

    /// Starts a relay on a free port that takes a file for the hosts of this machine, so that a name can move. Returns
    /// `None` (with a line on standard error) where nothing may be mounted.
    pub(crate) fn start_with_hosts(hosts: &Path, variables: &[(&str, &str)]) -> Option<Self> {
        const SCRIPT: &str = r#"mount --bind "$1" /etc/hosts; shift; exec "$@""#;
        let in_its_own = || {
            let mut command = Command::new("unshare");
            let path = std::env::var_os("PATH").unwrap_or_default();
            command.args(["--map-root-user", "--mount", "/bin/sh", "-euc", SCRIPT, "sh"]).arg(hosts);
            command.env_clear().env("PATH", path).envs(variables.iter().copied());
            command
        };
        let may = in_its_own().arg("true").output().is_ok_and(|output| output.status.success());
        if !may {
            eprintln!("skipped: this process may not mount a file for itself");
            return None;
        }
        let mut command = in_its_own();
        command.arg(path());
        Some(Self::serve(command, Stdio::null(), "127.0.0.1:0", &[]))
    }

    /// Starts a relay at an address.
    pub(crate) fn start_at(listen: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::serve(binary(variables), Stdio::null(), listen, arguments)
    }

    /// Starts a relay that is given a socket, as systemd gives it.
    pub(crate) fn start_on(socket: &TcpListener, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let listen = socket.local_addr().expect("it is bound").to_string();
        Self::serve(with_a_socket(variables), as_input(socket), &listen, arguments)
    }

    /// Starts a relay that is given a socket, and is to listen elsewhere; returns what it says of that.
    pub(crate) fn refused_on(socket: &TcpListener, listen: &str) -> String {
        let mut command = with_a_socket(&[]);
        let child = spawn(command.args(["serve", "--listen", listen]), as_input(socket));
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    fn serve(mut command: Command, input: Stdio, listen: &str, arguments: &[&str]) -> Self {
        let serve = ["serve", "--listen", listen];
        let mut child = spawn(command.args(serve).args(arguments), input);
        let mut stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        let (told, listens) = std::sync::mpsc::channel();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let mut from = 0;
            while stderr.read_line(&mut log).expect("UTF-8") > 0 {
                let line = &log[from..];
                if line.contains("listening")
                    && let Some(at) = line.find("http://").or_else(|| line.find("https://"))
                {
                    let is_end = |character: char| character == '"' || character.is_whitespace();
                    // Nobody may wait for it any more.
                    let _ = told.send(line[at..].split(is_end).next().unwrap_or_default().to_owned());
                }
                from = log.len();
            }
            log
        });
        // One that logs little does not say where it listens; then it was told.
        let url = match SocketAddr::from_str(listen) {
            Ok(address) if address.port() > 0 => {
                while std::net::TcpStream::connect(address).is_err() {
                    assert!(child.try_wait().expect("it was started").is_none(), "the relay ended early");
                    std::thread::yield_now();
                }
                format!("http://{address}")
            }
            _ => listens.recv().expect("the relay says where it listens"),
        };
        Self { child, log: Some(log), url }
    }

    /// Starts a relay on a free port with a terminal, and returns what it printed on standard output, and on
    /// the terminal.
    pub(crate) fn greeting(variables: &[(&str, &str)]) -> (String, String) {
        // Opens a terminal for standard error, reads up to the last line of the greeting, and ends the relay.
        const SCRIPT: &str = r#"
import os, pty, subprocess, sys
ours, its = pty.openpty()
relay = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=its)
os.close(its)
seen = b""
while seen.count(b"curl") < 2 or not seen.endswith(b"\n"):
    seen += os.read(ours, 4096)
relay.terminate()
printed = relay.communicate()[0]
os.write(2, seen)
os.write(1, printed)
"#;
        let relay = binary(variables);
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(relay.get_program()).args(["serve", "--listen", "127.0.0.1:0"]);
        // As `binary` has it, but for what finds the interpreter.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).envs(variables.iter().copied());
        let output = command.output().expect("there is a python3");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(output.stdout), text(output.stderr))
    }

    /// Starts a relay at an address, and waits until it is ready.
    pub(crate) async fn ready_at(listen: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let own = |text: &&str| (*text).to_owned();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (own(name), own(value))).collect();
        let (listen, arguments): (_, Vec<_>) = (listen.to_owned(), arguments.iter().map(own).collect());
        let start = spawn_blocking(move || {
            let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            Self::start_at(&listen, &variables, &arguments)
        });
        let relay = start.await.expect("it starts");
        let address = relay.address();
        let is_ready =
            async || try_send(address, "GET", "/ready", &[], b"").await.is_some_and(|a| a.status == 200);
        eventually(SOON, is_ready).await;
        relay
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let (_, address) = self.url.split_once("://").expect("a URL");
        address.trim_end_matches('/').parse().expect("an address")
    }

    /// Returns how much memory the process holds.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Returns how many files the process has open, sockets included.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Lets the process have so many more files open than it has, and no more.
    pub(crate) fn leave_files(&self, more: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};

        let most = Some(self.open_files() as u64 + more);
        let limit = Rlimit { current: most, maximum: most };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).expect("it is ours");
    }

    /// Returns the names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let names = threads.flatten().map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names.flatten().map(|name| name.trim().to_owned()).collect()
    }

    /// Runs a command against this relay.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Ended {
        run(&[("TIDEMILL_URL", &self.url)], arguments, input)
    }

    /// Runs a command against the relay, which must succeed, and returns what it prints, byte for byte.
    pub(crate) fn run_for_bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let child = spawn(binary(&[("TIDEMILL_URL", &self.url)]).args(arguments), Stdio::null());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    }

    /// Sends the process a signal: to freeze it, or to end that.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        super::signals::send(&self.child, signal);
    }

    /// Tells the relay to stop, and returns its exit code and what it logged.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        self.signal(rustix::process::Signal::TERM);
        let code = self.child.wait().expect("it ends").code();
        let log = self.log.take().expect("it is stopped once").join().expect("reading does not panic");
        (code, log)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
