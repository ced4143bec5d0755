//! The documents: their commands are run against a real relay, their sample settings are loaded, and
//! their lists are compared with the code that they describe.
//!
//! A block of a document that is marked `sh run` is run, in the order of the page; the block after it
//! that is marked `output` says what it prints, where `…` stands for anything.
//!
//! Long because: it has the lists of all pages, settings and limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use tidemill::config::{
    CA_CERT_VARIABLE, CONFIG_VARIABLE, Environment, Flags, Settings, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE,
    URL_VARIABLE, known,
};
use tidemill::proto::limits;

mod audit;
mod cluster;
mod commands;
mod export;
mod leases;
mod locks;
mod metrics;
mod page;
mod problems;
mod series;
mod settings;
mod takes;

use crate::support::process::{Relay, run_line};
use crate::support::server::{Kind, Server};
use page::{Block, blocks, matches};

/// Every document, by its path in the repository.
const PAGES: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "examples/README.md",
    "examples/langgraph/README.md",
    "deploy/kubernetes/README.md",
    "docs/README.md",
    "docs/getting-started.md",
    "docs/install.md",
    "docs/http-api.md",
    "docs/websocket-api.md",
    "docs/work.md",
    "docs/delays.md",
    "docs/keys.md",
    "docs/presence.md",
    "docs/leases.md",
    "docs/limits.md",
    "docs/series.md",
    "docs/locks.md",
    "docs/client.md",
    "docs/access.md",
    "docs/console.md",
    "docs/cli.md",
    "docs/operations.md",
    "docs/valkey.md",
    "docs/moving.md",
    "docs/bounds.md",
    "docs/export.md",
    "docs/proxies.md",
    "docs/tls.md",
    "docs/guarantees.md",
    "docs/faults.md",
    "docs/problems.md",
    "docs/metrics.md",
    "docs/traces.md",
    "docs/settings.md",
    "docs/comparison.md",
    "docs/performance.md",
    "docs/scaling.md",
    "docs/from-pulsar-relay.md",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(page: &str) -> String {
    fs::read_to_string(root().join(page)).expect("the page is in the repository")
}

/// The address that the documents name.
const URL_IN_DOCUMENTS: &str = "http://127.0.0.1:8080";

/// The password of the administrator of a page's relay, where it has one.
const ADMIN_PASSWORD: &str = "correct horse battery";

/// Runs a block of a document in `folder`, and returns its status and all that it printed.
fn run_block(relay: &Relay, block: &str, folder: &Path) -> (ExitStatus, String) {
    let url = format!("http://{}", relay.address());
    let block = block.replace(URL_IN_DOCUMENTS, &url);
    let script = format!("tidemill() {{ \"$TIDEMILL_HERE\" \"$@\"; }}\n{block}");
    let done = Command::new("bash")
        .args(["-euc", &script])
        .env("TIDEMILL_HERE", env!("CARGO_BIN_EXE_tidemill"))
        .env("TIDEMILL_URL", url)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell");
    let printed = [done.stdout, done.stderr].concat();
    (done.status, String::from_utf8_lossy(&printed).into_owned())
}

/// Runs the blocks of a page that are marked for it, one after the other, against one relay.
async fn run_page(page: &str, variables: &[(&str, &str)]) {
    let text = text_of(page);
    let blocks = blocks(&text);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let examples = folder.path().join("examples");
    std::os::unix::fs::symlink(root().join("examples"), examples).expect("the folder is ours");
    fs::write(folder.path().join("admin.txt"), format!("{ADMIN_PASSWORD}\n")).expect("the folder is ours");
    let relay = Relay::ready_at("127.0.0.1:0", variables, &[]).await;
    let mut ran = 0;
    for (at, Block { marks, text }) in blocks.iter().enumerate() {
        // Node need not be there.
        let has_node = || Command::new("node").arg("--version").output().is_ok();
        if marks != "sh run" && !(marks == "sh run node" && has_node()) {
            continue;
        }
        ran += 1;
        let (status, output) = run_block(&relay, text, folder.path());
        assert!(status.success(), "{page}: {status}\n{text}\n{output}");
        let Some(expected) = blocks.get(at + 1).filter(|next| next.marks.ends_with(" output")) else {
            continue;
        };
        assert!(
            matches(expected.text.trim_end(), output.trim_end()),
            "{page}: the block\n{text}\nprinted\n{output}\nand not\n{}",
            expected.text
        );
    }
    assert!(ran > 0, "{page} has no block that is run");
}

