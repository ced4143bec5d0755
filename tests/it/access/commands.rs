//! The commands about users, tokens and roles, against a running relay and against the storage itself.

use std::process::Command;

use serde_json::Value;

use crate::support::process::{Ended, Relay, run};
use crate::support::server::{Kind, Server};

mod mistakes;

const ADMIN: (&str, &str) = ("TIDEMILL_ADMIN_PASSWORD", "correct horse");

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// Runs a command with a token against a relay.
fn run_with(relay: &Relay, token: &str, arguments: &[&str], input: &str) -> Ended {
    run(&[("TIDEMILL_URL", &relay.url), ("TIDEMILL_TOKEN", token)], arguments, input)
}

/// Returns the token of an administrator, whose password is asked for.
fn admin_token(relay: &Relay) -> String {
    let new = ["token", "new", "ops", "--rule", "allow admin *", "--rule", "allow publish,read,manage *"];
    let made = relay.run(&[&new[..], &["--user", "admin"]].concat(), "correct horse\n");
    let lines = made.lines();
    assert!(lines.len() == 1 && lines[0].starts_with("tm_"), "the token alone: {made:?}");
    assert!(made.stderr.contains("shown this once") && !made.stderr.contains(lines[0]), "{made:?}");
    lines[0].to_owned()
}

#[test]
fn a_closed_relay_is_administered_and_used_by_command() {
    let relay = Relay::start(&[ADMIN], &[]);
    assert!(relay.run(&["topics"], "").error(1).contains("unauthenticated"));
    let wrong = relay.run(&["user", "list", "--user", "admin"], "wrong horse\n");
    assert!(wrong.error(1).contains("name or its password is wrong"), "{wrong:?}");
    let admin = admin_token(&relay);
    let as_admin = |arguments: &[&str], input: &str| run_with(&relay, &admin, arguments, input);

    // Users.
    let added =
        as_admin(&["user", "add", "ann", "--role", "read", "--email", "ann@example.com"], "battery staple\n");
    assert_eq!(added.lines(), ["made ann (read)"]);
    assert!(as_admin(&["user", "add", "ann"], "x\n").error(2).contains("there is a user ann already"));
    assert!(
        as_admin(&["user", "add", "bob", "--role", "crew"], "battery staple\n")
            .error(1)
            .contains("names `crew`")
    );
    assert!(as_admin(&["user", "add", "bob"], "").error(2).contains("there is no new password of bob"));
    assert!(as_admin(&["user", "add", "bob"], "short\n").error(1).contains("has 5 characters"));
    let listed = as_admin(&["user", "list", "-o", "json"], "");
    let names: Vec<_> = listed.lines().iter().map(|line| json(line)["name"].clone()).collect();
    assert_eq!(names, ["admin", "ann"]);
    assert_eq!(as_admin(&["user", "list"], "").lines().len(), 3);
    assert_eq!(
        as_admin(&["user", "password", "ann"], "another staple\n").lines(),
        ["changed the password of ann (read)"]
    );
    assert!(as_admin(&["user", "password", "eve"], "another staple\n").error(1).contains("no user `eve`"));
    assert!(as_admin(&["user", "change", "ann"], "").error_is_usage());

    // Roles.
    let rules = ["allow publish,read orders.*", "deny publish orders.audit"];
    assert_eq!(
        as_admin(&[&["role", "set", "crew"], &rules[..]].concat(), "").lines(),
        ["made crew (2 rules)"]
    );
    assert!(as_admin(&["role", "set", "crew", "allow fly *"], "").error(1).contains("has the verb `fly`"));
    let written = as_admin(&["role", "list"], "");
    assert!(
        written.lines().iter().any(|line| line.starts_with("crew ") && line.ends_with(rules[0])),
        "{written:?}"
    );
    assert_eq!(as_admin(&["user", "change", "ann", "--role", "crew"], "").lines(), ["changed ann (crew)"]);

    // Explanations tell by their status, too.
    let told = as_admin(&["explain", "publish", "orders.audit", "--principal", "ann"], "");
    assert_eq!(
        (told.code, told.stdout.trim()),
        (Some(1), "denied to user \"ann\": deny publish orders.audit")
    );
    let told = as_admin(&["explain", "read", "orders.eu", "--principal", "ann", "-o", "json"], "");
    assert_eq!(
        (told.code, json(&told.stdout)["rule"].clone()),
        (Some(0), "allow publish,read orders.*".into())
    );
    assert!(as_admin(&["explain", "fly", "orders.eu"], "").error(2).contains("`verb` must be"));

    // A token of hers, with each door of the command line.
    let new =
        ["token", "new", "till-7", "--rule", "allow publish,read *", "--expires-in", "30d", "--user", "ann"];
    let made = relay.run(&[&new[..], &["-o", "json"]].concat(), "another staple\n");
    let made = json(made.lines()[0]);
    let (id, hers) = (made["token_id"].as_str().expect("an id"), made["token"].as_str().expect("a text"));
    assert!(made["expires_at"].is_string());
    let as_ann = |arguments: &[&str], input: &str| run_with(&relay, hers, arguments, input);
    assert!(as_ann(&["publish", "orders.eu", "1"], "").lines()[0].contains('-'));
    as_ann(&["publish", "orders.eu"], "2\n3\n").lines();
    assert_eq!(as_ann(&["read", "orders.eu", "--all", "-o", "raw"], "").lines(), ["1", "2", "3"]);
    let tail = ["tail", "orders.*", "--after", "earliest", "--limit", "3", "-o", "raw"];
    assert_eq!(as_ann(&tail, "").lines(), ["1", "2", "3"]);
    assert!(as_ann(&["publish", "orders.audit", "1"], "").error(1).contains("forbidden"));
    assert!(as_ann(&["read", "payroll"], "").error(1).contains("forbidden"));
    assert!(as_ann(&["user", "list"], "").error(1).contains("forbidden"));
    let list = as_admin(&["token", "list", "-o", "json"], "");
    let tokens: Vec<_> = list.lines().iter().map(|line| json(line)).collect();
    let till = tokens.iter().find(|token| token["name"] == "till-7").expect("it is listed");
    assert!(till["last_used_at"].is_string() && till["maker"] == "user ann", "{till}");

    // Revoked by its id, or by its text.
    assert_eq!(as_admin(&["token", "revoke", id], "").lines(), [format!("revoked {id}")]);
    assert!(as_ann(&["read", "orders.eu"], "").error(1).contains("unauthenticated"));
    assert_eq!(as_admin(&["user", "remove", "ann"], "").lines(), ["removed ann"]);
    assert_eq!(as_admin(&["role", "remove", "crew"], "").lines(), ["removed crew"]);
    let own = as_admin(&["token", "revoke", &admin], "");
    assert!(own.lines()[0].starts_with("revoked ") && !own.stdout.contains(&admin), "{own:?}");
}

