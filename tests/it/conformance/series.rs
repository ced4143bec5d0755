//! Series of measurements.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill::proto::series::{POINT_AHEAD_MAX, POINT_COUNT_MAX, POINT_VALUE_MAX, SERIES_KEPT, SeriesMinute};
use tidemill::proto::{SeriesName, Timestamp};
use tidemill::storage::{Point, StorageError};
use tokio::task::JoinSet;

use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::ground::{Ground, SOON};

const MINUTE: Duration = Duration::from_mins(1);

fn name(text: &str) -> SeriesName {
    SeriesName::parse(text).expect("a name")
}

fn point(value: f64, at: Option<Timestamp>) -> Point {
    Point::new(value, 1, at).expect("a point")
}

fn begin_of(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis() / 60_000 * 60_000)
}

async fn added(ground: &Ground, series: &str, points: &[Point]) -> Vec<Option<SeriesMinute>> {
    ground.storage.series.add_points(&name(series), points).await.expect("it answers")
}

async fn names(ground: &Ground, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(name);
    let names = ground.storage.series.series_names(prefix, after.as_ref(), limit).await.expect("it answers");
    names.iter().map(ToString::to_string).collect()
}

async fn read(ground: &Ground, series: &str, last: Duration) -> Vec<SeriesMinute> {
    ground.storage.series.read_series(&name(series), last).await.expect("it answers")
}

pub(super) async fn points_are_in_their_minutes(ground: &Ground) {
    let now = ground.storage.upkeep.now();
    let at = begin_of(now.saturating_sub(10 * MINUTE));
    let second = |second: u64| Some(at.saturating_add(Duration::from_secs(second)));
    let first = added(ground, "a", &[point(2.5, second(0))]).await;
    assert_eq!(first, [Some(SeriesMinute { at, count: 1, sum: 2.5, min: 2.5, max: 2.5 })]);
    let often = Point::new(-1.0, 4, second(59)).expect("a point");
    let more = added(ground, "a", &[often, point(7.0, second(60)), point(0.0, second(59))]).await;
    let next = at.saturating_add(MINUTE);
    let both = SeriesMinute { at, count: 6, sum: -1.5, min: -1.0, max: 2.5 };
    let other = SeriesMinute { at: next, count: 1, sum: 7.0, min: 7.0, max: 7.0 };
    assert_eq!(more, [Some(SeriesMinute { count: 5, ..both }), Some(other), Some(both)]);
    assert_eq!(read(ground, "a", 30 * MINUTE).await, [both, other], "in order, without the empty ones");
    assert_eq!(read(ground, "a", SERIES_KEPT).await, [both, other]);
    assert_eq!(read(ground, "a", 5 * MINUTE).await, []);
    assert_eq!(read(ground, "b", SERIES_KEPT).await, [], "there is no such series");
    let before = begin_of(ground.storage.upkeep.now().saturating_sub(Duration::from_secs(1)));
    let one = added(ground, "now", &[point(1.0, None)]).await[0].expect("it is of now");
    assert!(one.at >= before && one.at <= ground.storage.upkeep.now(), "{one:?}");
    assert_eq!(read(ground, "now", Duration::from_secs(30)).await, [one]);
}

pub(super) async fn points_out_of_bounds_are_told_and_not_added(ground: &Ground) {
    let now = ground.storage.upkeep.now();
    let second = Duration::from_secs(1);
    let points = [
        point(1.0, Some(now.saturating_sub(SERIES_KEPT + 5 * second))),
        point(2.0, Some(now.saturating_sub(SERIES_KEPT.saturating_sub(30 * second)))),
        point(3.0, Some(now.saturating_add(POINT_AHEAD_MAX + 30 * second))),
        point(4.0, Some(now.saturating_add(POINT_AHEAD_MAX.saturating_sub(5 * second)))),
        point(5.0, Some(Timestamp::from_millis(0))),
        point(6.0, Some(Timestamp::MAX)),
    ];
    let told: Vec<_> = added(ground, "a", &points).await.iter().map(|one| one.map(|one| one.sum)).collect();
    assert_eq!(told, [None, Some(2.0), None, Some(4.0), None, None]);
    let sums = read(ground, "a", SERIES_KEPT).await.iter().map(|minute| minute.sum).collect::<Vec<_>>();
    assert_eq!(sums, [2.0, 4.0], "the oldest and the newest that there may be are read");
    assert_eq!(read(ground, "a", second).await.len(), 1, "what is ahead is there, too");
    assert_eq!(added(ground, "b", &points[4..]).await, [None, None]);
    assert_eq!(read(ground, "b", SERIES_KEPT).await, []);
}