/// Runs a page against a relay with a Valkey of its own.
async fn run_page_with_valkey(page: &str) {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let port = server.port().to_string();
    let variables = [("STORAGE_BACKEND", "valkey"), ("VALKEY_HOST", "127.0.0.1"), ("VALKEY_PORT", &port)];
    run_page(page, &variables).await;
}

#[test]
fn the_page_on_tls_does_what_it_says() {
    let text = text_of("docs/tls.md");
    let marked: Vec<_> = blocks(&text).into_iter().filter(|block| block.marks == "sh tls").collect();
    let [make, ask] = marked.as_slice() else { panic!("there is one block to begin with, and one to go on") };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    assert_eq!(run_line(&make.text, folder.path()).code, Some(0));
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let paths = [&certificate, &key].map(|path| path.to_str().expect("a path in UTF-8"));
    let relay = Relay::start(&[], &["--tls-cert", paths[0], "--tls-key", paths[1]]);
    let port = relay.address().port();
    let ended = run_line(&ask.text.replace(":8443", &format!(":{port}")), folder.path());
    let lines = ended.lines();
    assert_eq!(lines.len(), 3, "an id, a message and a page: {ended:?}");
    assert!(lines[1..].iter().all(|line| line.contains("3.1")), "{ended:?}");
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    run_page("README.md", &[]).await;
}

#[tokio::test]
async fn the_readme_does_what_it_says_with_valkey() {
    run_page_with_valkey("README.md").await;
}

#[tokio::test]
async fn the_first_steps_do_what_they_say() {
    run_page("docs/getting-started.md", &[]).await;
}

#[tokio::test]
async fn the_first_steps_do_what_they_say_with_valkey() {
    run_page_with_valkey("docs/getting-started.md").await;
}

#[tokio::test]
async fn the_page_on_delays_does_what_it_says() {
    run_page("docs/delays.md", &[]).await;
}

#[tokio::test]
async fn the_page_on_delays_does_what_it_says_with_valkey() {
    run_page_with_valkey("docs/delays.md").await;
}

#[tokio::test]
async fn the_page_on_keys_does_what_it_says() {
    run_page("docs/keys.md", &[]).await;
}

#[tokio::test]
async fn the_page_on_keys_does_what_it_says_with_valkey() {
    run_page_with_valkey("docs/keys.md").await;
}

#[tokio::test]
async fn the_page_on_presence_does_what_it_says() {
    run_page("docs/presence.md", &[]).await;
}

#[tokio::test]
async fn the_page_on_presence_does_what_it_says_with_valkey() {
    run_page_with_valkey("docs/presence.md").await;
}

#[tokio::test]
async fn the_page_on_access_does_what_it_says() {
    run_page("docs/access.md", &[("TIDEMILL_ADMIN_PASSWORD", ADMIN_PASSWORD)]).await;
}

