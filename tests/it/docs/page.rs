//! Reads the fenced blocks of a page, and compares what a command prints with what the page says.

/// A fenced block.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    /// What stands after the opening fence.
    pub(super) marks: String,
    /// The text between the fences.
    pub(super) text: String,
}

/// Returns the fenced blocks of a page, in order.
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(marks)) => open = Some(Block { marks: marks.to_owned(), text: String::new() }),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Returns whether `text` is `pattern`, where `…` stands for any characters but a line break.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (mut patterns, mut lines) = (pattern.lines(), text.lines());
    loop {
        match (patterns.next(), lines.next()) {
            (None, None) => return true,
            (Some(pattern), Some(line)) if line_matches(pattern, line) => {}
            _ => return false,
        }
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else { return pattern == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    let cuts = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    cuts.into_iter().any(|at| line_matches(rest, &line[at..]))
}

#[test]
fn blocks_are_found_with_their_marks() {
    let page = "text\n```sh run\ncurl x\n```\n\n```json output\n{}\n```\n```\nplain\n```\n";
    let block = |marks: &str, text: &str| Block { marks: marks.to_owned(), text: text.to_owned() };
    assert_eq!(
        blocks(page),
        [block("sh run", "curl x\n"), block("json output", "{}\n"), block("", "plain\n")]
    );
}

#[test]
fn an_ellipsis_stands_for_anything_in_its_line() {
    for (pattern, text, expected) in [
        ("abc", "abc", true),
        ("abc", "abd", false),
        ("a…c", "ac", true),
        ("a…c", "abbc", true),
        ("a…c…e", "abcde", true),
        ("a…c", "abcd", false),
        ("a…", "a", true),
        ("…\n…", "one\ntwo", true),
        ("…", "one\ntwo", false),
        ("a\nb", "a", false),
        ("ö…", "öö", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern:?} and {text:?}");
    }
}
