//! What is said of several servers: what is alike once, with who has it.

/// Returns what was said of servers, each thing once and in the order in which it came first, with the names of those of
/// whom it was said; without a name where there is one server, which needs none.
pub(super) fn alike<T: PartialEq>(
    servers: usize,
    said: impl IntoIterator<Item = (Option<String>, T)>,
) -> impl Iterator<Item = (String, T)> {
    let mut all: Vec<(T, Vec<String>)> = Vec::new();
    for (server, what) in said {
        match all.iter_mut().find(|(known, _)| *known == what) {
            Some((_, named)) => named.extend(server),
            None => all.push((what, server.into_iter().collect())),
        }
    }
    all.into_iter().map(move |(what, named)| {
        let are_all = named.len() == servers && servers > 1;
        (if are_all { "every server".to_owned() } else { named.join(", ") }, what)
    })
}

/// Returns warnings about servers, as sentences.
pub(super) fn by_server(
    servers: usize,
    warnings: impl IntoIterator<Item = (Option<String>, String)>,
) -> Vec<String> {
    let tell = |(named, warning): (String, String)| {
        if named.is_empty() { warning } else { format!("{named}: {warning}") }
    };
    alike(servers, warnings).map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_said_once() {
        let said = |servers, warnings: &[(Option<&str>, &str)]| {
            let warnings =
                warnings.iter().map(|(server, text)| (server.map(str::to_owned), (*text).to_owned()));
            by_server(servers, warnings)
        };
        assert_eq!(said(1, &[(None, "low"), (None, "high")]), ["low", "high"]);
        let three = [(Some("a"), "low"), (Some("a"), "high"), (Some("b"), "high"), (Some("c"), "high")];
        assert_eq!(said(3, &three), ["a: low", "every server: high"]);
        assert_eq!(said(4, &three), ["a: low", "a, b, c: high"]);
    }
}
