//! Replies, whole and in pieces, and what is none.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

/// Bounds that nothing here passes.
const WIDE: Bounds = Bounds { bytes: 1 << 30, elements: 1 << 30, pass_over: false };

/// A reply as it is built, in place of bytes.
#[derive(Clone, Debug)]
enum Built {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Verbatim(String),
    Nil(&'static str),
    Array(Vec<Built>),
    Map(Vec<(Built, Built)>),
}

impl Built {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => out.extend(format!("+{text}\r\n").bytes()),
            Self::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
            Self::Integer(number) => out.extend(format!(":{number}\r\n").bytes()),
            Self::Bulk(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Self::Verbatim(text) => out.extend(format!("={}\r\ntxt:{text}\r\n", text.len() + 4).bytes()),
            Self::Nil(form) => out.extend(form.bytes()),
            Self::Array(parts) => {
                out.extend(format!("*{}\r\n", parts.len()).bytes());
                for part in parts {
                    part.write(out);
                }
            }
            Self::Map(pairs) => {
                out.extend(format!("%{}\r\n", pairs.len()).bytes());
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
        }
    }

    /// Checks that a reply says what was built.
    fn is_read_as(&self, reply: &Reply<'_>) {
        match (self, reply) {
            (Self::Simple(text), Reply::Simple(read)) | (Self::Error(text), Reply::Error(read)) => {
                assert_eq!(text.as_bytes(), *read);
            }
            (Self::Integer(number), Reply::Integer(read)) => assert_eq!(number, read),
            (Self::Bulk(bytes), Reply::Bulk(read)) => assert_eq!(bytes, read),
            (Self::Verbatim(text), Reply::Bulk(read)) => assert_eq!(text.as_bytes(), *read),
            (Self::Nil(_), Reply::Nil) => {}
            (Self::Array(parts), Reply::Array(read)) => same(parts.iter(), read.clone()),
            (Self::Map(pairs), Reply::Array(read)) => {
                same(pairs.iter().flat_map(|(key, value)| [key, value]), read.clone());
            }
            (built, read) => panic!("{built:?} is read as {read:?}"),
        }
    }
}

fn same<'a>(built: impl Iterator<Item = &'a Built>, mut read: Parts<'_>) {
    for built in built {
        built.is_read_as(&read.next().expect("as many as were built"));
    }
    assert_eq!(read.next(), None);
}

fn built() -> impl Strategy<Value = Built> {
    let leaf = prop_oneof![
        "[^\r\n]{0,40}".prop_map(Built::Simple),
        "[A-Z]{2,9} [^\r\n]{0,40}".prop_map(Built::Error),
        any::<i64>().prop_map(Built::Integer),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(Built::Bulk),
        any::<String>().prop_map(Built::Verbatim),
        prop::sample::select(&["_\r\n", "$-1\r\n", "*-1\r\n"][..]).prop_map(Built::Nil),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Built::Array),
            prop::collection::vec((inner.clone(), inner), 0..3).prop_map(Built::Map),
        ]
    })
}

const PUSH: &[u8] = b">3\r\n$7\r\nmessage\r\n+a\r\n*1\r\n:1\r\n";

/// Feeds bytes in pieces and cuts out the replies to requests of so many commands.
fn cut_within(
    bytes: &[u8],
    pieces: &[usize],
    requests: &[usize],
    bounds: &Bounds,
) -> Result<Vec<Cut>, Malformed> {
    let (mut read, mut cutter, mut cut) = (BytesMut::new(), Cutter::default(), Vec::new());
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
        read.extend_from_slice(piece);
        rest = behind;
        loop {
            let Some(commands) = requests.get(cut.len()) else {
                cutter.pass_over(&mut read, &mut |_| {})?;
                break;
            };
            let Some(replies) = cutter.cut(&mut read, *commands, bounds, &mut |_| {})? else { break };
            cut.push(replies);
        }
        // A line cannot be thrown away before its end.
        let kept_max = bounds.bytes.saturating_add(piece.len() + 100);
        assert!(!bounds.pass_over || read.len() <= kept_max, "{} are kept", read.len());
    }
    Ok(cut)
}

