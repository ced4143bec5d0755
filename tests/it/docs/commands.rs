//! Whether the page on the command line has all commands.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use tidemill::cli::Cli;

use super::{quoted, text_of};

#[test]
fn the_table_of_commands_has_each_that_the_help_lists() {
    let page = text_of("docs/cli.md");
    let table = page.lines().filter(|line| line.starts_with("| `tidemill "));
    let first = table.filter_map(|line| line.split('|').nth(1)).flat_map(quoted);
    let told: BTreeSet<_> =
        first.map(|name| name.strip_prefix("tidemill ").unwrap_or(name).to_owned()).collect();
    let help = Cli::command();
    let there: BTreeSet<_> = help
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    assert_eq!(told, there);
}