#[tokio::test]
async fn the_page_on_pulsar_relay_does_what_it_says() {
    let variables =
        [("PULSAR_BOOTSTRAP_ADMIN_USERNAME", "admin"), ("PULSAR_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD)];
    run_page("docs/from-pulsar-relay.md", &variables).await;
}

#[test]
fn every_page_is_looked_at() {
    let mut found = BTreeSet::new();
    for folder in ["", "docs", "examples", "examples/langgraph", "deploy/kubernetes"] {
        for entry in fs::read_dir(root().join(folder)).expect("the folder can be read") {
            let name = entry.expect("the folder can be read").file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
                found.insert(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            }
        }
    }
    assert_eq!(found, PAGES.iter().map(|page| (*page).to_owned()).collect());
}

#[test]
fn the_start_page_leads_to_every_page() {
    let start = text_of("docs/README.md");
    for page in PAGES.iter().filter_map(|page| page.strip_prefix("docs/")).filter(|page| *page != "README.md")
    {
        assert!(start.contains(&format!("({page}")), "docs/README.md does not lead to {page}");
    }
}

#[test]
fn links_lead_somewhere() {
    for page in PAGES {
        let text = text_of(page);
        let folder = root().join(page).parent().expect("a page is in a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root().join(page) } else { folder.join(path) };
            assert!(file.exists(), "{page} links to {target}");
            if !heading.is_empty() {
                let linked = fs::read_to_string(&file).expect("a linked page is text");
                assert!(anchors(&linked).contains(heading), "{page} links to {target}");
            }
        }
    }
}

/// Returns the anchors of a page's headings, as GitHub makes them: small letters, without what is neither a letter, a
/// digit, a blank, `-` nor `_`, with `-` for each blank; and a number behind one that was there before.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut is_code = false;
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if is_code || !(1..=6).contains(&level) || line.as_bytes().get(level) != Some(&b' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let text: String = line[level..].trim().to_lowercase().chars().filter(kept).collect();
        let text = text.replace(' ', "-");
        let numbered = (1..).map(|number| format!("{text}-{number}"));
        let anchor = std::iter::once(text.clone()).chain(numbered).find(|anchor| !anchors.contains(anchor));
        anchors.extend(anchor);
    }
    anchors
}

#[test]
fn anchors_are_those_of_github() {
    let page = "# A page\n## `GET /api/v1/stream`\n## Words, and more\n### A page\n```sh\n# no heading\n```\n#none\n## snake_case `x`";
    let expected = ["a-page", "get-apiv1stream", "words-and-more", "a-page-1", "snake_case-x"];
    assert_eq!(anchors(page), expected.map(str::to_owned).into());
}

#[test]
fn sample_settings_are_settings() {
    let mut seen = 0;
    for page in PAGES {
        let text = text_of(page);
        for block in blocks(&text).iter().filter(|block| block.marks == "toml settings") {
            seen += 1;
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let secret = folder.path().join("password");
            fs::write(&secret, "correct horse\n").expect("the folder is ours");
            let secret = secret.display().to_string();
            let sample = block.text.replace("/run/secrets/valkey_password", &secret);
            let sample = sample.replace("/run/secrets/admin_password", &secret);
            let file = folder.path().join("tidemill.toml");
            fs::write(&file, sample).expect("the folder is ours");
            let flags = Flags { config: Some(file), ..Flags::default() };
            if let Err(error) = Settings::load(&flags, &Environment::new()) {
                panic!("{page}: {error}");
            }
        }
    }
    assert!(seen > 0, "no page has sample settings");
}

/// Returns the rows of a page's tables, as cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let line = line.replace("\\|", "\u{0}");
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
        })
        .collect()
}

/// Returns what stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn what_is_explained_as_a_setting_is_one() {
    let variables: BTreeSet<_> = known().iter().map(|setting| setting.variable.as_str()).collect();
    for page in ["README.md", "docs/operations.md"] {
        for row in self::rows(&text_of(page)) {
            for name in quoted(&row[0]).into_iter().filter(|name| is_variable(name)) {
                let is_ours = variables.contains(name)
                    || [CONFIG_VARIABLE, URL_VARIABLE, CA_CERT_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE]
                        .contains(&name);
                assert!(is_ours, "{page} explains {name}, which is no setting");
            }
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn every_limit_stands_with_its_number() {
    let text = text_of("docs/guarantees.md");
    let rows = rows(&text);
    let source = text_of("proto/src/limits.rs");
    let names: Vec<_> =
        source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": ")).collect();
    assert!(names.len() > 10, "the limits are found");
    for (name, _) in names.into_iter().filter(|(name, _)| !name.starts_with("fn ")) {
        let Some((_, value)) = LIMITS.iter().find(|(known, _)| *known == name) else {
            panic!("{name} is new: add it to LIMITS in this test, and to docs/guarantees.md")
        };
        let row = rows.iter().find(|row| row.get(2).is_some_and(|cell| quoted(cell) == [name]));
        let Some(row) = row else { panic!("{name} does not stand in docs/guarantees.md") };
        let number: String = row[1].chars().filter(char::is_ascii_digit).collect();
        assert_eq!(number, value.to_string(), "{name}");
    }
}