pub(super) async fn however_many_add_every_point_is_there_once(ground: &Ground) {
    const WORKERS: u32 = 16;
    const TIMES: u32 = 50;

    let at = ground.storage.upkeep.now().saturating_sub(5 * MINUTE);
    let mut adding = JoinSet::new();
    for worker in 0..WORKERS {
        let storage = ground.storage.clone();
        adding.spawn(async move {
            for number in 0..TIMES {
                let value = f64::from(worker * TIMES + number);
                let points = [point(value, Some(at)), point(-value, Some(at))];
                let added = storage.series.add_points(&name("all"), &points).await.expect("it answers");
                assert!(added.iter().all(Option::is_some));
            }
        });
    }
    adding.join_all().await;
    let [all] = read(ground, "all", SERIES_KEPT).await[..] else { panic!("one minute") };
    let greatest = f64::from(WORKERS * TIMES - 1);
    let count = u64::from(WORKERS * TIMES * 2);
    assert_eq!(all, SeriesMinute { at: begin_of(at), count, sum: 0.0, min: -greatest, max: greatest });
}

/// Adds in the order of the points, as the contract says.
#[derive(Default)]
struct Model(BTreeMap<(usize, Timestamp), SeriesMinute>);

impl Model {
    fn add(&mut self, series: usize, point: &Point) -> SeriesMinute {
        let (value, at) = (point.value(), begin_of(point.at().expect("it has a time")));
        let count = f64::from(point.count());
        let kept = self.0.entry((series, at)).or_insert(SeriesMinute {
            at,
            count: 0,
            sum: 0.0,
            min: value,
            max: value,
        });
        *kept = SeriesMinute {
            at,
            count: kept.count + u64::from(point.count()),
            sum: kept.sum + value * count,
            min: kept.min.min(value),
            max: kept.max.max(value),
        };
        *kept
    }

    fn read(&self, series: usize) -> Vec<SeriesMinute> {
        self.0.iter().filter(|((of, _), _)| *of == series).map(|(_, minute)| *minute).collect()
    }
}

/// Returns a number of any size: of all bits, those of a fraction, whole, and the ends.
fn any(dice: &mut Dice) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "any number will do")]
    let whole = dice.roll(2_000) as f64 - 1_000.0;
    match dice.roll(5) {
        0 => whole,
        1 => whole / 3.0,
        2 => whole * 0.1,
        3 => dice.pick(&[0.0, -0.0, 5e-324, POINT_VALUE_MAX, -POINT_VALUE_MAX, f64::EPSILON, 1e15]),
        _ => loop {
            let number = f64::from_bits((dice.roll(1 << 32) << 32) | dice.roll(1 << 32));
            if number.abs() <= POINT_VALUE_MAX {
                break number;
            }
        },
    }
}

pub(super) async fn series_come_to_the_same_bits_as_the_model(ground: &Ground) {
    let mut dice = Dice::from_seed(1118);
    let mut model = Model::default();
    let now = ground.storage.upkeep.now();
    for _ in 0..300 {
        let series = usize::try_from(dice.roll(3)).expect("small");
        let times = if dice.chance(30) { 1_000 } else { dice.roll(6) + 1 };
        let points: Vec<Point> = (0..times)
            .map(|_| {
                let ago = Duration::from_millis(dice.roll(3) * 60_000 + dice.roll(60_000));
                let count = dice.pick(&[1, 1, 1, 2, 3, 1_000, POINT_COUNT_MAX]);
                let at = Some(now.saturating_sub(60 * MINUTE + ago));
                Point::new(any(&mut dice), count, at).expect("it is within bounds")
            })
            .collect();
        let expected: Vec<_> = points.iter().map(|point| Some(model.add(series, point))).collect();
        let told = added(ground, &format!("s{series}"), &points).await;
        assert_eq!(format!("{told:?}"), format!("{expected:?}"));
    }
    for series in 0..3 {
        let told = read(ground, &format!("s{series}"), SERIES_KEPT).await;
        assert_eq!(format!("{told:?}"), format!("{:?}", model.read(series)));
    }
}

