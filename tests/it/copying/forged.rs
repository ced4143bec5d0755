//! Files that somebody else has written, with checksums that are right and answers that cannot be: they are refused before
//! anything of them is copied, and the error names the record.

use tidemill::copying::FileError;
use tidemill::proto::topics::TopicUpdate;
use tidemill::proto::work::GroupName;
use tidemill::storage::{Existing, GroupStart, group_defaults};

use super::file::{bytes_of, exported, opened, record};
use super::put;
use crate::support::ground::{Ground, append_numbers, topic};

/// Returns the texts of the records of a file.
fn texts(file: &[u8]) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), file);
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        let text = zstd::decode_all(&rest[28..28 + length]).expect("a frame");
        texts.push(String::from_utf8(text).expect("UTF-8"));
        rest = &rest[28 + length..];
    }
    texts
}

/// Returns a file of such records, and where each begins.
fn written(texts: &[String]) -> (Vec<u8>, Vec<u64>) {
    let (mut file, mut places) = (Vec::new(), Vec::new());
    for (number, text) in texts.iter().enumerate() {
        places.push(file.len() as u64);
        file.extend(record(number as u64, text));
    }
    (file, places)
}

#[tokio::test]
async fn answers_that_cannot_be_are_refused_with_their_place() {
    let from = Ground::memory().await.expect("it is there");
    let one = topic("one");
    let about = TopicUpdate { max_messages: Some(700), ..TopicUpdate::default() };
    from.storage.topics.create(&one, about, None).await.unwrap();
    let ids = append_numbers(&from.storage, &one, 3).await;
    let workers = GroupName::parse("workers").expect("a name");
    let settings = group_defaults(&one, &workers);
    let (start, existing) = (GroupStart::Earliest, Existing::Replace);
    from.storage.work.put_group(&one, &workers, &settings, start, existing).await.unwrap();
    let flows = tidemill::proto::BucketName::parse("flows").expect("a name");
    put(&from.storage, &flows, "a", None).await.unwrap();
    put(&from.storage, &flows, "b", None).await.unwrap();
    let texts = texts(&bytes_of(exported(&from).await));
    opened(&written(&texts).0).expect("as it was");

    let [first, second, third] = [0, 1, 2].map(|at| ids[at].to_string());
    let id = |id: &str| format!("\"message_id\":\"{id}\"");
    let messages = "{\"asked\":{\"messages\":";
    let faults = [
        // A message twice, one in front of another, and one whose id is none.
        (messages, id(&second), id(&first), "does not come behind"),
        (messages, id(&third), id("1-0"), "does not come behind"),
        (messages, id(&first), id("one"), "is not a message id"),
        (messages, id(&first), id("0-0"), "does not come behind 0-0"),
        (messages, "\"payload\":0".to_owned(), "\"payload_base64\":\"e30x\"".to_owned(), "JSON"),
        ("{\"asked\":{\"topic\":", "\"max_messages\":700".to_owned(), "\"max_messages\":-1".to_owned(), "-1"),
        (
            "{\"asked\":{\"topic\":",
            "\"max_messages\":700".to_owned(),
            "\"max_messages\":0".to_owned(),
            "max_messages",
        ),
        (
            "{\"asked\":{\"topic\":",
            "\"topic_name\":\"one\"".to_owned(),
            "\"topic_name\":\"two\"".to_owned(),
            "",
        ),
        (
            "{\"asked\":{\"topic\":",
            "\"topic_name\":\"one\"".to_owned(),
            "\"topic_name\":\"o ne\"".to_owned(),
            "",
        ),
        ("{\"asked\":{\"group\":", "\"max_deliveries\":".to_owned(), "\"max_deliveries\":-".to_owned(), ""),
        ("{\"asked\":{\"bucket\":", "\"history\":1".to_owned(), "\"history\":0".to_owned(), "history"),
        (
            "{\"asked\":{\"keys\":",
            "\"key\":\"b\"".to_owned(),
            "\"key\":\"a\"".to_owned(),
            "does not come behind",
        ),
        (
            "{\"asked\":{\"deletions\":",
            "{\"ids\":[]}".to_owned(),
            "{\"flag\":true}".to_owned(),
            "something else",
        ),
        (
            "{\"asked\":{\"deletions\":",
            "{\"asked\":{\"deletions\":{\"topic\":\"one\"}}}".to_owned(),
            "{\"asked\":{\"deletions\":{\"topic\":\"two\"}}}".to_owned(),
            "does not say",
        ),
    ];
    for (head, found, put, says) in faults {
        let at = texts.iter().position(|text| text.starts_with(head)).expect("such a record");
        let mut forged = texts.clone();
        assert!(forged[at].contains(&found), "{found} in {}", forged[at]);
        forged[at] = forged[at].replacen(&found, &put, 1);
        let (file, places) = written(&forged);
        let refused = opened(&file).expect_err(&put);
        let FileError::Odd { record, at: place, why } = &refused else { panic!("{put}: {refused:?}") };
        assert!(why.contains(says), "{put}: {why}");
        if says != "does not say" {
            assert_eq!((*record, *place), (at as u64, places[at]), "{put}: {why}");
        }
    }
}
