//! Settings of how durable messages are to be.

use tidemill::proto::Durability;
use tidemill::storage::valkey::DurabilityRule;

use super::{error, load};

const VALKEY: (&str, &str) = ("STORAGE_BACKEND", "valkey");
const NODE: &str = "TIDEMILL_DURABILITY";
const TOPICS: &str = "TIDEMILL_DURABILITY_TOPICS";

#[test]
fn what_memory_never_has_is_refused() {
    for (variable, text, setting) in [
        (NODE, "fsync", "durability with `fsync`"),
        (TOPICS, "log.*=accepted; orders=replicas=1", "durability_topics with `replicas=1`"),
    ] {
        let alone = error(&[], &[(variable, text)]);
        let (name, _) = setting.split_once(' ').expect("a name");
        assert!(alone.starts_with(&format!("{name} (from variable {variable}) asks for `")), "{alone}");
        assert!(alone.contains("set STORAGE_BACKEND=valkey") && !alone.contains("contradicts"), "{alone}");
        let refused = error(&[], &[("STORAGE_BACKEND", "memory"), (variable, text)]);
        let from = format!("{setting} (from variable {variable})");
        assert!(refused.starts_with(&from) && refused.contains("STORAGE_BACKEND=valkey"), "{refused}");
        assert!(refused.ends_with("storage_backend = memory (from variable STORAGE_BACKEND)"), "{refused}");
        load(&[], &[VALKEY, (variable, text)]).expect("a server may have it");
    }
    load(&[], &[(NODE, "accepted"), (TOPICS, "log.*=accepted")]).expect("this is what memory has");
}

#[test]
fn the_server_is_told_of_what_is_more_than_accepted() {
    let pairs = [VALKEY, (NODE, "fsync"), (TOPICS, "log.*=accepted; orders=replicas=1")];
    let options = load(&[], &pairs).expect("valid settings").valkey_options().expect("a target");
    let rule = |topics: Option<&str>, durability| DurabilityRule {
        topics: topics.map(|topics| topics.parse().expect("a selector")),
        durability: Durability::parse(durability).expect("a durability"),
    };
    assert_eq!(*options.durabilities, [rule(Some("orders"), "replicas=1"), rule(None, "fsync")]);
}
