//! What is said of several servers: each warning once, with who has it.

/// Returns the warnings in the order in which they were given first, each with the servers that have it in front; `None`
/// stands for the only server, which needs no name.
pub(super) fn by_server(
    servers: usize,
    warnings: impl Iterator<Item = (Option<String>, String)>,
) -> Vec<String> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for (server, warning) in warnings {
        match all.iter_mut().find(|(known, _)| *known == warning) {
            Some((_, named)) => named.extend(server),
            None => all.push((warning, server.into_iter().collect())),
        }
    }
    let tell = |(warning, named): (String, Vec<String>)| match named.len() {
        0 => warning,
        count if count == servers && count > 1 => format!("every server: {warning}"),
        _ => format!("{}: {warning}", named.join(", ")),
    };
    all.into_iter().map(tell).collect()
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
