//! Fields of what `INFO` tells, as text.

/// Returns the value of a field, if it is told.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Server\r\nrun_id:0af1\r\nrun:2\r\nempty:\r\n";
        assert_eq!(field(info, "run_id"), Some("0af1"));
        assert_eq!(field(info, "run"), Some("2"));
        assert_eq!(field(info, "empty"), Some(""));
        assert_eq!(field(info, "# Server"), None);
        assert_eq!(field(info, "id"), None);
    }
}
