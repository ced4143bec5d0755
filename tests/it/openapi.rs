//! The description of the API against the relay that it describes: as a validator reads it, as clients are
//! generated from it, as its page offers it to be tried, and as schemathesis attacks it.
//!
//! Tools and what they need are listed in `tests/openapi`; `scripts/test` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::support::length::{pick, tell};
use crate::support::relay::{Answer, STUCK, TestRelay, memory};

/// Where the tools and their settings are described.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");

/// The content type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// Returns the folder of packages that a variable names, or `None` (with a line on standard error) where
/// it names none.
fn packages(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "{variable} names no packages: in CI a skipped test is a failure");
        eprintln!("skipped: {variable} names no packages; scripts/test installs them");
    }
    folder
}

/// Returns the Python that has the packages, as a command in a folder.
fn python(packages: &Path, folder: &Path) -> Command {
    let own = packages.join("bin/python");
    let mut command = Command::new(if own.exists() { own.as_path() } else { Path::new("python3") });
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder);
    command
}

/// Runs a command to its end.
///
/// # Panics
/// It failed.
async fn run(mut command: Command) -> String {
    let name = format!("{command:?}");
    let done = spawn_blocking(move || command.output()).await.expect("it ends");
    let done = done.unwrap_or_else(|error| panic!("{name}: {error}"));
    let printed = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success(), "{name} failed:\n{printed}");
    printed
}

/// A relay, with its description in a file.
struct Described {
    relay: TestRelay,
    folder: tempfile::TempDir,
    url: String,
}

impl Described {
    async fn start() -> Self {
        let relay = TestRelay::start(memory()).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let document = relay.get("/openapi.json").await;
        std::fs::write(folder.path().join("openapi.json"), &document.body).expect("the folder is ours");
        let url = format!("http://{}", relay.address);
        Self { relay, folder, url }
    }

