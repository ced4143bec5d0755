//! Devices in one process, with a clock that is set: how many there are, for how long, and what is kept of them.

use tidemill_proto::access::UserUpdate;

use super::super::tests::Ground;
use super::*;

const PASSWORD: &str = "correct horse";

async fn ground() -> Ground {
    let ground = Ground::new();
    let roles = Some(vec!["read".to_owned()]);
    let update = UserUpdate { roles, password: Some(PASSWORD.to_owned()), ..UserUpdate::default() };
    ground.root().put_user("ann", update).await.expect("a user");
    ground
}

async fn begin(ground: &Ground) -> Result<NewDevice, Code> {
    ground.access.begin_device(None, false, None).await.map_err(|refused| match refused {
        Refused::Problem(problem) => problem.code,
        other => panic!("{other:?}"),
    })
}

async fn decide(ground: &Ground, device: &NewDevice, lets_in: bool) -> Result<(), Refused> {
    ground.access.decide_device(&device.user_code, "ann", &PASSWORD.into(), lets_in, &Origin::default()).await
}

async fn ask(ground: &Ground, device: &NewDevice) -> DeviceAnswer {
    ground.access.device_tokens(&device.device_code).await.expect("the storage answers")
}

#[tokio::test]
async fn codes_are_good_for_ten_minutes() {
    let ground = ground().await;
    let (waiting, decided) = (begin(&ground).await.expect("codes"), begin(&ground).await.expect("codes"));
    decide(&ground, &decided, true).await.expect("it waits");
    let last = Duration::from_millis(1);
    ground.advance(CODES_LIFE.saturating_sub(last));
    assert!(matches!(ask(&ground, &waiting).await, DeviceAnswer::Pending));
    assert!(ground.access.waiting_device(&waiting.user_code).await.is_ok());
    ground.advance(last);
    assert!(matches!(ask(&ground, &waiting).await, DeviceAnswer::Expired));
    assert!(matches!(ask(&ground, &decided).await, DeviceAnswer::Expired), "also where a user has let it in");
    assert!(ground.access.waiting_device(&waiting.user_code).await.is_err());
    assert!(decide(&ground, &waiting, true).await.is_err());
}

#[tokio::test]
async fn so_many_wait_and_no_more_until_some_are_over() {
    let ground = ground().await;
    let first = begin(&ground).await.expect("codes");
    ground.advance(Duration::from_secs(1));
    for _ in 1..DEVICES_MAX {
        begin(&ground).await.expect("codes");
    }
    assert_eq!(begin(&ground).await.err(), Some(Code::Overloaded));
    assert!(ground.access.log_in("ann", &PASSWORD.into()).await.is_ok(), "users log in as before");
    decide(&ground, &first, true).await.expect("it waits");
    assert!(matches!(ask(&ground, &first).await, DeviceAnswer::Tokens(_)));
    let second = begin(&ground).await.expect("the place of the one that was let in");
    assert_eq!(begin(&ground).await.err(), Some(Code::Overloaded));
    ground.advance(CODES_LIFE);
    begin(&ground).await.expect("the others are over");
    assert!(matches!(ask(&ground, &second).await, DeviceAnswer::Expired));
}

#[tokio::test]
async fn who_asks_twice_at_once_is_answered_once() {
    let ground = ground().await;
    let device = begin(&ground).await.expect("codes");
    decide(&ground, &device, true).await.expect("it waits");
    let other = Ground::beside(ground.storage.clone());
    let answers = tokio::join!(ask(&ground, &device), ask(&other, &device), ask(&ground, &device));
    let is_let_in = |answer: &DeviceAnswer| matches!(answer, DeviceAnswer::Tokens(_));
    let answers = [answers.0, answers.1, answers.2];
    assert_eq!(answers.iter().filter(|answer| is_let_in(answer)).count(), 1, "{answers:?}");
}

