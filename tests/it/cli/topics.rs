//! `tidemill topics`: the list, narrowed to a pattern; topics that end.

use serde_json::{Value, json};

use super::{Relay, run};

/// Publishes a message to each of many topics.
fn publish_to_each(relay: &Relay, names: &[String]) {
    // One request per topic would take long; one bulk publish per thousand does not.
    let client = reqwest::Client::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for names in names.chunks(1_000) {
        let messages: Vec<Value> = names.iter().map(|name| json!({ "topic": name, "payload": 1 })).collect();
        let request = client.post(format!("{}/api/v1/messages/bulk", relay.url));
        let answer = runtime.block_on(request.json(&json!({ "messages": messages })).send());
        assert_eq!(answer.expect("an answer").status(), 207);
    }
}

#[test]
fn topics_are_narrowed_to_a_pattern() {
    let relay = Relay::start(&[], &[]);
    let names = ["log", "orders", "orders.eu", "orders.us", "other.eu"].map(str::to_owned);
    publish_to_each(&relay, &names);
    let listed = |arguments: &[&str]| -> Vec<String> {
        let ended = relay.run(arguments, "");
        ended.lines().iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(listed(&["topics", "--match", "orders.*"]), ["TOPIC", "orders.eu", "orders.us"]);
    assert_eq!(listed(&["topics", "list", "--match=*.eu"]), ["TOPIC", "orders.eu", "other.eu"]);
    assert_eq!(listed(&["topics", "--match", "orders"]), ["TOPIC", "orders"]);
    assert_eq!(listed(&["topics", "--match", "none*"]), ["TOPIC"]);
    assert_eq!(relay.run(&["topics", "--match", "log*", "-o", "json"], "").lines().len(), 1);
    for (bad, rule) in [(".*", "starts or ends"), ("a b*", "has the character"), ("*********", "9 times")] {
        let ended = run(&[], &["topics", "--match", bad], "");
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("--match <PATTERN>") && ended.stderr.contains(rule), "{ended:?}");
    }
}

#[test]
fn pages_without_topics_do_not_end_the_list() {
    let relay = Relay::start(&[], &[]);
    let names: Vec<_> = (0..21_000).map(|number| format!("n{number:05}")).collect();
    publish_to_each(&relay, &names);
    let listed = relay.run(&["topics", "--match", "*0999"], "");
    let names: Vec<_> = listed.lines().into_iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["TOPIC", "n00999", "n10999", "n20999"]);
    let listed = relay.run(&["topics", "--match", "*20000"], "");
    assert_eq!(listed.lines().len(), 2, "one heading: {listed:?}");
    assert_eq!(relay.run(&["topics", "--match", "*x", "-o", "json"], "").lines(), [""; 0]);
}

#[test]
fn a_topic_is_closed_and_cancelled_and_who_follows_it_is_told() {
    let relay = Relay::start(&[], &[]);
    for (topic, end, told) in [
        ("run", &["close", "run"][..], "run is closed"),
        ("job", &["cancel", "job", "too dear"], "job is cancelled: too dear"),
    ] {
        relay.run(&["publish", topic, "1"], "").lines();
        let ended = relay.run(&[&["topics"], end].concat(), "");
        assert_eq!(ended.lines().len(), 1, "{ended:?}");
        let shown = relay.run(&["topics", "show", topic], "");
        let state = told.split_once(" is ").expect("how it has ended").1;
        assert!(shown.stdout.contains(state), "{shown:?}");
        let refused = relay.run(&["publish", topic, "2"], "");
        assert_eq!(refused.code, Some(1), "{refused:?}");
        // It ends with the topic.
        let tail = relay.run(&["tail", topic, "--after", "earliest", "-o", "raw"], "");
        assert_eq!((tail.code, tail.stdout.as_str()), (Some(0), "1\n"), "{tail:?}");
        assert!(tail.stderr.contains(told), "{tail:?}");
    }
    let both = relay.run(&["tail", "run", "job", "--after", "earliest", "-o", "raw"], "");
    assert_eq!((both.code, both.stdout.as_str()), (Some(0), "1\n1\n"), "{both:?}");
}

#[test]
fn what_a_topic_keeps_is_set_changed_and_shown() {
    let relay = Relay::start(&[], &[]);
    let create =
        ["topics", "create", "q", "--max-messages", "1", "--when-full", "refuse", "--keep-until-acked"];
    let created =
        relay.run(&[&create[..], &["--idle-seconds", "10m", "--max-bytes", "1000000"]].concat(), "");
    assert_eq!(created.lines(), ["created q"]);
    let shown = relay.run(&["topics", "show", "q"], "").stdout;
    for told in ["1 message, 1000000 bytes, refuses more, until they are acknowledged", "removed after 600 s"]
    {
        assert!(shown.contains(told), "{shown}");
    }
    relay.run(&["publish", "q", "1"], "").lines();
    let change = ["topics", "change", "q", "--max-messages", "2", "--idle-seconds", "none"];
    let changed = relay.run(&[&change[..], &["--keep-until-acked=false", "--description", "d"]].concat(), "");
    assert_eq!(changed.lines(), ["changed q: 2 messages, 1000000 bytes, refuses more"]);
    let compacted = relay.run(&["topics", "change", "q", "--compact-by", "device"], "");
    assert_eq!(
        compacted.lines(),
        ["changed q: 2 messages, 1000000 bytes, refuses more, the latest by device"]
    );
    assert_eq!(relay.run(&["read", "q", "--latest", "--all"], "").lines(), [""; 0], "no message has a key");
    relay.run(&["topics", "change", "q", "--compact-by", ""], "").lines();
    let refused = relay.run(&["read", "q", "--latest"], "");
    assert!(refused.stderr.contains("`q` is not compacted"), "{}", refused.stderr);
    relay.run(&["publish", "q", "2"], "").lines();
    let topic = relay.run(&["topics", "change", "q", "--when-full", "drop_old", "-o", "json"], "");
    let topic: Value = serde_json::from_str(&topic.stdout).expect("JSON");
    let told = ["description", "max_messages", "when_full", "keep_until_acked", "idle_seconds"];
    assert_eq!(
        told.map(|name| topic[name].clone()),
        [json!("d"), json!(2), json!("drop_old"), json!(false), Value::Null]
    );
    let keeps = |arguments: &[&str]| {
        relay.run(&[&["topics"], arguments, &["--keep-until-acked"]].concat(), "").lines();
        let topic = relay.run(&["topics", "show", arguments[1], "-o", "json"], "");
        serde_json::from_str::<Value>(&topic.stdout).expect("JSON")["keep_until_acked"].clone()
    };
    assert_eq!([keeps(&["change", "q"]), keeps(&["create", "r"])], [json!(true), json!(true)]);
    relay.run(&["topics", "create", "s", "--keep-until-acked=false"], "").lines();
    let bad = run(&[], &["topics", "change", "q", "--max-bytes", "many"], "");
    assert_eq!(bad.code, Some(2), "{bad:?}");
}