const LIMITS: &[(&str, u64)] = &[
    ("TOPIC_NAME_BYTES_MAX", limits::TOPIC_NAME_BYTES_MAX as u64),
    ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
    ("TOPIC_PATTERN_STARS_MAX", limits::TOPIC_PATTERN_STARS_MAX as u64),
    ("BULK_MESSAGES_MAX", limits::BULK_MESSAGES_MAX as u64),
    ("NDJSON_LINES_MAX", limits::NDJSON_LINES_MAX as u64),
    ("PAGE_MESSAGES_MAX", limits::PAGE_MESSAGES_MAX as u64),
    ("SESSIONS_PAGE_MAX", limits::SESSIONS_PAGE_MAX as u64),
    ("SESSIONS_PAGE_DEFAULT", limits::SESSIONS_PAGE_DEFAULT as u64),
    ("SLOW_PAGE_MAX", limits::SLOW_PAGE_MAX as u64),
    ("SLOW_PAGE_DEFAULT", limits::SLOW_PAGE_DEFAULT as u64),
    ("PAGE_MESSAGES_DEFAULT", limits::PAGE_MESSAGES_DEFAULT as u64),
    ("PAGE_BYTES_MAX", limits::PAGE_BYTES_MAX as u64),
    ("POLL_TOPICS_MAX", limits::POLL_TOPICS_MAX as u64),
    ("POLL_SECONDS_MAX", limits::POLL_SECONDS_MAX),
    ("POLL_SECONDS_DEFAULT", limits::POLL_SECONDS_DEFAULT),
    ("DELAY_SECONDS_MAX", limits::DELAY_SECONDS_MAX),
    ("SCHEDULES_PAGE_MAX", limits::SCHEDULES_PAGE_MAX as u64),
    ("SCHEDULES_PAGE_DEFAULT", limits::SCHEDULES_PAGE_DEFAULT as u64),
    ("RECURRING_NAME_BYTES_MAX", limits::RECURRING_NAME_BYTES_MAX as u64),
    ("RECURRING_MAX", limits::RECURRING_MAX as u64),
    ("CRON_BYTES_MAX", limits::CRON_BYTES_MAX as u64),
    ("TIME_ZONE_BYTES_MAX", limits::TIME_ZONE_BYTES_MAX as u64),
    ("TOPICS_PAGE_MAX", limits::TOPICS_PAGE_MAX as u64),
    ("TOPICS_PAGE_DEFAULT", limits::TOPICS_PAGE_DEFAULT as u64),
    ("KEYS_PAGE_MAX", limits::KEYS_PAGE_MAX as u64),
    ("KEYS_PAGE_DEFAULT", limits::KEYS_PAGE_DEFAULT as u64),
    ("BUCKETS_PAGE_MAX", limits::BUCKETS_PAGE_MAX as u64),
    ("KEY_CHANGES_MAX", limits::KEY_CHANGES_MAX as u64),
    ("KEY_HISTORY_MAX", limits::KEY_HISTORY_MAX as u64),
    ("PRESENCE_BYTES_MAX", limits::PRESENCE_BYTES_MAX as u64),
    ("VALUE_BYTES_DEFAULT", limits::VALUE_BYTES_DEFAULT as u64),
    ("COPY_ITEMS_MAX", limits::COPY_ITEMS_MAX as u64),
    ("COPY_STEPS_MAX", limits::COPY_STEPS_MAX as u64),
    ("COPY_STEP_SECONDS_MAX", limits::COPY_STEP_SECONDS_MAX),
    ("LOST_MARKS_MAX", limits::LOST_MARKS_MAX as u64),
    ("IDEMPOTENCY_KEY_BYTES_MAX", limits::IDEMPOTENCY_KEY_BYTES_MAX as u64),
    ("ORDER_KEY_BYTES_MAX", limits::ORDER_KEY_BYTES_MAX as u64),
    ("DURABILITY_REPLICAS_MAX", limits::DURABILITY_REPLICAS_MAX as u64),
    ("DURABILITY_WAIT_MS", limits::DURABILITY_WAIT_MS),
    ("METADATA_BYTES_MAX", limits::METADATA_BYTES_MAX as u64),
    ("ENVELOPE_BYTES_MAX", limits::ENVELOPE_BYTES_MAX as u64),
    ("KEPT_MESSAGES_MAX", limits::KEPT_MESSAGES_MAX),
    ("KEPT_BYTES_MAX", limits::KEPT_BYTES_MAX),
    ("IDLE_SECONDS_MAX", limits::IDLE_SECONDS_MAX),
    ("CANCEL_REASON_BYTES_MAX", limits::CANCEL_REASON_BYTES_MAX as u64),
    ("CONTENT_TYPE_BYTES_MAX", limits::CONTENT_TYPE_BYTES_MAX as u64),
    ("DESCRIPTION_BYTES_MAX", limits::DESCRIPTION_BYTES_MAX as u64),
    ("COMPACT_BY_BYTES_MAX", limits::COMPACT_BY_BYTES_MAX as u64),
    ("JSON_DEPTH_MAX", limits::JSON_DEPTH_MAX as u64),
    ("TTL_SECONDS_MAX", limits::TTL_SECONDS_MAX),
    ("RETENTION_SECONDS_MAX", limits::RETENTION_SECONDS_MAX),
    ("PAYLOAD_BYTES_DEFAULT", limits::PAYLOAD_BYTES_DEFAULT as u64),
    ("LIBRARY_FRAME_BYTES", limits::LIBRARY_FRAME_BYTES as u64),
    ("TEXT_ESCAPED_BYTES_MAX", limits::TEXT_ESCAPED_BYTES_MAX as u64),
];

