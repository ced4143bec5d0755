//! Limits of applications: takes, looks and refunds.

use tidemill::proto::takes::{PolicyRequest, TakeRequest};
use tidemill::proto::{Code, LimitName};
use tidemill::storage::Storage;
use tidemill_client::{ClientError, Encoding};

use super::{client, on_both_backends};
use crate::support::relay::TestRelay;

on_both_backends!(limits_are_taken_looked_at_and_given_back);

async fn limits_are_taken_looked_at_and_given_back(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let limits = client(relay.address.port(), Encoding::Json).limits().expect("the options are right");
    let name = LimitName::parse("mail").expect("a name");
    let policy = PolicyRequest { limit: 2, per: "1h".to_owned(), burst: None };
    let one = TakeRequest { cost: None, policies: vec![policy.clone()] };
    for remaining in [1, 0] {
        let taken = limits.take(&name, &one).await.expect("an answer");
        assert_eq!((taken.allowed, taken.remaining), (true, remaining));
    }
    let refused = limits.take(&name, &one).await.expect("an answer");
    assert!(!refused.allowed && !refused.retry_after.0.is_zero(), "{refused:?}");
    assert!(!limits.peek(&name, &one).await.expect("an answer").allowed);
    assert_eq!(limits.refund(&name, &one).await.expect("an answer").remaining, 1);
    assert!(limits.peek(&name, &one).await.expect("an answer").allowed);
    let much = TakeRequest { cost: Some(3), policies: vec![policy] };
    let error = limits.take(&name, &much).await.expect_err("it could never pass");
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidField, Some("cost")));
    relay.stop().await;
}
