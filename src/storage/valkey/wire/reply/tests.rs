//! Replies, whole and in pieces, and what is none.

use proptest::prelude::*;

use super::*;

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
fn cut_in_pieces(bytes: &[u8], pieces: &[usize], requests: &[usize]) -> Result<Vec<Replies>, Malformed> {
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
            let Some(replies) = cutter.cut(&mut read, *commands, &mut |_| {})? else { break };
            cut.push(replies);
        }
    }
    Ok(cut)
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
            prop_assert_eq!(replies.iter().count(), replies.count);
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
fn what_passes_a_bound_is_refused_before_it_is_there() {
    let long = [b"+".as_slice(), &vec![b'x'; REPLY_BYTES_MAX]].concat();
    let many = format!("*{}\r\n", ELEMENTS_MAX + 1);
    let many_in_parts =
        format!("*2\r\n*{0}\r\n{1}*{0}\r\n{1}", ELEMENTS_MAX / 2 + 1, ":1\r\n".repeat(ELEMENTS_MAX / 2 + 1));
    for bytes in
        [&long[..], b"$65537\r\n", b"$9223372036854775807\r\n", many.as_bytes(), many_in_parts.as_bytes()]
    {
        assert_eq!(extent(bytes), Err(Malformed::TooLarge), "{}", bytes[..20].escape_ascii());
    }
    assert_eq!(extent("*1\r\n".repeat(DEPTH_MAX + 1).as_bytes()), Err(Malformed::Form));
    let error = [b"-ERR ".as_slice(), &[b'x'; 1_000], b"\r\n"].concat();
    let requests = REPLIES_BYTES_MAX / error.len() + 2;
    let mut read = BytesMut::from(&error.repeat(requests)[..]);
    assert_eq!(
        Cutter::default().cut(&mut read, requests + 1, &mut |_| {}).map(drop),
        Err(Malformed::TooLarge)
    );
}

#[test]
fn a_reply_that_nobody_asked_for_is_refused() {
    assert_eq!(cut_in_pieces(b"+OK\r\n+OK\r\n", &[3], &[1]).map(drop), Err(Malformed::Unasked));
}

#[test]
fn an_id_is_read_where_it_lies() {
    let mut read = BytesMut::from(&b"$15\r\n1517363399650-0\r\n*3\r\n:0\r\n$3\r\n1-2\r\n$1\r\nt\r\n"[..]);
    let replies = Cutter::default().cut(&mut read, 2, &mut |_| {}).expect("in form").expect("whole");
    let mut replies = replies.iter();
    assert_eq!(replies.next(), Some(Reply::Bulk(b"1517363399650-0")));
    let Some(Reply::Array(parts)) = replies.next() else { panic!("an array") };
    assert_eq!(parts.collect::<Vec<_>>(), [Reply::Integer(0), Reply::Bulk(b"1-2"), Reply::Bulk(b"t")]);
}