fn cut_in_pieces(bytes: &[u8], pieces: &[usize], requests: &[usize]) -> Result<Vec<Replies>, Malformed> {
    let replies = |cut| match cut {
        Cut::Replies(replies) => replies,
        Cut::TooLarge { .. } => panic!("nothing is too large here"),
    };
    Ok(cut_within(bytes, pieces, requests, &WIDE)?.into_iter().map(replies).collect())
}

/// Reads everything that a reply holds, in both ways.
fn read_all(parts: Parts<'_>) -> usize {
    let mut walk = parts.clone().walk();
    let (mut open, mut walked) = (parts.left(), 0);
    while open > 0 {
        walked += 1;
        open -= 1;
        match walk.step() {
            Some(Item::Elements(elements)) => open += elements,
            Some(Item::Push(elements)) => {
                // It stands beside the replies that were counted.
                open += elements + 1;
                walked -= elements + 1;
            }
            Some(_) => {}
            None => panic!("a reply is missing"),
        }
    }
    let each = |part| 1 + if let Reply::Array(parts) = part { read_all(parts) } else { 0 };
    assert_eq!(walked, parts.map(each).sum::<usize>());
    walked
}

proptest! {
    #[test]
    fn replies_come_out_as_they_were_built_however_they_arrive(
        built in prop::collection::vec((built(), any::<bool>()), 1..20),
        pieces in prop::collection::vec(1_usize..50, 1..10),
        split in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for (built, push) in &built {
            if *push {
                bytes.extend(PUSH);
            }
            built.write(&mut bytes);
        }
        bytes.extend(PUSH);
        let first = split.index(built.len());
        let requests: Vec<usize> = [first, built.len() - first].into_iter().filter(|count| *count > 0).collect();
        let replies = cut_in_pieces(&bytes, &pieces, &requests).expect("they are in form");
        let mut read = replies.iter().flat_map(Replies::iter);
        for (built, _) in &built {
            built.is_read_as(&read.next().expect("as many as were built"));
        }
        prop_assert_eq!(read.next(), None);
    }

    #[test]
    fn whatever_comes_is_read_or_refused_however_it_arrives(
        bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(b"+-:$*_=%>0123456789\r\n".to_vec()), any::<u8>()
        ], 0..200),
        pieces in prop::collection::vec(1_usize..20, 1..10),
        requests in prop::collection::vec(1_usize..4, 1..4),
    ) {
        let whole = cut_in_pieces(&bytes, &[bytes.len()], &requests);
        let in_pieces = cut_in_pieces(&bytes, &pieces, &requests);
        prop_assert_eq!(whole.is_err(), in_pieces.is_err());
        for replies in whole.into_iter().chain(in_pieces).flatten() {
            prop_assert!(requests.contains(&replies.iter().count()));
            read_all(replies.iter());
        }
    }

    #[test]
    fn one_changed_byte_is_read_or_refused(
        built in prop::collection::vec(built(), 1..8), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        for built in &built {
            built.write(&mut bytes);
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(cut) = cut_in_pieces(&bytes, &[7], &[built.len()]) {
            for replies in cut {
                prop_assert_eq!(replies.iter().count(), built.len());
                read_all(replies.iter());
            }
        }
    }
}

