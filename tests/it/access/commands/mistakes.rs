//! What newcomers get wrong in the commands of a closed relay, and what they are told.

use std::io::Write as _;

use super::{ADMIN, admin_token, json, run_with};
use crate::support::process::{Ended, Relay, Running, run};

/// How commands say who calls.
const WAYS: &str = "say who calls with --token @PATH, or TIDEMILL_TOKEN";
/// How those do that take a user's name, too.
const WAYS_WITH_USER: &str = "say who calls with --token @PATH, TIDEMILL_TOKEN, or --user NAME";

/// Checks that a command line was not understood, and what is said of it.
#[track_caller]
fn is_refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in {}", ended.stderr);
    }
}

/// Returns the help of a command, in one line.
fn help(command: &[&str]) -> String {
    let help = run(&[], &[command, &["--help"]].concat(), "");
    help.lines().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a token that may do this.
fn token(relay: &Relay, admin: &str, rule: &str) -> String {
    run_with(relay, admin, &["token", "new", "t", "--rule", rule], "").lines()[0].to_owned()
}

#[test]
fn a_role_keeps_its_rules_where_none_are_given() {
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    let set = |arguments: &[&str]| run_with(&relay, &admin, &[&["role", "set"], arguments].concat(), "");
    let rules = || {
        let listed = run_with(&relay, &admin, &["role", "list", "-o", "json"], "");
        let crew = listed.lines().into_iter().map(json).find(|role| role["role"] == "crew");
        crew.expect("it is there")["rules"].as_array().expect("a list").len()
    };
    assert_eq!(set(&["crew", "allow read *"]).lines(), ["made crew (1 rule)"]);
    is_refused(&set(&["crew"]), &["<RULE|--no-rules>", "role set [OPTIONS] <ROLE> <RULE>...\n"]);
    assert_eq!(rules(), 1);
    assert_eq!(set(&["crew", "allow read *", "deny read a"]).lines(), ["changed crew (2 rules)"]);
    is_refused(&set(&["crew", "allow read *", "--no-rules"]), &["cannot be used with"]);
    assert_eq!(rules(), 2);
    assert_eq!(set(&["crew", "--no-rules"]).lines(), ["changed crew (0 rules)"]);
    assert_eq!(rules(), 0);
}

#[test]
fn who_says_nothing_of_who_calls_is_told_how_commands_say_it() {
    let relay = Relay::start(&[ADMIN], &[]);
    for (command, ways) in [
        (&["publish", "t", "1"][..], WAYS),
        (&["publish", "t"], WAYS),
        (&["read", "t"], WAYS),
        (&["tail", "t"], WAYS),
        (&["tail", "t*"], WAYS),
        (&["trim", "t", "--keep", "1"], WAYS),
        (&["topics"], WAYS),
        (&["topics", "show", "t"], WAYS),
        (&["topics", "create", "t"], WAYS),
        (&["topics", "delete", "t", "--yes"], WAYS),
        (&["user", "list"], WAYS_WITH_USER),
        (&["token", "list"], WAYS_WITH_USER),
        (&["token", "new", "t", "--rule", "allow read *"], WAYS_WITH_USER),
        (&["role", "list"], WAYS_WITH_USER),
        (&["ticket", "t"], WAYS_WITH_USER),
        (&["explain", "read", "t"], WAYS_WITH_USER),
    ] {
        let ended = relay.run(command, "1\n2\n");
        let told = format!("; {ways} (code unauthenticated");
        assert!(ended.stderr.contains(&told) && !ended.stderr.contains("Bearer"), "{command:?}: {ended:?}");
        // Who says something wrong has not forgotten it.
        let wrong = run_with(&relay, "nonsense", command, "1\n2\n");
        assert!(wrong.stderr.contains("unauthenticated") && !wrong.stderr.contains(ways), "{wrong:?}");
    }
}

#[test]
fn lines_that_may_not_be_published_end_the_run_at_the_first() {
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    let orders = token(&relay, &admin, "allow publish orders");
    for (input, count) in [("1\n2\n3\n4\n5\n", 5), ("1\n", 1)] {
        let ended = run_with(&relay, &orders, &["publish", "payroll"], input);
        // Where the refusal comes before the end of the input does, it is told that more may follow.
        let lines = ended.stderr.lines().skip_while(|line| line.starts_with("from line 1 on, "));
        let lines: Vec<_> = lines.collect();
        assert_eq!((ended.code, lines.len()), (Some(1), 2), "{ended:?}");
        assert_eq!(lines[0], format!("0 published to payroll, {count} refused"));
        assert!(lines[1].starts_with("error: ") && lines[1].ends_with("(code forbidden)"), "{ended:?}");
    }
    let unsaid = relay.run(&["publish", "payroll"], "1\n2\n3\n");
    assert_eq!((unsaid.code, unsaid.stderr.matches("unauthenticated").count()), (Some(1), 1), "{unsaid:?}");
}

#[test]
fn a_token_that_is_revoked_during_a_run_ends_it() {
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    let orders = token(&relay, &admin, "allow publish orders");
    let variables = [("TIDEMILL_URL", &*relay.url), ("TIDEMILL_TOKEN", &*orders)];
    let (mut running, mut input) = Running::fed(&variables, &["publish", "orders", "--key", "k"]);
    input.write_all(b"1\n").expect("it reads");
    assert!(!running.line().is_empty());
    run_with(&relay, &admin, &["token", "revoke", &orders], "").lines();
    // Without another line, and with the input still open.
    let ended = running.end();
    drop(input);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<_> = ended.stderr.lines().collect();
    let last = lines.last().expect("an error");
    assert!(last.starts_with("error: ") && last.contains("(code unauthenticated)"), "{ended:?}");
    let told = "no answer for line 2 and what follows; go on with the same input and --key k,";
    assert!(lines.iter().any(|line| line.starts_with(told)), "{ended:?}");
}

#[test]
fn an_explanation_that_is_not_to_be_had_is_no_no() {
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    let as_admin = |arguments: &[&str], input: &str| run_with(&relay, &admin, arguments, input);
    as_admin(&["user", "add", "bob", "--role", "read"], "battery staple\n").lines();
    let new = ["token", "new", "till-7", "--rule", "allow read *", "--user", "bob"];
    let till = relay.run(&new, "battery staple\n").lines()[0].to_owned();
    let id = till.split('_').nth(1).expect("an id");
    let ask = |who: &str| as_admin(&["explain", "read", "orders.eu", "--principal", who], "");
    assert_eq!((ask("bob").code, ask(id).code, ask("anonymous").code), (Some(0), Some(0), Some(1)));
    as_admin(&["user", "change", "bob", "--active", "false"], "").lines();
    for (who, told) in [
        ("bob", "names a user who is not active"),
        ("user:bob", "names a user who is not active"),
        ("token:bob", "names no user and no id of a token"),
        ("eve", "names no user and no id of a token"),
        (id, "names a token whose maker is gone or not active"),
        ("till-7", "is the name of a token, and its id is meant; give its id, see `tidemill token list`"),
    ] {
        let ended = ask(who);
        assert!(ended.error(2).contains(told), "{who}: {ended:?}");
    }
    let absent = run(&[("TIDEMILL_URL", "http://127.0.0.1:1")], &["explain", "read", "t"], "");
    assert!(absent.error(2).contains("cannot reach a relay"), "{absent:?}");
    assert!(help(&["explain"]).contains("2 it could not be found out"));
}

#[test]
fn a_file_in_place_of_a_token_is_told_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ops.txt");
    std::fs::write(&path, "tm_0123456789abcdef_x\n").expect("the folder is ours");
    let path = path.to_str().expect("UTF-8");
    let nowhere = ("TIDEMILL_URL", "http://127.0.0.1:1");
    let told = format!("there is a file of that name: write @{path}");
    is_refused(&run(&[nowhere], &["topics", "--token", path], ""), &[&told]);
    is_refused(&run(&[nowhere, ("TIDEMILL_TOKEN", path)], &["topics"], ""), &["TIDEMILL_TOKEN", &told]);
    let read = run(&[nowhere], &["topics", "--token", &format!("@{path}")], "");
    assert!(read.error(1).contains("cannot reach"), "{read:?}");
}

