//! Finds the paths that a Rust source names, well enough to hold the rooms apart.
//!
//! It owns a small lexer (comments and literals go, identifiers and punctuation stay) and the spreading
//! of `use` trees. It knows no rules.

/// A word or a punctuation mark that paths are made of.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Open,
    Close,
    Comma,
    /// Anything else ends a path.
    Other,
}

/// Returns every path in `text`, a file of the module `module`, with `crate`, `self` and `super` put
/// in full: `use crate::{a, b::c};` in the crate `x` names `x::a` and `x::b::c`.
pub(super) fn paths_in(text: &str, module: &str) -> Vec<String> {
    let tokens = tokens_of(text);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == Token::Word("use".to_owned()) {
            at = spread(&tokens, at + 1, &[], &mut paths);
        } else if matches!(tokens[at], Token::Word(_)) {
            let mut path = Vec::new();
            at = path_at(&tokens, at, &mut path);
            if path.len() > 1 {
                paths.push(path);
            }
        } else {
            at += 1;
        }
    }
    paths.into_iter().map(|path| in_full(&path, module)).collect()
}

/// Reads `word :: word :: …` and returns where it ends; a `::` before a group or a `*` is left over.
fn path_at(tokens: &[Token], mut at: usize, path: &mut Vec<String>) -> usize {
    while let Some(Token::Word(word)) = tokens.get(at) {
        path.push(word.clone());
        at += 1;
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some(Token::Colons), Some(Token::Word(_))) => at += 1,
            _ => break,
        }
    }
    at
}

/// Reads one tree of a `use`, adds its paths below `prefix`, and returns where it ends.
fn spread(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    if tokens.get(at) == Some(&Token::Colons) {
        at += 1;
    }
    let mut path = prefix.to_vec();
    at = path_at(tokens, at, &mut path);
    if tokens.get(at) == Some(&Token::Colons) {
        at += 1;
    }
    if tokens.get(at) != Some(&Token::Open) {
        paths.push(path);
        // Past `as name` and `*`, up to what ends this tree.
        while !matches!(tokens.get(at), None | Some(Token::Comma | Token::Close)) {
            if matches!(tokens.get(at), Some(Token::Other)) {
                return at + 1;
            }
            at += 1;
        }
        return at;
    }
    at += 1;
    while !matches!(tokens.get(at), None | Some(Token::Close)) {
        at = match tokens[at] {
            Token::Comma | Token::Other => at + 1,
            _ => spread(tokens, at, &path, paths),
        };
    }
    at + 1
}

/// Puts `crate`, `self` and `super` in full.
fn in_full(path: &[String], module: &str) -> String {
    let mut base: Vec<&str> = module.split("::").collect();
    let rest = match path.first().map(String::as_str) {
        Some("crate") => {
            base.truncate(1);
            &path[1..]
        }
        Some("self") => &path[1..],
        Some("super") => {
            let ups = path.iter().take_while(|word| *word == "super").count();
            base.truncate(base.len().saturating_sub(ups).max(1));
            &path[ups..]
        }
        _ => {
            base.clear();
            path
        }
    };
    base.extend(rest.iter().map(String::as_str));
    base.join("::")
}

fn tokens_of(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = blank(rest) {
            rest = &rest[length..];
        } else if let Some(length) = literal(rest) {
            tokens.push(Token::Other);
            rest = &rest[length..];
        } else if is_word(first) {
            let raw = rest.strip_prefix("r#").unwrap_or(rest);
            let length = raw.find(|character| !is_word(character)).unwrap_or(raw.len());
            tokens.push(Token::Word(raw[..length].to_owned()));
            rest = &raw[length..];
        } else if let Some(after) = rest.strip_prefix("::") {
            tokens.push(Token::Colons);
            rest = after;
        } else {
            tokens.push(match first {
                '{' => Token::Open,
                '}' => Token::Close,
                ',' => Token::Comma,
                _ => Token::Other,
            });
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the length of the white space or comment that `text` starts with.
fn blank(text: &str) -> Option<usize> {
    if text.starts_with(char::is_whitespace) {
        return text.chars().next().map(char::len_utf8);
    }
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    Some(text.len())
}

/// Returns the length of the text, byte or character literal that `text` starts with. A lifetime is
/// none.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with('"')
                || (prefix.ends_with('r') && rest.trim_start_matches('#').starts_with('"'))
                || (matches!(*prefix, "b" | "") && rest.starts_with('\''))
        })
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let start = prefix.len() + hashes + 1;
        return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    let quote = body.as_bytes()[0];
    if quote == b'\'' && !is_character(body) {
        return None;
    }
    let mut escaped = false;
    for (at, byte) in body.bytes().enumerate().skip(1) {
        if escaped {
            escaped = false;
        } else if byte == b'\\' {
            escaped = true;
        } else if byte == quote {
            return Some(prefix.len() + at + 1);
        }
    }
    Some(text.len())
}

/// Returns whether what starts with a single quote is a character, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut characters = text.chars().skip(1);
    match characters.next() {
        Some('\\') => true,
        Some(_) => characters.next() == Some('\''),
        None => false,
    }
}
