//! Values of parameters in examples: each works once those before it on the page were sent.

/// The topic of the examples, which the first of them makes.
pub(super) const TOPIC: &str = "earthquakes";
/// A topic that one example makes and another deletes.
pub(super) const SCRATCH: &str = "scratch";

/// Returns a value of a required parameter that works once the examples before it were sent.
pub(super) fn of_parameter(operation: &str, method: &str, name: &str) -> Option<&'static str> {
    match (operation, method, name) {
        ("delete_topic", _, "topic") => Some(SCRATCH),
        // The first of the page makes both.
        (_, "put" | "post", "bucket") => Some("flows"),
        ("increment_key", _, "key") => Some("visits"),
        (_, "put" | "post", "key") => Some("flow-7"),
        ("put_recurring", _, "name") => Some("heartbeat"),
        ("take" | "peek" | "refund", _, "name") => Some("mail"),
        (_, "put", "name") => Some("ann"),
        (_, "put", "role") => Some("crew"),
        // It is ready-made, and gets back the rules that it has.
        (_, "delete", "role") => Some("read"),
        // The first of the page makes it.
        (_, "put" | "post", "group") => Some("archive"),
        (_, _, "topic" | "topics") => Some(TOPIC),
        ("acquire_lock" | "show_lock", _, "lock") => Some("nightly"),
        (_, _, "series") => Some("latency"),
        // Nobody knows which messages, schedules, tokens and users there are.
        _ => None,
    }
}