#[test]
fn passwords_of_who_calls_and_of_a_new_user_are_two_lines() {
    let relay = Relay::start(&[ADMIN], &[]);
    let add = ["user", "add", "carl", "--user", "admin"];
    let one = relay.run(&add, "correct horse\n");
    let told = "there is no new password of carl: write it, or give it as the second line of standard input, behind the password of admin, whom --user names";
    assert_eq!(one.error(2), told);
    let made = relay.run(&add, "correct horse\nbattery staple\n");
    assert_eq!(made.lines(), ["made carl, which has no role and so no right"]);
    let password = relay.run(&["user", "password", "carl", "--user", "admin"], "correct horse\n");
    assert_eq!(password.error(2), told);
    for command in ["add", "password"] {
        let help = help(&["user", command]);
        assert!(help.contains("or is a line of standard input. With --user two lines are read"), "{help}");
    }
}

#[test]
fn a_change_of_a_user_changes_something() {
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    let as_admin = |arguments: &[&str], input: &str| run_with(&relay, &admin, arguments, input);
    as_admin(&["user", "add", "ann", "--role", "read"], "battery staple\n").lines();
    let change = |flags: &[&str]| as_admin(&[&["user", "change", "ann"], flags].concat(), "");
    is_refused(&change(&[]), &["--role", "--no-roles", "--email", "--active"]);
    is_refused(&change(&["--role", "read", "--no-roles"]), &["cannot be used with"]);
    assert_eq!(change(&["--email", "ann@example.com", "--active", "true"]).lines(), ["changed ann (read)"]);
    assert_eq!(change(&["--no-roles"]).lines(), ["changed ann, which has no role and so no right"]);
}

