//! The saver for `LangGraph` in `examples/langgraph` against the binary: the suite that `LangGraph` has for savers, whose
//! clauses all hold, and what the saver says of forks, lost answers and restarts beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use crate::support::process::Relay;

/// What is installed, and the folder in which it lies, both within the repository, in whose root tests run.
const LIST: &str = "tests/langgraph/packages.txt";
const FOLDER: &str = "target/packages/langgraph";

/// What the suite prints at its end.
const ALL_HOLD: &str = "all 81 clauses hold";

/// Installs the packages; `false` (with a line on standard error) where they cannot be had.
async fn packages_are_there() -> bool {
    let install = || Command::new("scripts/packages").args([LIST, FOLDER]).stdin(Stdio::null()).status();
    let status = spawn_blocking(install).await.expect("no panic");
    let are_there = status.is_ok_and(|status| status.success());
    if !are_there {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "{LIST} cannot be installed: in CI a skipped test is a failure");
        eprintln!("skipped: {LIST} cannot be installed");
    }
    are_there
}

/// Returns the Python that has them, in the folder of the saver.
fn python() -> Command {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let own = packages.join("bin/python");
    // Without `venv` the packages lie in the folder itself.
    let mut command = Command::new(if own.is_file() { own } else { PathBuf::from("python3") });
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command.current_dir("examples/langgraph").stdin(Stdio::null());
    command
}

/// Runs a script to its end, and returns what it has printed.
///
/// # Panics
/// It fails.
fn run(command: &mut Command) -> String {
    let ended = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{told}");
    told
}

/// Runs the suite, and the tests that the saver brings, against a relay with these settings; `of_tests` are variables
/// of the latter.
fn holds(variables: &[(&str, &str)], of_tests: &[(&str, &str)]) {
    let relay = Relay::start(variables, &[]);
    let told = run(python().args(["conformance.py", &relay.url]));
    assert!(told.contains(ALL_HOLD), "{told}");
    let mut tests = python();
    tests.args(["-m", "unittest", "test_tidemill_checkpoint"]).env("TIDEMILL_URL", &relay.url);
    tests.env_remove("TIDEMILL_BIN").env_remove("VALKEY_URL").envs(of_tests.iter().copied());
    run(&mut tests);
    assert_eq!(relay.stop().0, Some(0));
}

/// In one test, so that the packages are installed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_saver_holds_what_langgraph_asks_of_savers() {
    if !packages_are_there().await {
        return;
    }
    let in_memory = || holds(&[("STORAGE_BACKEND", "memory")], &[]);
    spawn_blocking(in_memory).await.expect("no panic");
    #[cfg(feature = "valkey")]
    {
        use crate::support::server::{Kind, Server};

        let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
        let url = format!("redis://127.0.0.1:{}", server.port());
        let with_valkey = move || {
            // The example is run through a restart of a relay of its own.
            let binary = env!("CARGO_BIN_EXE_tidemill");
            holds(
                &[("STORAGE_BACKEND", "valkey"), ("VALKEY_URL", &url)],
                &[("TIDEMILL_BIN", binary), ("VALKEY_URL", &url)],
            );
        };
        spawn_blocking(with_valkey).await.expect("no panic");
    }
}
