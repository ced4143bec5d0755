//! That names are put in order whatever part they are in, and that each has its part.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::connection::Work;
use super::super::options::{KeyForm, ValkeyOptions};
use super::super::target::Target;
use super::*;

/// Parts of an index where keys have braces.
const PARTS: usize = 16;

fn indexes(form: KeyForm) -> Indexes {
    let target = Target::parse("redis://127.0.0.1:1").expect("it is a server");
    let connection = Arc::new(Supervised::new("work", Work::Other, &ValkeyOptions::new(target)));
    Indexes::new(&connection, None, Keys::new(form))
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name")
}

/// Returns a page of what parts have, as it is asked for, and how many members came.
fn page(parts: &[BTreeSet<Vec<u8>>], first: usize, limit: usize) -> (Vec<TopicName>, usize) {
    let mut runs: Vec<Run<TopicName>> = (0..parts.len()).map(|part| Run::new(part, "-")).collect();
    let (mut names, mut came, mut asked) = (Vec::new(), 0, first);
    loop {
        merge(&mut runs, &mut names, limit);
        let mut open = runs.iter_mut().zip(parts).filter(|(run, _)| run.is_open()).peekable();
        if names.len() >= limit || open.peek().is_none() {
            return (names, came);
        }
        for (run, part) in open {
            let from = run.from().strip_prefix(b"(").map(<[u8]>::to_vec);
            let behind = |member: &&Vec<u8>| from.as_ref().is_none_or(|from| *member > from);
            let members: Vec<_> = part.iter().filter(behind).take(asked).collect();
            came += members.len();
            run.take_in(members.into_iter().map(Vec::as_slice), asked, |_| true);
        }
        asked = asked.max(4);
    }
}

proptest! {
    #[test]
    fn pages_have_the_names_of_all_parts_in_order(
        members in prop::collection::btree_map("[a-c]{1,4}|[a-c]{0,3}[ /\u{e9}]", 0..5_usize, 0..60),
        first in 1..6_usize,
        limit in 0..70_usize,
    ) {
        let mut parts = vec![BTreeSet::new(); 5];
        for (member, part) in &members {
            parts[*part].insert(member.clone().into_bytes());
        }
        let sorted = members.keys().filter_map(|member| TopicName::parse(member).ok());
        let (names, came) = page(&parts, first, limit);
        prop_assert_eq!(names, sorted.take(limit).collect::<Vec<_>>());
        prop_assert!(came <= members.len(), "nothing is asked for twice");
    }
}

#[test]
fn of_many_names_a_page_asks_for_few() {
    let mut parts = vec![BTreeSet::new(); PARTS];
    let index = indexes(KeyForm::Braces).topics;
    for number in 0..10_000 {
        let name = topic(&format!("topic-{number:05}"));
        parts[index.part_of(&name)].insert(name.member().as_bytes().to_vec());
    }
    for (limit, at_most) in [(1, 16), (10, 160), (1_000, 3_000)] {
        let (names, came) = page(&parts, share(limit, PARTS), limit);
        assert_eq!(names.len(), limit);
        assert_eq!(names.last(), Some(&topic(&format!("topic-{:05}", limit - 1))));
        assert!(came <= at_most, "{limit}: {came}");
    }
    assert_eq!(share(1_000, 1), 1_000);
}

#[test]
fn the_part_of_a_name_is_that_of_its_keys_and_never_another() {
    let keys = Keys::new(KeyForm::Braces);
    let of_key = |key: &str| keys.part_of(key.slot());
    let all = indexes(KeyForm::Braces);
    for (name, part) in [("orders", 0), ("foo", 11), ("bar", 4), ("a:b.c", 14)] {
        let topic = topic(name);
        assert_eq!((all.topics.part_of(&topic), all.schedules.part_of(&topic)), (part, part), "{name}");
        assert_eq!(of_key(&keys.stream(&topic)), part, "{name}");
        assert_eq!(indexes(KeyForm::Plain).topics.part_of(&topic), 0);
    }
    for name in ["flows", "presence/lobby"] {
        let bucket = BucketName::parse_kept(name).expect("a name");
        let [log, facts, ..] = keys.bucket(&bucket);
        assert_eq!(of_key(&log), of_key(&facts));
        assert_eq!(
            (all.buckets.part_of(&bucket), all.expiring.part_of(&bucket)),
            (of_key(&log), of_key(&log))
        );
    }
    let series = SeriesName::parse("latency").expect("a name");
    assert_eq!(all.series.part_of(&series), of_key("tidemill:series:latency"));
    let parts: BTreeSet<_> =
        (0..200).map(|number| all.topics.part_of(&topic(&format!("t{number}")))).collect();
    assert_eq!(parts.len(), 16, "and each part has some");
}

#[test]
fn changes_go_to_the_parts_of_their_names() {
    let index = indexes(KeyForm::Braces).schedules;
    let names = ["orders", "foo", "bar", "foo"].map(topic);
    let kinds = [Change::Added, Change::Earlier(5), Change::Removed, Change::At(7)];
    let changes = index.changes(names.iter().zip(kinds));
    assert_eq!(changes.count, 4);
    let text = |part: usize| String::from_utf8_lossy(changes.parts[part].0.bytes()).replace("\r\n", " ");
    assert_eq!(text(0), "*4 $4 ZADD $26 tidemill:schedules:{0ajvz} $1 0 $6 orders ");
    assert_eq!(text(4), "*3 $4 ZREM $25 tidemill:schedules:{4mgx} $3 bar ");
    assert_eq!(
        text(11),
        "*5 $4 ZADD $26 tidemill:schedules:{bbkik} $2 LT $1 5 $3 foo *4 $4 ZADD $26 tidemill:schedules:{bbkik} $1 7 $3 foo "
    );
    let places: Vec<_> = [0, 4, 11].map(|part| changes.parts[part].1.clone()).into();
    assert_eq!(places, [vec![0], vec![2], vec![1, 3]]);
    assert!(
        changes
            .parts
            .iter()
            .enumerate()
            .all(|(part, (request, _))| { [0, 4, 11].contains(&part) || request.bytes().is_empty() })
    );
}