#[tokio::test]
async fn what_a_user_may_no_longer_it_lets_nobody_do() {
    let ground = ground().await;
    let (one, refused) = (begin(&ground).await.expect("codes"), begin(&ground).await.expect("codes"));
    decide(&ground, &one, true).await.expect("it waits");
    decide(&ground, &refused, false).await.expect("it waits");
    let idle = UserUpdate { is_active: Some(false), ..UserUpdate::default() };
    ground.root().put_user("ann", idle).await.expect("a user");
    for device in [&one, &refused] {
        assert!(matches!(ask(&ground, device).await, DeviceAnswer::Denied));
        assert!(matches!(ask(&ground, device).await, DeviceAnswer::Expired), "it is told once");
    }
    let late = begin(&ground).await.expect("codes");
    assert!(decide(&ground, &late, true).await.is_err());
    assert!(matches!(ask(&ground, &late).await, DeviceAnswer::Pending));
}

#[tokio::test]
async fn codes_are_kept_as_hashes_and_are_read_as_people_type_them() {
    let ground = ground().await;
    let device = ground.access.begin_device(Some("a box"), true, None).await.expect("codes");
    let kept = ground.kept().await;
    assert!(kept.contains("a box"));
    let letters = device.user_code.replace('-', "");
    for secret in [&letters, &device.user_code, &device.device_code.expose_secret()[20..].to_owned()] {
        assert!(!kept.contains(secret), "{secret} is in {kept}");
    }
    let small = device.user_code.to_lowercase();
    for typed in [&*device.user_code, &small, &letters, &format!(" {small} "), &small.replace('-', " - ")] {
        let waiting = ground.access.waiting_device(typed).await.expect("it waits");
        assert_eq!((waiting.user_code, waiting.hint.as_deref()), (device.user_code.clone(), Some("a box")));
    }
    let long = "B".repeat(10_000);
    for wrong in ["", "-", "BCDF-GHJ", "BCDF-GHJKL", "ACDF-GHJK", "BCDF\u{0}GHJK", "BCDFéGHJK", &long] {
        assert!(ground.access.waiting_device(wrong).await.is_err(), "{wrong}");
    }
    // Letter by letter, as evenly as the hashes of a thousand codes show.
    let codes: std::collections::HashSet<_> = (0..1_000).map(|_| new_user_code()).collect();
    assert_eq!(codes.len(), 1_000);
    for letter in LETTERS {
        let count: usize = codes.iter().map(|code| code.bytes().filter(|byte| byte == letter).count()).sum();
        assert!((300..500).contains(&count), "{} stands {count} times among 8,000", char::from(*letter));
    }
}

#[tokio::test]
async fn who_takes_all_places_leaves_them_to_others() {
    let ground = ground().await;
    let address = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
    let begin = async |last: u8| {
        let begun = ground.access.begin_device(None, false, address(last)).await;
        ground.advance(Duration::from_millis(1));
        begun.map_err(|refused| match refused {
            Refused::Problem(problem) => problem,
            other => panic!("{other:?}"),
        })
    };
    let mut greedy = Vec::new();
    for _ in 0..DEVICES_MAX {
        greedy.push(begin(1).await.expect("codes"));
    }
    let refused = begin(1).await.expect_err("it has all places");
    assert_eq!(refused.code, Code::Overloaded);
    assert!(refused.retry_after_seconds.is_some_and(|seconds| seconds.abs_diff(600) <= 2), "{refused:?}");
    // The oldest is let in, and keeps its place.
    decide(&ground, &greedy[0], true).await.expect("it waits");
    decide(&ground, &greedy[3], false).await.expect("it waits");
    begin(1).await.expect("the place of the one that was refused");
    assert!(matches!(ask(&ground, &greedy[3]).await, DeviceAnswer::Expired));
    let other = begin(2).await.expect("a place");
    assert!(matches!(ask(&ground, &greedy[1]).await, DeviceAnswer::Expired), "it has given way");
    assert!(matches!(ask(&ground, &greedy[2]).await, DeviceAnswer::Pending));
    assert!(matches!(ask(&ground, &greedy[0]).await, DeviceAnswer::Tokens(_)));
    decide(&ground, &other, true).await.expect("it waits");
    assert!(matches!(ask(&ground, &other).await, DeviceAnswer::Tokens(_)));
}
