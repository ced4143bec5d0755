//! The client of pulsar-relay and the application that takes jobs with it, as their makers give them out, against the
//! binary: what sites do with them works unchanged, and goes on over a restart of the relay.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use tokio::task::spawn_blocking;

use crate::support::process::Relay;
use crate::support::server::free_port;

/// What is installed: its list, and the folder in which it lies, both within the repository, in whose root tests run.
struct Packages {
    list: &'static str,
    folder: &'static str,
}

const CLIENT: Packages =
    Packages { list: "tests/pulsar/packages.txt", folder: "target/packages/pulsar-python" };
const APPLICATION: Packages =
    Packages { list: "tests/pulsar/app-packages.txt", folder: "target/packages/pulsar-app-python" };

/// The settings of a site that has pulsar-relay, as it has them.
const SETTINGS: [(&str, &str); 5] = [
    ("PULSAR_BOOTSTRAP_ADMIN_USERNAME", "root"),
    ("PULSAR_BOOTSTRAP_ADMIN_PASSWORD", "correct horse"),
    ("PULSAR_BOOTSTRAP_ADMIN_EMAIL", "root@example.com"),
    ("PULSAR_JWT_SECRET_KEY", "0123456789abcdef0123456789abcdef"),
    ("PULSAR_LOG_LEVEL", "INFO"),
];

impl Packages {
    /// Installs them; `false` (with a line on standard error) where they cannot be had.
    async fn are_there(&'static self) -> bool {
        let install = || {
            let mut install = Command::new("scripts/packages");
            install.args([self.list, self.folder]).stdin(Stdio::null()).status()
        };
        let status = spawn_blocking(install).await.expect("no panic");
        let are_there = status.is_ok_and(|status| status.success());
        if !are_there {
            let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!in_ci, "{} cannot be installed: in CI a skipped test is a failure", self.list);
            eprintln!("skipped: {} cannot be installed", self.list);
        }
        are_there
    }

    /// Returns the Python that has them.
    fn python(&self) -> Command {
        let own = Path::new(self.folder).join("bin/python");
        // Without `venv` the packages lie in the folder itself.
        let mut command = Command::new(if own.is_file() { own } else { PathBuf::from("python3") });
        command.env("PYTHONPATH", self.folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The script that runs the client. Dropping it kills it.
struct Script {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
}

impl Script {
    fn start(url: &str, folder: &Path, keeps: &str) -> Self {
        let mut command = CLIENT.python();
        command.arg("tests/pulsar/client.py").arg(url).arg(folder).arg(keeps);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        let stderr = child.stderr.take().expect("it was asked for");
        Self { child, stdin, stdout, stderr: Some(std::thread::spawn(move || all_of(stderr))) }
    }

    /// Waits for a line.
    ///
    /// # Panics
    /// It is another one, or the script has failed.
    fn expect(&mut self, expected: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        if line.trim_end() == expected {
            return;
        }
        drop(self.child.kill());
        let told = self.stderr.take().map(|stderr| stderr.join().expect("reading does not panic"));
        panic!("{line:?} in place of {expected:?}: {}", told.unwrap_or_default());
    }

    fn go_on(&mut self) {
        writeln!(self.stdin).expect("it waits for that");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn all_of(mut stderr: ChildStderr) -> String {
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("UTF-8");
    text
}

/// Runs the client against a relay with these settings, which is stopped and started once.
fn works_unchanged(variables: &[(&str, &str)], keeps: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let listen = format!("127.0.0.1:{}", free_port());
    let variables = [&SETTINGS[..], variables].concat();
    let relay = Relay::start_at(&listen, &variables, &[]);
    let mut script = Script::start(&relay.url, folder.path(), keeps);
    script.expect("restart");
    let (code, log) = relay.stop();
    assert_eq!(code, Some(0), "{log}");
    for secret in ["correct horse", "correct battery", "0123456789abcdef0123"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
    let is_no_word = |character: char| !character.is_ascii_alphanumeric() && character != '_';
    let is_token = |word: &str| word.len() >= 60 && (word.starts_with("ta_") || word.starts_with("tr_"));
    assert!(!log.split(is_no_word).any(is_token), "a token is in {log}");
    let relay = Relay::start_at(&listen, &variables, &[]);
    script.go_on();
    script.expect("went on");
    assert_eq!(relay.stop().0, Some(0));
}

/// In one test, so that the client is installed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_pulsar_relay_works_unchanged() {
    if !CLIENT.are_there().await {
        return;
    }
    let in_memory = || works_unchanged(&[("PULSAR_STORAGE_BACKEND", "memory")], "forgets");
    spawn_blocking(in_memory).await.expect("no panic");
    #[cfg(feature = "valkey")]
    {
        use crate::support::server::{Kind, Server};

        let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
        let port = server.port().to_string();
        let with_valkey = move || {
            let variables = [("PULSAR_STORAGE_BACKEND", "valkey"), ("PULSAR_VALKEY_PORT", &*port)];
            works_unchanged(&variables, "keeps");
        };
        spawn_blocking(with_valkey).await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_of_pulsar_takes_a_job_and_tells_of_it() {
    if !APPLICATION.are_there().await {
        return;
    }
    let run = || {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let relay = Relay::start(&SETTINGS, &[]);
        let mut command = APPLICATION.python();
        command.arg("tests/pulsar/app.py").arg(&relay.url).arg(folder.path()).stdin(Stdio::null());
        let ended = command.output().expect("it runs");
        let told = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        assert!(ended.status.success() && told.contains("a job ran"), "{told}");
        assert_eq!(relay.stop().0, Some(0));
    };
    spawn_blocking(run).await.expect("no panic");
}
