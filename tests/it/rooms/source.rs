//! Finds the names that a Rust source takes from elsewhere, well enough to hold the rooms apart.
//!
//! It owns a small lexer (comments and literals go, identifiers and punctuation stay), the spreading of
//! `use` trees, and the telling apart of what is compiled for tests alone. It knows no rules, and no other
//! file.

/// What a file says of others.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The paths that it names, with `crate`, `self` and `super` in full.
    pub(super) paths: Vec<Path>,
    /// What its `use`s bind.
    pub(super) imports: Vec<Import>,
    /// The modules that it declares, those written inside it as well.
    pub(super) modules: Vec<Module>,
    /// Whether all of it is compiled for tests alone.
    pub(super) test: bool,
}

/// A path of at least two words, or a `use` of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) words: Vec<String>,
    /// Whether it stands in what is compiled for tests alone.
    pub(super) test: bool,
}

/// A name that a `use` binds; `*` for all that a module has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) path: Path,
}

/// A declared module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) test: bool,
}

/// A word or a punctuation mark.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Mark(char),
    /// A literal.
    Literal,
}

/// Reads `text`, a file of the module `module`.
pub(super) fn read(text: &str, module: &str) -> Source {
    let tokens = tokens_of(text);
    let mut reading = Reading {
        tokens: &tokens,
        module,
        inline: Vec::new(),
        depth: 0,
        test_until: 0,
        source: Source::default(),
    };
    reading.read();
    reading.source
}

/// A source while it is read.
struct Reading<'a> {
    tokens: &'a [Token],
    module: &'a str,
    /// The modules around this place that are written in the file, and how deep in braces they are.
    inline: Vec<(String, usize)>,
    depth: usize,
    /// The token up to which everything is compiled for tests alone.
    test_until: usize,
    source: Source,
}