pub(super) async fn a_series_that_is_deleted_begins_anew(ground: &Ground) {
    let at = Some(ground.storage.upkeep.now().saturating_sub(5 * MINUTE));
    added(ground, "a", &[point(1.0, at)]).await;
    added(ground, "ab", &[point(1.0, at)]).await;
    for _ in 0..2 {
        ground.storage.series.delete_series(&name("a")).await.expect("it is not there");
        assert_eq!(read(ground, "a", SERIES_KEPT).await, []);
    }
    assert_eq!(added(ground, "a", &[point(2.0, at)]).await[0].map(|minute| minute.count), Some(1));
    assert_eq!(read(ground, "ab", SERIES_KEPT).await.len(), 1, "another is another");
}

pub(super) async fn minutes_that_are_over_are_trimmed_and_the_rest_expires(ground: &Ground) {
    let server = ground.server();
    let now = ground.storage.upkeep.now();
    let minute = now.as_millis() / 60_000;
    let key = "tidemill:series:old";
    // As a node has left it that wrote last a day and some hours ago, where the clock was moved since.
    let old = minute - 1_500;
    let mut command: Vec<String> = ["HSET", key, "first"].map(str::to_owned).to_vec();
    command.push(old.to_string());
    for minute in old..old + 1_000 {
        command.extend([minute.to_string(), "2 3 1 2".to_owned()]);
    }
    server.command(&command).await;
    let day = read(ground, "old", SERIES_KEPT).await;
    assert!((938..=941).contains(&day.len()), "{}", day.len());
    added(ground, "old", &[point(1.0, Some(now))]).await;
    let fields = server.command(&["HLEN", key]).await.integer();
    // A day, with the first and the last minute begun, the new one, and `first`.
    assert!((939..=943).contains(&fields), "{fields}");
    let first: u64 = server.command(&["HGET", key, "first"]).await.text().parse().expect("a number");
    assert!(first >= minute - 1_440 && first <= minute - 1_438, "{}", minute - first);
    let ttl = server.command(&["TTL", key]).await.integer();
    assert!((86_400..=86_520).contains(&ttl), "{ttl}");
    // What is older than what was first is trimmed in its time, too.
    let early = Some(now.saturating_sub(SERIES_KEPT.saturating_sub(5 * MINUTE)));
    server.command(&["HSET", key, "first", &minute.to_string()]).await;
    added(ground, "old", &[point(1.0, early)]).await;
    let first: u64 = server.command(&["HGET", key, "first"]).await.text().parse().expect("a number");
    assert!(first < minute - 1_430, "{}", minute - first);
}

pub(super) async fn series_are_named_in_order_for_as_long_as_they_are_there(ground: &Ground) {
    assert_eq!(names(ground, "", None, 10).await, [""; 0]);
    for series in ["web.b", "a", "web:a", "web.a", "we", "-", "Z", "web.a-1"] {
        added(ground, series, &[point(1.0, None), point(2.0, None)]).await;
    }
    let all = ["-", "Z", "a", "we", "web.a", "web.a-1", "web.b", "web:a"];
    assert_eq!(names(ground, "", None, 10).await, all);
    assert_eq!(names(ground, "", None, 3).await, all[..3]);
    assert_eq!(names(ground, "", Some("a"), 2).await, all[3..5]);
    assert_eq!(
        names(ground, "", Some("b"), 10).await,
        all[3..],
        "a name that is none is a place all the same"
    );
    assert_eq!(names(ground, "web.", None, 10).await, all[4..7]);
    assert_eq!(names(ground, "web.", Some("a"), 10).await, all[4..7]);
    assert_eq!(names(ground, "web.", Some("web.a"), 1).await, all[5..6]);
    assert_eq!(names(ground, "web.", Some("web:a"), 10).await, [""; 0]);
    let long_ago = ground.storage.upkeep.now().saturating_sub(SERIES_KEPT + 2 * MINUTE);
    assert_eq!(added(ground, "b", &[point(1.0, Some(long_ago))]).await, [None]);
    ground.storage.series.delete_series(&name("web.a")).await.expect("it answers");
    assert_eq!(names(ground, "", None, 10).await, ["-", "Z", "a", "we", "web.a-1", "web.b", "web:a"]);
    added(ground, "web.a", &[point(1.0, None)]).await;
    assert_eq!(names(ground, "", None, 10).await, all);
}