    /// Copies a file of the tests beside the description.
    fn copy(&self, name: &str) {
        let to = self.folder.path().join(name);
        std::fs::copy(Path::new(FOLDER).join(name), to).expect("the file is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_valid() {
    let Some(packages) = packages("TIDEMILL_TEST_PYTHON") else { return };
    let described = Described::start().await;
    let mut validator = python(&packages, described.folder.path());
    validator.args(["-m", "openapi_spec_validator", "openapi.json"]);
    run(validator).await;
    described.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_client_in_python_publishes_and_reads() {
    let Some(packages) = packages("TIDEMILL_TEST_PYTHON") else { return };
    let described = Described::start().await;
    let mut generator = python(&packages, described.folder.path());
    generator.args(["-m", "openapi_python_client", "generate", "--path", "openapi.json"]);
    generator.args(["--output-path", "generated", "--meta", "none"]);
    run(generator).await;
    described.copy("client.py");
    let mut client = python(&packages, described.folder.path());
    client.args(["client.py", &described.url]);
    assert!(run(client).await.contains("published and read"));
    described.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_client_in_typescript_publishes_and_reads() {
    let Some(packages) = packages("TIDEMILL_TEST_NODE") else { return };
    let described = Described::start().await;
    let folder = described.folder.path();
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules"))
        .expect("the folder is ours");
    described.copy("client.ts");
    described.copy("package.json");
    let node = |arguments: &[&str]| {
        let mut command = Command::new("node");
        command.args(arguments).current_dir(folder);
        command
    };
    run(node(&["node_modules/openapi-typescript/bin/cli.js", "openapi.json", "-o", "generated.ts"])).await;
    let options = ["--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2023"];
    let compiler = ["node_modules/typescript/bin/tsc", "client.ts", "--outDir", "out"];
    run(node(&[&compiler[..], &options].concat())).await;
    assert!(run(node(&["out/client.js", &described.url])).await.contains("published and read"));
    described.relay.stop().await;
}

/// What is not held against the relay, and why, stands in `tests/openapi/schemathesis.toml`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing() {
    let Some(packages) = packages("TIDEMILL_TEST_PYTHON") else { return };
    let described = Described::start().await;
    let examples = pick("10", "200");
    // The short form sends the same each time.
    let dice = pick(&["--generation-deterministic"][..], &[]);
    let mut attack = python(&packages, described.folder.path());
    for name in ["hooks.py", "schemathesis.toml"] {
        described.copy(name);
    }
    attack.env("SCHEMATHESIS_HOOKS", "hooks");
    attack.args(["-c", "from schemathesis.cli import schemathesis; schemathesis()"]);
    attack.args(["--config-file", "schemathesis.toml", "run", "openapi.json", "--url", &described.url]);
    attack.args(["--max-examples", examples, "--request-timeout", "20"]);
    attack.args(["--continue-on-failure", "--no-color"]).args(dice);
    let told = run(attack).await;
    let cases = told.lines().find(|line| line.contains(" generated,")).expect("it counts").trim();
    tell(format_args!("schemathesis, {examples} examples an operation: {cases}"));
    described.relay.stop().await;
}

/// Sends what the page of the description sends when its buttons are pressed, in the order of the page,
/// to a relay that has nothing yet.
#[tokio::test]
async fn every_example_works_as_it_stands() {
    let relay = TestRelay::start(memory()).await;
    let document = relay.get("/openapi.json").await.json();
    let (mut sent, mut left_out) = (Vec::new(), Vec::new());
    // The page shows operations by tag.
    for tag in document["tags"].as_array().expect("tags") {
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                if operation["tags"][0] != tag["name"] {
                    continue;
                }
                let id = operation["operationId"].as_str().expect("an id");
                let Some(target) = target_of(path, operation) else {
                    left_out.push(path.to_owned());
                    continue;
                };
                let contents = operation["requestBody"]["content"].as_object();
                let kinds = contents.into_iter().flatten().map(|(kind, content)| {
                    let example = content.get("example").unwrap_or_else(|| panic!("{id} has no {kind}"));
                    let text = example.as_str().filter(|_| kind != "application/json");
                    let text = text.map_or_else(|| example.to_string(), str::to_owned);
                    (kind.as_str(), if kind == FORM { form_of(example) } else { text })
                });
                let mut bodies: Vec<_> = kinds.collect();
                if bodies.is_empty() {
                    bodies.push(("", String::new()));
                }
                for (kind, body) in bodies {
                    let accept = wanted(operation);
                    let answer =
                        head_of(&relay, &method.to_uppercase(), &target, [kind, &accept], &body).await;
                    let is_good = match id {
                        // The settings are those of the test, of which the relay is a part: it has none to read again.
                        "reload" => answer.status == 409,
                        // The page has told it to drain before.
                        "ready" if sent.iter().any(|id| id == "drain") => answer.status == 503,
                        _ => (200..300).contains(&answer.status),
                    };
                    assert!(is_good, "{id} with {kind} {body}: {answer:?}");
                }
                sent.push(id.to_owned());
            }
        }
    }
    let is_unknown = |path: &String| {
        let unknown = [
            "{message_id}",
            "{schedule_id}",
            "{bucket}",
            "{lock}",
            "{lease}",
            "{session}",
            "{series}",
            "{room}",
            "{group}",
            "/recurring/{name}",
            "{token_id}",
            "/users/{name}",
            "/users/{user_id}",
        ];
        unknown.iter().any(|part| path.contains(part))
    };
    assert!(
        left_out.iter().all(is_unknown),
        "nobody knows which messages, schedules, keys, locks, groups, tokens and users there are, but of {left_out:?}"
    );
    assert!(sent.len() > 15, "the operations are found: {sent:?}");
    // What was accepted was kept, too.
    let page = relay.get("/api/v1/topics/earthquakes/messages?limit=100").await.json();
    assert!(page["total"].as_u64() >= Some(5), "{page}");
    relay.stop().await;
}

/// Returns an example as the page sends it as a form.
fn form_of(example: &Value) -> String {
    let fields = example.as_object().expect("an object").iter();
    let fields = fields.map(|(name, value)| (name, value.as_str().expect("a text")));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Returns the path with the examples of its parameters, if those that must be there have any.
fn target_of(path: &str, operation: &Value) -> Option<String> {
    let (mut target, mut query) = (path.to_owned(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().expect("a name");
        match (parameter["example"].as_str(), parameter["in"].as_str()) {
            (Some(example), Some("path")) => target = target.replace(&format!("{{{name}}}"), example),
            (Some(example), Some("query")) => query.push(format!("{name}={example}")),
            (Some(_), _) => panic!("{name} stands elsewhere"),
            (None, _) if parameter["required"] == true => return None,
            (None, _) => {}
        }
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    Some(target + &query)
}

/// Returns the content type that the page asks for: the first of the answer that succeeds.
fn wanted(operation: &Value) -> String {
    let answers = operation["responses"].as_object().into_iter().flatten();
    let mut good = answers.filter(|(status, _)| status.starts_with('2'));
    let kinds = good.find_map(|(_, answer)| answer["content"].as_object()?.keys().next().cloned());
    kinds.unwrap_or_else(|| "*/*".to_owned())
}

/// Sends a request, and returns the head of the answer; a live stream has no end that could be waited for.
async fn head_of(relay: &TestRelay, method: &str, target: &str, kinds: [&str; 2], body: &str) -> Answer {
    let [kind, accept] = kinds;
    let kind = if kind.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n{kind}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = relay.connect().await;
    stream.write_all(request.as_bytes()).await.expect("the relay reads");
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(timeout(STUCK, stream.read_u8()).await.expect("in time").expect("an answer"));
    }
    Answer::parse(&bytes)
}