/// Returns all sources below a folder, one after the other.
fn sources_of(folder: &str) -> String {
    let mut sources = String::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push_str(&fs::read_to_string(path).expect("sources are UTF-8"));
            }
        }
    }
    sources
}

#[test]
fn the_rights_are_given_as_a_command_and_as_a_line_that_lasts() {
    let text = text_of("docs/valkey.md");
    let blocks = blocks(&text);
    let marked =
        |marks: &str| blocks.iter().find(|block| block.marks == marks).expect("it is there").text.trim();
    let command = marked("text acl").strip_prefix("ACL SETUSER ");
    assert!(command.is_some() && command == marked("text acl file").strip_prefix("user "));
}

#[test]
fn every_path_is_documented() {
    let (page, handlers) = (text_of("docs/http-api.md"), sources_of("src/http"));
    let marked = handlers.split("#[utoipa::path(").skip(1);
    let mut seen = 0;
    for path in marked.filter_map(|rest| rest.split("path = \"").nth(1)?.split('"').next()) {
        seen += 1;
        assert!(page.contains(&format!("{path}`")), "docs/http-api.md does not mention {path}");
    }
    assert!(seen > 10, "the handlers are found");
}

#[test]
fn the_tests_of_faults_exist() {
    let sources = sources_of("tests/it");
    for row in rows(&text_of("docs/faults.md")) {
        // The tests stand in the last column, whichever table it is.
        for name in row.last().map(|tests| quoted(tests)).unwrap_or_default() {
            let function = name.rsplit("::").next().unwrap_or(name);
            assert!(sources.contains(&format!("fn {function}(")), "{}: there is no test {name}", row[0]);
        }
    }
}
