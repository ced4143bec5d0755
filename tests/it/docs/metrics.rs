//! What is said of metrics: their page, which is made from the code; the alerts, which `promtool` tries; and the board.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use tidemill::metrics::{Description, Kind, Metrics};

use super::{root, text_of};

const PAGE: &str = "docs/metrics.md";
const RULES: &str = "deploy/prometheus/tidemill.rules.yml";
const BOARD: &str = "deploy/grafana/tidemill.json";

const HEAD: &str = "# Metrics

What `/metrics` tells, for Prometheus. This page is made from the code. No label holds a user, or anything that a client can make up; `topics` has what `TIDEMILL_LIMIT_KEPT_BYTES` names, a topic or a pattern. `/metrics` is for who may administer the relay; `TIDEMILL_METRICS_LISTEN` gives it an address of its own, for who reaches that.

```yaml
scrape_configs:
  - job_name: tidemill
    authorization: {credentials_file: /etc/prometheus/tidemill.token}   # of who may administer the relay
    static_configs: [{targets: [\"relay-1:8080\", \"relay-2:8080\"]}]
rule_files: [tidemill.rules.yml]
```

`deploy/prometheus/tidemill.rules.yml` has alerts (below), and `deploy/grafana/tidemill.json` a board to import; the [packages](install.md) have both (`/usr/share/tidemill`, and `share` of the archive). A family with labels is absent until it has a value: what has not happened yet is no `0`, so write `or vector(0)` where that matters. Each relay tells of itself: what is a sum over all of them is added up there, and what all of them see of one backend is not.
";

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// Returns the alerts of the file: the name of each, how grave it is, and what it means.
fn alerts() -> Vec<[String; 3]> {
    let rules = text_of(RULES);
    let field = |rule: &str, name: &str| {
        let (_, rest) = rule.split_once(&format!("{name}: ")).expect("each rule has it");
        rest.lines().next().expect("a line").trim_matches('"').to_owned()
    };
    let of = |rule: &str| {
        let (name, _) = rule.split_once('\n').expect("more than a line");
        let severity = field(rule, "severity").trim_end_matches('}').to_owned();
        [name.to_owned(), severity, field(rule, "description")]
    };
    rules.split("- alert: ").skip(1).map(of).collect()
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut about = "";
    for Description { about: heading, name, kind: of, labels, text } in Metrics::new().described() {
        if heading != about {
            let _ = write!(page, "\n## {heading}\n\n| metric | | |\n|---|---|---|\n");
            about = heading;
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(page, "| `{name}{labels}` | {} | {text} |", kind(of));
    }
    page.push_str("\n## Alerts\n\n| alert | | what it means |\n|---|---|---|\n");
    for [name, severity, text] in alerts() {
        let _ = writeln!(page, "| `{name}` | {severity} | {text} |");
    }
    page
}

#[test]
fn every_metric_is_explained() {
    let path = root().join(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "{PAGE} is not up to date: run this test with UPDATE_DOCS=1");
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_of_name = |character: char| character.is_ascii_lowercase() || character == '_';
    let words = text.split(move |character| !is_of_name(character));
    words.filter(|word| word.starts_with("tidemill_"))
}

#[test]
fn documents_alerts_and_the_board_name_metrics_that_there_are() {
    let described: HashMap<&str, Kind> =
        Metrics::new().described().into_iter().map(|one| (one.name, one.kind)).collect();
    assert!(described.len() > 50);
    for file in ["docs/operations.md", RULES, "deploy/prometheus/tidemill.tests.yml", BOARD] {
        let mut seen = 0;
        for name in names(&text_of(file)).filter(|name| !name.ends_with('_')) {
            seen += 1;
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_there = described.contains_key(name)
                || of_histogram.is_some_and(|name| described.get(name) == Some(&Kind::Histogram));
            assert!(is_there, "{file}: there is no metric {name}");
        }
        assert!(seen > 0, "{file} names none");
    }
}

#[test]
fn the_board_is_one_and_its_panels_do_not_overlap() {
    let board: serde_json::Value = serde_json::from_str(&text_of(BOARD)).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let mut taken = std::collections::HashSet::new();
    let mut ids = std::collections::HashSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let of = |side: &str| panel["gridPos"][side].as_u64().expect("a number");
        assert!(of("x") + of("w") <= 24, "{panel}");
        for (x, y) in
            (of("x")..of("x") + of("w")).flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert((x, y)), "{panel} lies over another");
        }
    }
}

/// Every alert fires when it should, and no other with it; and there is a test of each.
#[test]
fn alerts_fire_when_they_should() {
    let folder = root().join("deploy/prometheus");
    let tests = text_of("deploy/prometheus/tidemill.tests.yml");
    for [name, ..] in alerts() {
        assert!(tests.contains(&format!("- name: {name}\n")), "there is no test of {name}");
    }
    let promtool =
        Command::new("promtool").args(["test", "rules", "tidemill.tests.yml"]).current_dir(folder).output();
    let Ok(done) = promtool else {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "promtool is not found: in CI a skipped test is a failure");
        eprintln!("skipped: promtool is not on the PATH");
        return;
    };
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}