#[test]
fn who_calls_is_said_in_one_way() {
    let relay = Relay::start(&[ADMIN], &[]);
    let both = relay.run(&["user", "list", "--user", "admin", "--token", "tm_x"], "correct horse\n");
    is_refused(&both, &["--user", "cannot be used with", "--token"]);
    // The flag wins over the variable.
    let listed = run_with(&relay, "nonsense", &["user", "list", "--user", "admin"], "correct horse\n");
    assert_eq!(listed.lines().len(), 2);
    is_refused(
        &relay.run(&["token", "new", "t", "--rule", "allow read *", "--expires-in", "30w"], ""),
        &["write whole seconds, or a number with a unit"],
    );
}

#[test]
fn who_sees_a_part_of_the_topics_is_told_so() {
    const TOLD: &str = "as anonymous; topics that it may not read are not shown\n";
    let relay = Relay::start(&[ADMIN], &[]);
    let admin = admin_token(&relay);
    run_with(&relay, &admin, &["publish", "payroll", "1"], "").lines();
    run_with(&relay, &admin, &["role", "set", "anonymous", "allow read public.*"], "").lines();
    for command in [&["topics"][..], &["topics", "list", "-o", "json"]] {
        let listed = relay.run(command, "");
        assert_eq!((listed.code, &*listed.stderr), (Some(0), TOLD), "{listed:?}");
        assert!(!listed.stdout.contains("payroll"), "{listed:?}");
        let listed = run_with(&relay, &admin, command, "");
        assert!(listed.stdout.contains("payroll") && listed.stderr.is_empty(), "{listed:?}");
    }
    let open = Relay::start(&[], &[]).run(&["topics"], "");
    assert_eq!((open.lines().len(), &*open.stderr), (1, ""));
}

/// What the help shows works where nothing names a relay, too.
#[test]
fn the_example_of_a_ticket_knows_where_a_relay_is_by_default() {
    let help = help(&["ticket"]);
    assert!(
        help.contains("url=${TIDEMILL_URL:-http://127.0.0.1:8080} curl -N \"$url/api/v1/stream?"),
        "{help}"
    );
}
