//! What is shipped beside the binary: valkey.conf, docker-compose.yml, Dockerfile, deny.toml, units and manifests.
//!
//! The files are parsed and held to their rules, and the real servers are started with the very
//! valkey.conf, and with the very command of docker-compose.yml. No container engine is needed, so
//! nothing here proves that an image builds.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidemill::config::known;

#[cfg(feature = "valkey")]
mod cluster;
mod deploy;
mod rights;

use crate::support::resp::{Connection, Reply};
use crate::support::server::{Kind, Server};

const PASSWORD: &str = "a password of the tests";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text_of(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("the file is in the repository")
}

fn compose() -> Value {
    compose_of("docker-compose.yml")
}

/// Reads a file for compose, with what is merged into mappings (`<<`) in its place.
fn compose_of(name: &str) -> Value {
    fn merged(value: &mut Value) {
        if let Some(Value::Object(defaults)) = value.as_object_mut().and_then(|object| object.remove("<<")) {
            let own = value.as_object_mut().expect("it is an object");
            for (key, default) in defaults {
                own.entry(key).or_insert(default);
            }
        }
        match value {
            Value::Object(object) => object.values_mut().for_each(merged),
            Value::Array(list) => list.iter_mut().for_each(merged),
            _ => {}
        }
    }
    let mut compose =
        serde_saphyr::from_str(&text_of(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    merged(&mut compose);
    compose
}

/// Returns whether the relay reads a variable of this name.
fn is_setting(variable: &str) -> bool {
    known().iter().any(|setting| setting.variable == variable)
}

/// Returns the instructions of a Dockerfile: continued lines in one, without comments.
fn instructions(dockerfile: &str) -> Vec<(String, String)> {
    let kept: Vec<_> = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = kept.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

#[test]
fn the_image_runs_without_rights_and_checks_itself() {
    let all = instructions(&text_of("Dockerfile"));
    let last_stage = all.iter().rposition(|(word, _)| word == "FROM").expect("the file has a stage");
    let (build, run) = all.split_at(last_stage);
    let of_run = |word: &str| run.iter().find(|(name, _)| name == word).map(|(_, rest)| rest.as_str());

    assert!(of_run("FROM").is_some_and(|image| image.contains("distroless") && image.ends_with(":nonroot")));
    assert_eq!(of_run("USER"), Some("65532:65532"));
    assert_eq!(of_run("EXPOSE"), Some("8080"));
    let health = of_run("HEALTHCHECK").expect("the image has a health check");
    assert!(health.ends_with(r#"CMD ["/usr/local/bin/tidemill", "health"]"#), "{health}");
    assert_eq!(of_run("ENTRYPOINT"), Some(r#"["/usr/local/bin/tidemill"]"#));
    assert_eq!(of_run("CMD"), Some(r#"["serve"]"#));
    assert!(
        build
            .iter()
            .any(|(word, rest)| word == "RUN" && rest.contains("cargo build --profile dist --locked"))
    );

    let toolchain = build.iter().find(|(word, _)| word == "FROM").map(|(_, rest)| rest.as_str());
    let manifest: toml::Table = text_of("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let version = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert!(toolchain.is_some_and(|image| image.starts_with(&format!("rust:{version}-"))), "{toolchain:?}");

    for (_, rest) in run.iter().filter(|(word, _)| word == "ENV") {
        let name = rest.split('=').next().unwrap_or_default();
        assert!(is_setting(name), "{name} is no setting");
    }
}

#[test]
fn everything_that_the_image_copies_is_let_through() {
    let ignored = text_of(".dockerignore");
    let lines: Vec<_> = ignored.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(lines.first(), Some(&"*"), "nothing is let through unless it is named");
    for (word, rest) in instructions(&text_of("Dockerfile")) {
        if word != "COPY" || rest.starts_with("--from") {
            continue;
        }
        let parts: Vec<_> = rest.split(' ').collect();
        for source in &parts[..parts.len() - 1] {
            assert!(lines.contains(&format!("!{source}").as_str()), "{source} is kept out by .dockerignore");
            assert!(root().join(source).exists(), "{source} does not exist");
        }
    }
}

/// Checks a service that stays.
fn is_confined_and_checked(name: &str, service: &Value) {
    assert_eq!(service["read_only"], true, "{name}");
    assert_eq!(service["restart"], "unless-stopped", "{name}");
    assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
    assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]), "{name}");
    for key in ["mem_limit", "cpus", "pids_limit", "ulimits", "stop_grace_period"] {
        assert!(!service[key].is_null(), "{name} has no {key}");
    }
    for key in ["test", "interval", "timeout", "retries", "start_period"] {
        assert!(!service["healthcheck"][key].is_null(), "the health check of {name} has no {key}");
    }
    let user = service["user"].as_str().expect("each service names its user");
    assert!(!user.starts_with('0') && user.contains(':'), "{name} runs as {user}");
    assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}");
}

#[test]
fn every_service_is_confined_and_checked() {
    let compose = compose();
    let services = compose["services"].as_object().expect("there are services");
    assert_eq!(services.keys().map(String::as_str).collect::<Vec<_>>(), ["relay", "valkey"]);
    services.iter().for_each(|(name, service)| is_confined_and_checked(name, service));
    let relay = &services["relay"];
    assert_eq!(
        relay["healthcheck"]["test"],
        serde_json::json!(["CMD", "/usr/local/bin/tidemill", "health", "--ready"])
    );
    assert_eq!(relay["depends_on"]["valkey"]["condition"], "service_healthy");
    assert_eq!(relay["ports"], serde_json::json!(["127.0.0.1:8080:8080"]), "it speaks no TLS");

    let valkey = &services["valkey"];
    assert!(valkey["image"].as_str().is_some_and(|image| image.starts_with("valkey/valkey:9")));
    assert!(valkey["ports"].is_null(), "nobody but the relay reaches the server");
    assert_eq!(compose["networks"]["storage"]["internal"], true);
    let volumes = valkey["volumes"].as_array().expect("the server has volumes");
    assert!(volumes.contains(&"./valkey.conf:/etc/valkey/valkey.conf:ro".into()));
    assert!(volumes.contains(&"valkey-data:/data".into()) && !compose["volumes"]["valkey-data"].is_null());
    assert!(root().join("valkey.conf").is_file());
}

/// Checks that services are given secrets as files alone.
fn no_secret_stands_in(compose: &Value) {
    for (name, service) in compose["services"].as_object().expect("there are services") {
        let secrets: &[&str] = if name.starts_with("relay") {
            &["valkey_password", "admin_password"]
        } else {
            &["valkey_password"]
        };
        assert_eq!(service["secrets"], serde_json::json!(secrets), "{name}");
        let environment = service["environment"].as_object().cloned().unwrap_or_default();
        for (variable, value) in environment {
            assert!(is_setting(&variable), "{variable} is no setting");
            let is_secret = ["PASSWORD", "SECRET", "TOKEN"].iter().any(|word| variable.contains(word));
            let is_given = |name: &&str| value == format!("/run/secrets/{name}");
            let from_file = variable.ends_with("_FILE") && secrets.iter().any(is_given);
            assert!(!is_secret || from_file, "{variable} holds a secret");
            assert!(!variable.ends_with("_URL"), "{variable} can hold a password");
        }
    }
    for (name, secret) in compose["secrets"].as_object().expect("there are secrets") {
        assert_eq!(secret["file"], format!("./secrets/{name}"));
    }
}

#[test]
fn no_secret_stands_in_a_shipped_file() {
    no_secret_stands_in(&compose());
    assert!(text_of(".gitignore").lines().any(|line| line == "secrets/"));
    for line in directives(&text_of("valkey.conf")) {
        assert!(
            !matches!(line[0].as_str(), "requirepass" | "masterauth" | "primaryauth" | "user"),
            "{line:?}"
        );
    }
}

/// Returns the lines of a server's configuration, in words, without comments.
fn directives(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn each_group_of_directives_has_its_reason() {
    let mut reason = false;
    for line in text_of("valkey.conf").lines() {
        let is_heading = line.starts_with("# ---");
        if line.starts_with('#') && !is_heading {
            reason = true;
        } else if line.is_empty() || is_heading {
            reason = false;
        } else {
            assert!(reason, "`{line}` stands without a reason");
        }
    }
}

/// What the server must say of itself when it was started with the file.
const EFFECTIVE: &[(&str, &str)] = &[
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("no-appendfsync-on-rewrite", "no"),
    ("aof-use-rdb-preamble", "yes"),
    ("save", "3600 1 300 100000"),
    ("stop-writes-on-bgsave-error", "yes"),
    ("maxmemory", "2147483648"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-clients", "25%"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
    ("lazyfree-lazy-user-del", "yes"),
    ("notify-keyspace-events", "tK"),
    ("timeout", "0"),
    ("tcp-keepalive", "60"),
    ("protected-mode", "yes"),
    ("enable-debug-command", "no"),
    ("enable-module-command", "no"),
    ("enable-protected-configs", "no"),
];

/// Sends a command after logging in, and returns the answer as text: one line per element, an error with
/// its `-`.
async fn ask(server: &Server, command: &[&str]) -> String {
    let mut connection = Connection::open(server.port()).await.expect("the server listens");
    let login = connection.command(&["AUTH", PASSWORD]).await.expect("the server answers");
    assert_eq!(login, Reply::Simple("OK".to_owned()));
    lines_of(&connection.command(command).await.expect("the server answers")).join("\n")
}

fn lines_of(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Array(items) => items.iter().flat_map(lines_of).collect(),
        Reply::Error(text) => vec![format!("-{text}")],
        Reply::Integer(number) => vec![number.to_string()],
        Reply::Null => vec!["(nil)".to_owned()],
        Reply::Simple(_) | Reply::Bulk(_) => vec![reply.text()],
    }
}

/// Checks that the server answers nobody who has not logged in.
async fn wants_a_password(server: &Server) {
    let refused = server.command(&["PING"]).await;
    assert!(matches!(&refused, Reply::Error(text) if text.starts_with("NOAUTH")), "{refused:?}");
}

async fn holds_what_the_file_says(server: &Server) {
    for (name, expected) in EFFECTIVE {
        let answer = ask(server, &["CONFIG", "GET", name]).await;
        assert_eq!(answer, format!("{name}\n{expected}"), "the server took another value");
    }
    let buffers = ask(server, &["CONFIG", "GET", "client-output-buffer-limit"]).await;
    assert!(buffers.contains("pubsub 33554432 8388608 60"), "{buffers}");

    for closed in [
        &["FLUSHALL"][..],
        &["FLUSHDB"],
        &["SWAPDB", "0", "1"],
        &["KEYS", "*"],
        &["MONITOR"],
        &["DEBUG", "SLEEP", "0"],
        &["MODULE", "LOAD", "nothing.so"],
        &["CONFIG", "SET", "dir", "."],
        &["CONFIG", "SET", "dbfilename", "other.rdb"],
    ] {
        let answer = ask(server, closed).await;
        assert!(answer.starts_with("-ERR"), "{closed:?} is open: {answer}");
    }
}

/// Commands that the relay needs, each in a form that succeeds.
const NEEDED: &[&[&str]] = &[
    &["PING"],
    &["CLIENT", "SETNAME", "tidemill"],
    &["INFO"],
    &["TIME"],
    &["ROLE"],
    &["XADD", "stream:topic:t", "MAXLEN", "~", "1000", "1-1", "payload", "{}"],
    &["XADD", "stream:topic:t", "1-2", "payload", "{}"],
    &["XRANGE", "stream:topic:t", "-", "+", "COUNT", "10"],
    &["XREVRANGE", "stream:topic:t", "+", "-", "COUNT", "10"],
    &["XLEN", "stream:topic:t"],
    &["XINFO", "STREAM", "stream:topic:t"],
    &["XGROUP", "CREATE", "stream:topic:t", "g", "$"],
    &["XGROUP", "DESTROY", "stream:topic:t", "g"],
    &["XTRIM", "stream:topic:t", "MINID", "1-2"],
    &["XSETID", "stream:topic:t", "2-0"],
    &["TYPE", "stream:topic:t"],
    &["EXISTS", "stream:topic:t"],
    &["HSET", "meta:topic:t", "description", "d"],
    &["HSETNX", "meta:topic:t", "created_at", "0"],
    &["HGET", "meta:topic:t", "description"],
    &["HGETALL", "meta:topic:t"],
    &["ZADD", "z", "0", "t"],
    &["ZRANGE", "z", "0", "-1"],
    &["ZCARD", "z"],
    &["ZREM", "z", "t"],
    &["SCAN", "0"],
    &["SET", "s", "1", "PX", "1000"],
    &["GET", "s"],
    &["XREAD", "COUNT", "1", "STREAMS", "stream:topic:t", "0"],
    &["PUBLISH", "c", "m"],
    &["SCRIPT", "LOAD", "return 1"],
    &["EVAL", "return redis.call('XLEN', KEYS[1])", "1", "stream:topic:t"],
    &["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"],
    &["UNLINK", "meta:topic:t"],
    &["DEL", "stream:topic:t"],
    &["CONFIG", "GET", "maxmemory"],
    &["CONFIG", "SET", "maxmemory", "1gb"],
];

async fn runs_with_the_file(kind: Kind) {
    let password = ["--requirepass", PASSWORD];
    let Some(server) = Server::start_with_file(kind, &root().join("valkey.conf"), &password).await else {
        return;
    };
    wants_a_password(&server).await;
    holds_what_the_file_says(&server).await;
    for command in NEEDED {
        let answer = ask(&server, command).await;
        assert!(!answer.starts_with('-'), "{command:?}: {answer}");
    }
}

#[tokio::test]
async fn valkey_runs_with_the_file() {
    runs_with_the_file(Kind::Valkey).await;
}

#[tokio::test]
async fn redis_runs_with_the_file() {
    runs_with_the_file(Kind::Redis).await;
}

/// Starts the server of a service with its very command, if there is one on this machine.
async fn start_service(valkey: &Value) -> Option<Server> {
    assert_eq!(valkey["entrypoint"], serde_json::json!(["/bin/sh", "-euc"]));
    let command = valkey["command"][0].as_str().expect("the command is a script").replace("$$", "$");
    let binary = Kind::Valkey.find()?;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let secret = folder.path().join("password");
    fs::write(&secret, format!("{PASSWORD}\n")).expect("the folder can be written");
    let with_arguments = format!("{} \"$@\"", root().join("valkey.conf").display());
    let script = command
        .replace("valkey-server ", &format!("{} ", binary.display()))
        .replace("/etc/valkey/valkey.conf", &with_arguments)
        .replace("/run/secrets/valkey_password", &secret.display().to_string());
    Some(Server::start_with_script(&script).await)
}

#[tokio::test]
async fn valkey_starts_with_the_command_of_the_compose_file() {
    let Some(server) = start_service(&compose()["services"]["valkey"]).await else { return };
    holds_what_the_file_says(&server).await;
    wants_a_password(&server).await;
}

#[test]
fn dependencies_come_from_one_place() {
    let rules: toml::Table = text_of("deny.toml").parse().expect("deny.toml is TOML");
    let allowed = rules["sources"]["allow-registry"].as_array().expect("there is a list of registries");
    let lock: toml::Table = text_of("Cargo.lock").parse().expect("Cargo.lock is TOML");
    for package in lock["package"].as_array().expect("there are packages") {
        let Some(source) = package.get("source").and_then(toml::Value::as_str) else { continue };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        assert!(
            allowed.iter().any(|url| url.as_str() == Some(registry)),
            "{} is from {source}",
            package["name"]
        );
    }
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;

    for name in ["scripts/test", "scripts/test-long", "scripts/packages", ".ci/run"] {
        let mode = fs::metadata(root().join(name)).expect("the script is there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} is not executable");
        let text = text_of(name);
        assert!(
            text.starts_with("#!/usr/bin/env bash\n") && text.contains("\nset -euo pipefail\n"),
            "{name}"
        );
        assert!(!text.contains("cargo clean") && Path::new(name).is_relative());
    }
}