#[test]
fn commands_say_what_has_become_of_roles_and_what_of_a_token_gives_nothing() {
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    let as_admin = |arguments: &[&str], input: &str| run_with(&relay, &admin, arguments, input);

    // A role that is there from the start is never gone.
    assert_eq!(
        as_admin(&["role", "set", "read", "allow read public.*"], "").lines(),
        ["changed read (1 rule)"]
    );
    assert_eq!(as_admin(&["role", "remove", "read"], "").lines(), ["read is back to its ready-made rules"]);
    let listed = as_admin(&["role", "list", "-o", "json"], "");
    let read = listed.lines().into_iter().map(json).find(|role| role["role"] == "read").expect("it is there");
    assert_eq!(read["rules"][0], "allow read *");
    assert_eq!(as_admin(&["role", "remove", "admin", "-o", "json"], "").lines(), [r#"{"reset":"admin"}"#]);

    // What a token is given beyond its maker.
    as_admin(&["user", "add", "ann", "--role", "read"], "battery staple\n").lines();
    let new = ["token", "new", "t", "--rule", "allow publish,read orders.*", "--rule", "allow admin *"];
    let made = relay.run(&[&new[..], &["--user", "ann"]].concat(), "battery staple\n");
    assert_eq!(made.lines().len(), 1, "the token alone: {made:?}");
    for rule in ["allow publish orders.*", "allow admin *"] {
        assert!(made.stderr.contains(&format!("warning: `{rule}` gives nothing")), "{made:?}");
    }
    let id = made.lines()[0].split('_').nth(1).expect("an id");
    let within = as_admin(&["token", "new", "t", "--rule", "allow read orders.*"], "");
    assert!(!within.stderr.contains("warning"), "{within:?}");

    // A user who is called like a token.
    let ask = |principal: &str| as_admin(&["explain", "admin", "--principal", principal], "");
    assert!(ask(id).stdout.starts_with(&format!("denied to token {id} (\"t\"): allow admin *")));
    as_admin(&["user", "add", id, "--role", "admin"], "battery staple\n").lines();
    let error = ask(id);
    assert!(error.error(2).contains(&format!("write `user:{id}` or `token:{id}`")), "{error:?}");
    assert_eq!(ask(&format!("user:{id}")).stdout, format!("allowed to user \"{id}\": allow admin *\n"));
    assert!(ask(&format!("token:{id}")).stdout.starts_with(&format!("denied to token {id} ")));
    assert!(ask(&format!("key:{id}")).error(2).contains("names no user and no id of a token"));
}

impl Ended {
    /// Returns whether the command line was not understood.
    fn error_is_usage(&self) -> bool {
        self.code == Some(2) && self.stderr.starts_with("error: ")
    }
}

#[test]
fn a_token_comes_from_a_flag_a_variable_or_a_file() {
    let relay = Relay::start(&[ADMIN], &[]);
    let token = admin_token(&relay);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{token}\n")).expect("the folder is ours");
    let path = path.to_str().expect("UTF-8");
    let (at, url) = (format!("@{path}"), ("TIDEMILL_URL", &*relay.url));
    for (variables, arguments) in [
        (&[][..], &["--token", &*token][..]),
        (&[], &["--token", &at]),
        (&[("TIDEMILL_TOKEN", &*token)], &[]),
        (&[("TIDEMILL_TOKEN_FILE", path)], &[]),
        // The flag wins.
        (&[("TIDEMILL_TOKEN", "nonsense")], &["--token", &token]),
        // A header that says it wins.
        (&[("TIDEMILL_TOKEN", "nonsense")], &["--header", &format!("Authorization: Bearer {token}")]),
    ] {
        let variables = [variables, &[url]].concat();
        let ended = run(&variables, &[&["topics", "-o", "json"], arguments].concat(), "");
        assert!(ended.lines().is_empty(), "{variables:?} {arguments:?}");
    }
    let both = [url, ("TIDEMILL_TOKEN", "a"), ("TIDEMILL_TOKEN_FILE", path)];
    assert!(run(&both, &["topics"], "").error(2).contains("not both"));
    let missing = [url, ("TIDEMILL_TOKEN_FILE", "/nowhere")];
    assert!(run(&missing, &["topics"], "").error(2).contains("the file cannot be read"));
    let health = run(&[url], &["health"], "");
    assert!(
        health.lines()[0].starts_with("healthy: at ") && !health.stdout.contains("version"),
        "no more is told to who does not administer: {health:?}"
    );
    let health = run(&[url, ("TIDEMILL_TOKEN", &token)], &["health"], "");
    assert!(health.lines()[0].starts_with("healthy: version "));
    // Where a command tells how to go on, it does not tell the token.
    let tail = run(&[url], &["tail", "t", "--after", "earliest", "--token", "tm_nonsense"], "");
    assert!(tail.code == Some(1) && !tail.stderr.contains("tm_nonsense"), "{tail:?}");
}

#[test]
fn no_log_and_no_error_tells_a_secret() {
    let issuer = "my-service;aud=tidemill;secret=0123456789abcdef0123456789abcdef";
    let relay = Relay::start(&[ADMIN, ("TIDEMILL_JWT_ISSUERS", issuer), ("LOG_LEVEL", "trace")], &[]);
    let token = admin_token(&relay);
    let mut ended = Vec::new();
    let mut note = |one: Ended| ended.push(one);
    note(run_with(&relay, &token, &["user", "add", "ann", "--role", "write"], "battery staple\n"));
    note(run_with(&relay, &token, &["user", "add", "eve", "--role", "crew"], "battery staple\n"));
    note(run_with(&relay, &token, &["publish", "t", "1"], ""));
    note(run_with(&relay, &token, &["tail", "t", "--after", "earliest", "--limit", "1"], ""));
    note(run_with(&relay, &token, &["token", "list", "-o", "json"], ""));
    note(relay.run(&["token", "list", "--user", "ann"], "battery stable\n"));
    note(run_with(&relay, "tm_0123456789abcdef_typed-wrong-but-secret", &["topics"], ""));
    note(run_with(&relay, "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.c2VjcmV0", &["topics"], ""));
    let (code, log) = relay.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("token made") && log.contains("user written"), "changes stand in the log: {log}");
    let printed = format!("{ended:?}{log}");
    let (_, secret) = token.rsplit_once('_').expect("a token");
    for secret in [
        secret,
        "correct horse",
        "battery sta",
        "typed-wrong",
        "c2VjcmV0",
        "0123456789abcdef0123456789abcdef",
        // The names and passwords of users in base64, as they are sent.
        "Y29ycmVjdCBob3Jz",
        "$argon2",
    ] {
        assert!(!printed.contains(secret), "`{secret}` is told");
    }
}

#[test]
fn secrets_are_long_and_new_each_time() {
    let [one, other] = [(); 2].map(|()| run(&[], &["secret", "new"], "").lines()[0].to_owned());
    assert!(one.len() == 64 && one.bytes().all(|byte| byte.is_ascii_hexdigit()) && one != other);
}

#[test]
fn memory_that_is_a_relay_s_own_is_not_administered_without_it() {
    let ended = run(&[], &["user", "list", "--storage"], "");
    assert!(ended.error(2).contains("TIDEMILL_ADMIN_PASSWORD"), "{ended:?}");
    let ended = run(&[("TIDEMILL_URL", "http://127.0.0.1:1")], &["user", "list"], "");
    assert!(ended.error(1).contains("cannot reach a relay"), "{ended:?}");
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn the_first_administrator_is_made_before_anything_runs() {
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let port = server.port().to_string();
    let valkey = [("STORAGE_BACKEND", "valkey"), ("VALKEY_PORT", &*port)];
    let on_storage = |arguments: &[&str], input: &str| run(&valkey, arguments, input);
    let added = on_storage(&["user", "add", "root", "--role", "admin"], "correct horse\n");
    assert_eq!(added.lines(), ["made root (admin)"]);
    let made = on_storage(&["token", "new", "all", "--rule", "allow publish,read,manage *"], "");
    let token = made.lines()[0].to_owned();
    let by_flags =
        ["user", "list", "-o", "json", "--storage", "--storage-backend", "valkey", "--valkey-port", &port];
    assert_eq!(json(run(&[], &by_flags, "").lines()[0])["name"], "root");

    // The relay starts where other machines reach it, and knows both.
    let relay = Relay::ready_at("0.0.0.0:0", &valkey, &[]).await;
    let url = format!("http://127.0.0.1:{}", relay.address().port());
    let ask = |variables: &[(&str, &str)], arguments: &[&str], input: &str| {
        run(&[&[("TIDEMILL_URL", &*url)], variables].concat(), arguments, input)
    };
    let by_token = [("TIDEMILL_TOKEN", &*token)];
    ask(&by_token, &["publish", "orders", "1"], "").lines();
    let listed = ask(&[], &["user", "list", "--user", "root"], "correct horse\n");
    assert!(listed.lines()[1].starts_with("root "), "{listed:?}");

    // What is changed in the storage, a running relay knows within a second; with the variables of the relay alone
    // it is the storage that is asked.
    let id = token.split('_').nth(1).expect("an id");
    assert_eq!(on_storage(&["token", "revoke", id], "").lines(), [format!("revoked {id}")]);
    let is_revoked = async || ask(&by_token, &["read", "orders"], "").code == Some(1);
    crate::support::eventually(std::time::Duration::from_secs(1), is_revoked).await;
    assert!(on_storage(&["user", "remove", "root"], "").error(1).contains("nobody would be left"));
    let told = on_storage(&["explain", "admin", "--principal", "root"], "");
    assert_eq!(told.lines(), ["allowed to user \"root\": allow admin *"]);
}

#[cfg(feature = "valkey")]
#[tokio::test]
async fn a_terminal_does_not_show_passwords() {
    // Writes each answer when it is asked for, and prints what the terminal showed.
    const SCRIPT: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen, answers = b"", [b"correct horse\n", b"correct horse\n"]
while True:
    try:
        more = os.read(terminal, 65536)
    except OSError:
        break
    if not more:
        break
    seen += more
    if answers and seen.endswith(b": "):
        os.write(terminal, answers.pop(0))
os.write(1, seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let Some(server) = Server::start(Kind::Valkey, &[]).await else { return };
    let port = server.port().to_string();
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, env!("CARGO_BIN_EXE_tidemill"), "user", "add", "ann", "--role", "admin"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("STORAGE_BACKEND", "valkey").env("VALKEY_PORT", &port);
    let output = command.output().expect("there is a python3");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("new password of ann: ") && shown.contains("the same again: "), "{shown}");
    assert!(shown.contains("made ann (admin)") && !shown.contains("horse"), "{shown}");
}