impl Reading<'_> {
    fn read(&mut self) {
        let mut at = 0;
        while let Some(token) = self.tokens.get(at) {
            at = match token {
                Token::Mark('#') => self.attribute(at),
                Token::Mark('{') => {
                    self.depth += 1;
                    at + 1
                }
                Token::Mark('}') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline.pop_if(|(_, depth)| *depth > self.depth);
                    at + 1
                }
                Token::Word(word) if word == "use" => self.import(at + 1, &[], at),
                Token::Word(word) if word == "mod" => self.declaration(at),
                Token::Word(_) => {
                    let mut words = Vec::new();
                    let end = path_at(self.tokens, at, &mut words);
                    if words.len() > 1 {
                        let path = self.in_full(&words, at);
                        self.source.paths.push(path);
                    }
                    end
                }
                Token::Mark(_) | Token::Colons | Token::Literal => at + 1,
            };
        }
    }

    /// Reads `#` and sees whether it says that what follows is for tests; what stands in it is read like
    /// all else.
    fn attribute(&mut self, at: usize) -> usize {
        let all = self.tokens.get(at + 1) == Some(&Token::Mark('!'));
        let open = at + 1 + usize::from(all);
        if self.tokens.get(open) != Some(&Token::Mark('[')) {
            return at + 1;
        }
        let end = behind_group(self.tokens, open);
        let has = |word: &str| self.tokens[open..end].contains(&Token::Word(word.to_owned()));
        if has("cfg") && has("test") && !has("not") {
            if all {
                self.source.test = true;
                self.test_until = self.tokens.len();
            } else {
                self.test_until = self.test_until.max(behind_item(self.tokens, end));
            }
        }
        open + 1
    }

    /// Reads `mod name;` or `mod name {`.
    fn declaration(&mut self, at: usize) -> usize {
        let (Some(Token::Word(name)), Some(after)) = (self.tokens.get(at + 1), self.tokens.get(at + 2))
        else {
            return at + 1;
        };
        if !matches!(after, Token::Mark(';' | '{')) {
            return at + 1;
        }
        self.source.modules.push(Module { name: name.clone(), test: at < self.test_until });
        if *after == Token::Mark('{') {
            self.depth += 1;
            self.inline.push((name.clone(), self.depth));
        }
        at + 3
    }

    /// Reads one tree of a `use` that began at `start`, and returns where it ends.
    fn import(&mut self, mut at: usize, prefix: &[String], start: usize) -> usize {
        if self.tokens.get(at) == Some(&Token::Colons) {
            at += 1;
        }
        let mut words = prefix.to_vec();
        at = path_at(self.tokens, at, &mut words);
        if self.tokens.get(at) == Some(&Token::Colons) {
            at += 1;
        }
        match self.tokens.get(at) {
            Some(Token::Mark('{')) => {
                at += 1;
                while !matches!(self.tokens.get(at), None | Some(Token::Mark('}'))) {
                    at = match self.tokens[at] {
                        Token::Word(_) | Token::Colons | Token::Mark('{' | '*') => {
                            self.import(at, &words, start)
                        }
                        Token::Mark(_) | Token::Literal => at + 1,
                    };
                }
                at + 1
            }
            Some(Token::Mark('*')) => {
                self.bind("*".to_owned(), &words, start);
                at + 1
            }
            _ => {
                if words.last().is_some_and(|word| word == "self") {
                    words.pop();
                }
                let mut name = words.last().cloned();
                if self.tokens.get(at) == Some(&Token::Word("as".to_owned()))
                    && let Some(Token::Word(other)) = self.tokens.get(at + 1)
                {
                    name = Some(other.clone());
                    at += 2;
                }
                if let Some(name) = name {
                    self.bind(name, &words, start);
                }
                // Whatever is not understood must not be read for ever.
                at.max(start + 1)
            }
        }
    }

    fn bind(&mut self, name: String, words: &[String], start: usize) {
        let path = self.in_full(words, start);
        self.source.paths.push(path.clone());
        self.source.imports.push(Import { name, path });
    }

    /// Puts `crate`, `self` and `super` in full, of a path at this place.
    fn in_full(&self, words: &[String], at: usize) -> Path {
        let mut base: Vec<&str> = self.module.split("::").collect();
        base.extend(self.inline.iter().map(|(name, _)| name.as_str()));
        let rest = match words.first().map(String::as_str) {
            Some("crate") => {
                base.truncate(1);
                &words[1..]
            }
            Some("self") => &words[1..],
            Some("super") => {
                let ups = words.iter().take_while(|word| *word == "super").count();
                base.truncate(base.len().saturating_sub(ups).max(1));
                &words[ups..]
            }
            _ => {
                base.clear();
                words
            }
        };
        let words = base.into_iter().map(str::to_owned).chain(rest.iter().cloned()).collect();
        Path { words, test: at < self.test_until }
    }
}

/// Reads `word :: word :: …` and returns where it ends; a `::` before a group or a `*` is left over.
fn path_at(tokens: &[Token], mut at: usize, words: &mut Vec<String>) -> usize {
    while let Some(Token::Word(word)) = tokens.get(at) {
        words.push(word.clone());
        at += 1;
        match (tokens.get(at), tokens.get(at + 1)) {
            (Some(Token::Colons), Some(Token::Word(_))) => at += 1,
            _ => break,
        }
    }
    at
}

/// Returns where the group ends that opens at this place.
fn behind_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Returns where the item ends that begins at this place: behind its `;`, or its braces.
fn behind_item(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        at = match token {
            Token::Mark(';') => return at + 1,
            Token::Mark('{') => return behind_group(tokens, at),
            Token::Mark('(' | '[') => behind_group(tokens, at),
            _ => at + 1,
        };
    }
    at
}

fn tokens_of(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = blank(rest) {
            rest = &rest[length..];
        } else if let Some(length) = literal(rest) {
            tokens.push(Token::Literal);
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
            tokens.push(Token::Mark(first));
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