#[test]
fn forms_that_no_command_has_are_refused() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"\r\n",
        b"+OK\n",
        b":\r\n",
        b":1x\r\n",
        b":+1\r\n",
        b":9223372036854775808\r\n",
        b"_x\r\n",
        b"$-2\r\n",
        b"$1\r\nab\r\n",
        b"*-2\r\n",
        b"=3\r\ntxt\r\n",
        b"%-1\r\n",
        b",1.5\r\n",
        b"#t\r\n",
        b"(1\r\n",
        b"~0\r\n",
        b"|0\r\n",
        b"*1\r\n>0\r\n",
    ] {
        assert_eq!(extent(bytes), Err(Malformed::Form), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_nested_too_deep_or_has_no_end_of_a_line_is_refused() {
    let nested = |depth: usize| ["*1\r\n".repeat(depth), ":1\r\n".to_owned()].concat();
    assert_eq!(extent(nested(DEPTH_MAX).as_bytes()), Ok(Some(4 * (DEPTH_MAX + 1))));
    assert_eq!(extent(nested(DEPTH_MAX + 1).as_bytes()), Err(Malformed::TooDeep));
    assert_eq!(extent("%1\r\n".repeat(DEPTH_MAX + 1).as_bytes()), Err(Malformed::TooDeep));
    let line = |length: usize| [b"+".as_slice(), &vec![b'x'; length - 3], b"\r\n"].concat();
    assert_eq!(extent(&line(LINE_BYTES_MAX)), Ok(Some(LINE_BYTES_MAX)));
    assert_eq!(extent(&line(LINE_BYTES_MAX + 1)), Err(Malformed::LongLine));
}

/// Replies that pass bounds of 1,000 bytes and 100 elements, with what fits of the outermost array.
fn too_large() -> Vec<(Vec<u8>, usize)> {
    let text = |length: usize| format!("${length}\r\n{}\r\n", "x".repeat(length));
    vec![
        (text(1_000).into_bytes(), 0),
        (format!("*101\r\n{}", "_\r\n".repeat(101)).into_bytes(), 0),
        (format!("*2\r\n{}*101\r\n{}", text(1), "_\r\n".repeat(101)).into_bytes(), 1),
        (format!("*60\r\n{}", text(100).repeat(60)).into_bytes(), 9),
        (format!("*2\r\n{}*2\r\n{}{}", text(1), text(1), text(2_000)).into_bytes(), 1),
        ([b"-ERR ".as_slice(), &vec![b'>'; 1_000], b"\r\n"].concat(), 0),
    ]
}

#[test]
fn what_passes_a_bound_ends_the_connection_before_it_is_there() {
    let bounds = Bounds { bytes: 1_000, elements: 100, pass_over: false };
    for (bytes, _) in too_large() {
        for piece in [1, 7, 500, bytes.len()] {
            let cut = cut_within(&bytes, &[piece], &[1], &bounds);
            assert_eq!(cut.map(drop), Err(Malformed::TooLarge), "{}", bytes[..20].escape_ascii());
        }
    }
    for hostile in
        ["$1001\r\n", "$9223372036854775800\r\n", "*101\r\n", "%51\r\n", "*9223372036854775807\r\n"]
    {
        let cut = cut_within(hostile.as_bytes(), &[1], &[1], &bounds);
        assert_eq!(cut.map(drop), Err(Malformed::TooLarge), "{hostile}");
    }
    for hostile in ["$9223372036854775807\r\n", "%9223372036854775807\r\n", "$9223372036854775808\r\n"] {
        let _ = cut_within(hostile.as_bytes(), &[1], &[1], &WIDE).map(drop);
    }
    // Many replies are bounded together.
    let errors = b"-ERR no\r\n".repeat(200);
    assert_eq!(cut_within(&errors, &[50], &[200], &bounds).map(drop), Err(Malformed::TooLarge));
    assert!(cut_within(&errors, &[50], &[100, 100], &bounds).is_ok());
}

#[test]
fn what_may_be_passed_over_costs_no_memory_and_leaves_the_connection_in_order() {
    let bounds = Bounds { bytes: 1_000, elements: 100, pass_over: true };
    for (large, fits) in too_large() {
        let bytes = [PUSH, b":1\r\n", &large[..], b":2\r\n", PUSH, b":3\r\n:4\r\n"].concat();
        for piece in [1, 3, 7, 100] {
            let cut = cut_within(&bytes, &[piece], &[1, 2, 2], &bounds).expect("they are in form");
            let [Cut::Replies(one), Cut::TooLarge { fitting }, Cut::Replies(two)] = &cut[..] else {
                panic!("{cut:?}");
            };
            let numbers =
                |replies: &Replies| replies.iter().filter_map(|it| it.integer()).collect::<Vec<_>>();
            assert_eq!((numbers(one), numbers(two)), (vec![1], vec![3, 4]));
            // Of the piece that passes the bounds, some may have been counted already.
            assert!(
                (fits..=fits + piece / 3).contains(fitting),
                "{fitting} of {}",
                large[..20].escape_ascii()
            );
        }
    }
}

#[test]
fn messages_that_nobody_asked_for_are_bounded_too() {
    let long = format!(">2\r\n+a\r\n${}\r\n", 64 * 1024);
    let many = ">1025\r\n";
    for bytes in [long.as_bytes(), many.as_bytes()] {
        assert_eq!(cut_within(bytes, &[3], &[], &WIDE).map(drop), Err(Malformed::TooLarge));
        assert_eq!(cut_within(bytes, &[3], &[1], &WIDE).map(drop), Err(Malformed::TooLarge));
    }
}

#[test]
fn nothing_is_looked_at_twice() {
    let entry = |length: usize| {
        format!("*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n${length}\r\n{}\r\n", "x".repeat(length))
    };
    let bytes = format!("*40\r\n{}", [entry(5), entry(30_000)].concat().repeat(20)).into_bytes();
    for piece in [1, 10, 16 * 1024, bytes.len()] {
        let (mut scan, mut given, mut behind) = (Scan::default(), 0, 0);
        let mut looked_at = 0;
        while given < bytes.len() {
            let more = piece.min(bytes.len() - given);
            given += more;
            looked_at += given - behind;
            let step = scan.advance(&bytes[behind..given]).expect("in form");
            behind += step.taken;
            assert_eq!(step.is_whole, given == bytes.len());
            // But for a line whose end is not there.
            assert!(given - behind < 9, "{} are to be given again", given - behind);
        }
        assert_eq!(behind, bytes.len());
        assert!(looked_at < bytes.len() + 9 * bytes.len().div_ceil(piece), "{looked_at}");
    }
}

#[test]
fn replies_end_where_they_end_wherever_they_are_cut() {
    for text in
        ["+OK\r\n", "-ERR no\r\n", ":12\r\n", "$5\r\nhe\r\no\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n", "_\r\n"]
            .into_iter()
            .chain(["*2\r\n$1\r\na\r\n*1\r\n:3\r\n", "=8\r\ntxt:\r\n\r\n\r\n", "%1\r\n+a\r\n*0\r\n"])
    {
        let whole = [text.as_bytes(), b"+NEXT"].concat();
        assert_eq!(extent(&whole), Ok(Some(text.len())), "{text}");
        for cut in 0..text.len() {
            assert_eq!(extent(&whole[..cut]), Ok(None), "{text} cut at {cut}");
            let mut scan = Scan::default();
            let first = scan.advance(&whole[..cut]).expect("in form");
            assert!(!first.is_whole && first.taken <= cut, "{text} cut at {cut}");
            let step = scan.advance(&whole[first.taken..]).expect("in form");
            assert_eq!((first.taken + step.taken, step.is_whole), (text.len(), true), "{text} cut at {cut}");
        }
    }
}

#[test]
fn a_reply_that_nobody_asked_for_is_refused() {
    assert_eq!(cut_in_pieces(b"+OK\r\n+OK\r\n", &[3], &[1]).map(drop), Err(Malformed::Unasked));
}

#[test]
fn an_id_is_read_where_it_lies() {
    let mut read = BytesMut::from(&b"$15\r\n1517363399650-0\r\n*3\r\n:0\r\n$3\r\n1-2\r\n$1\r\nt\r\n"[..]);
    let cut = Cutter::default().cut(&mut read, 2, &WIDE, &mut |_| {}).expect("in form").expect("whole");
    let Cut::Replies(replies) = cut else { panic!("{cut:?}") };
    let mut replies = replies.iter();
    assert_eq!(replies.next(), Some(Reply::Bulk(b"1517363399650-0")));
    let Some(Reply::Array(parts)) = replies.next() else { panic!("an array") };
    assert_eq!(parts.collect::<Vec<_>>(), [Reply::Integer(0), Reply::Bulk(b"1-2"), Reply::Bulk(b"t")]);
}