pub(super) async fn names_of_series_that_are_gone_go_with_the_next_sweep(ground: &Ground) {
    const MANY: u32 = 700;

    let server = ground.server();
    let one = [point(1.0, None)];
    for number in 0..MANY {
        added(ground, &format!("s{number:03}"), &one).await;
    }
    // As they are gone by themselves.
    for number in (0..MANY).filter(|number| number % 7 != 3) {
        server.command(&["DEL", &format!("tidemill:series:s{number:03}")]).await;
    }
    let left: Vec<_> =
        (0..MANY).filter(|number| number % 7 == 3).map(|number| format!("s{number:03}")).collect();
    assert_eq!(names(ground, "", None, 1_000).await, left, "who asks is told of none that is gone");
    assert_eq!(names(ground, "", None, 5).await, left[..5]);
    let indexed = async || server.command(&["ZCARD", "tidemill:series"]).await.integer();
    assert_eq!(indexed().await, i64::from(MANY));
    eventually(SOON, async || {
        ground.storage.upkeep.sweep().await.expect("it sweeps");
        indexed().await == i64::from(MANY / 7)
    })
    .await;
    assert_eq!(names(ground, "", None, 1_000).await, left);
    // What the index has lost comes back with the next minute.
    server.command(&["DEL", "tidemill:series"]).await;
    let other_minute = Some(ground.storage.upkeep.now().saturating_sub(2 * MINUTE));
    added(ground, "s003", &[point(1.0, other_minute)]).await;
    assert_eq!(names(ground, "", None, 10).await, ["s003"]);
    server.command(&["SET", "tidemill:series", "x"]).await;
    let refused = ground.storage.series.series_names("", None, 1).await;
    let is_foreign = matches!(&refused, Err(StorageError::ForeignKey(of)) if &**of == "tidemill:series");
    assert!(is_foreign, "{refused:?}");
    assert!(added(ground, "other", &one).await[0].is_some(), "and points are added all the same");
}

pub(super) async fn a_key_of_another_program_is_not_a_series(ground: &Ground) {
    let server = ground.server();
    let minute = ground.storage.upkeep.now().as_millis() / 60_000;
    let at = Some(Timestamp::from_millis(minute * 60_000));
    let minute = minute.to_string();
    for (series, command, is_read) in [
        ("set", vec!["SADD", "tidemill:series:set", "x"], true),
        ("text", vec!["SET", "tidemill:series:text", "x"], true),
        ("hash", vec!["HSET", "tidemill:series:hash", "x", "1"], true),
        ("first", vec!["HSET", "tidemill:series:first", "first", "x"], true),
        ("minute", vec!["HSET", "tidemill:series:minute", "first", "1", &minute, "x"], false),
        ("number", vec!["HSET", "tidemill:series:number", "first", "1", &minute, "1 1 x 1"], false),
    ] {
        server.command(&command).await;
        let key = format!("tidemill:series:{series}");
        let is_foreign = |error: &StorageError| matches!(error, StorageError::ForeignKey(of) if **of == *key);
        let dump = async || server.command(&["DUMP", &*key]).await;
        let before = dump().await;
        let refused = ground.storage.series.add_points(&name(series), &[point(1.0, at)]).await;
        assert!(refused.as_ref().is_err_and(is_foreign), "{series}: {refused:?}");
        if is_read {
            let refused = ground.storage.series.read_series(&name(series), MINUTE).await;
            assert!(refused.as_ref().is_err_and(is_foreign), "{series}: {refused:?}");
            let refused = ground.storage.series.delete_series(&name(series)).await;
            assert!(refused.as_ref().is_err_and(is_foreign), "{series}: {refused:?}");
        }
        assert_eq!(dump().await, before, "{series}: it is left alone");
    }
}
