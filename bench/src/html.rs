//! The report as one page of HTML with charts, which needs nothing from elsewhere.
//!
//! The charts are two shapes, bars and lines: some tens of lines of SVG. A crate for charts would bring
//! fonts and rasters to draw the same.

use std::fmt::Write as _;

use crate::report::{Report, Row, Run, grouped, micros};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1d2a35}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem}h3{font-size:.95rem;margin:1.2rem 0 .3rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #dde4ea}\
th:first-child,td:first-child{text-align:left}\
.bad{color:#a3161a;font-weight:600}.dim{color:#5c6f7f}pre{overflow:auto;background:#f3f6f8;padding:.6rem}\
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#5c6f7f}";

/// Colours of lines, told apart also by those who do not see all of them.
const COLOURS: [&str; 6] = ["#0b6aa2", "#d1650a", "#2b8a3e", "#8d4bab", "#a3161a", "#5c6f7f"];

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;
/// Room for the numbers of the axes.
const LEFT: f64 = 90.0;
const BOTTOM: f64 = 24.0;

/// Returns the report as one page of HTML.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let machine = &report.machine;
    let _ = write!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Tidemill bench</title>\
         <style>{STYLE}</style></head><body><h1>Tidemill bench</h1><p class=\"dim\">{} · tidemill {} · {} · \
         {} ({} processors), load on the same machine unless the target says otherwise</p>",
        escape(&report.time),
        report.tidemill,
        escape(&machine.system),
        escape(&machine.processor),
        machine.cores,
    );
    if !report.comparison.is_empty() {
        verdicts(report, &mut out);
    }
    for run in &report.runs {
        section(run, &mut out);
    }
    out.push_str("</body></html>\n");
    out
}

fn verdicts(report: &Report, out: &mut String) {
    out.push_str("<h2>Comparison</h2><table><tr><th>what<th>measure<th>A<th>B<th>A/B<th>winner<th>by</tr>");
    for verdict in &report.comparison {
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.2}<td>{}<td>{}</tr>",
            escape(&verdict.what),
            verdict.measure,
            verdict.show(verdict.a),
            verdict.show(verdict.b),
            verdict.ratio,
            verdict.winner,
            verdict.margin().unwrap_or_default(),
        );
    }
    out.push_str("</table>");
}

fn section(run: &Run, out: &mut String) {
    let _ = write!(out, "<h2>{} on {}</h2>", escape(run.scenario), escape(&run.target));
    table(run, out);
    let timed: Vec<&Row> = run.rows.iter().filter(|row| row.latency.is_some()).collect();
    if !timed.is_empty() {
        out.push_str("<h3>Rate</h3>");
        bars(&run.rows, out);
        out.push_str("<h3>Latency by percentile</h3>");
        let curves: Vec<_> = timed.iter().map(|row| (row.what.as_str(), curve(row))).collect();
        let ticks = [(0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
        lines(&curves, &ticks.map(|(at, text)| (at, text.to_owned())), micros, out);
        out.push_str("<h3>Rate over time</h3>");
        let series: Vec<_> = timed.iter().map(|row| (row.what.as_str(), over_time(row))).collect();
        let end =
            series.iter().filter_map(|(_, points)| points.last()).map(|(at, _)| *at).fold(0.1, f64::max);
        let ticks: Vec<_> = (0..=5).map(|part| end * f64::from(part) / 5.0).collect();
        let ticks: Vec<_> = ticks.into_iter().map(|at| (at, format!("{at:.1} s"))).collect();
        lines(&series, &ticks, |rate| format!("{}/s", grouped(rate)), out);
    }
    let settings = serde_json::to_string_pretty(&run.settings).unwrap_or_default();
    let _ = write!(out, "<details><summary>Settings</summary><pre>{}</pre></details>", escape(&settings));
}

/// Returns times over nines: each further nine takes as much room as the one before.
fn curve(row: &Row) -> Vec<(f64, f64)> {
    let points = row.latency.iter().flat_map(|latency| &latency.curve);
    points.map(|(quantile, time)| (-(1.0 - quantile).log10(), *time)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a run has few tenths of seconds, and a point is a pixel")]
fn over_time(row: &Row) -> Vec<(f64, f64)> {
    row.per_tenth.iter().enumerate().map(|(at, count)| (at as f64 / 10.0, *count as f64 * 10.0)).collect()
}

fn table(run: &Run, out: &mut String) {
    out.push_str(
        "<table><tr><th>what<th>rate<th>count<th>p50<th>p90<th>p99<th>max<th>CPU target<th>CPU behind\
         <th>CPU load</tr>",
    );
    for row in &run.rows {
        out.push_str("<tr>");
        for cell in row.cells() {
            let _ = write!(out, "<td>{}", escape(&cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table><p class=\"dim\">CPU: seconds of processor for a million of what is counted</p>");
    for row in &run.rows {
        for (name, value) in &row.facts {
            let text = format!("{}: {} {value}", row.what, name.replace('_', " "));
            let _ = write!(out, "<p>{}</p>", escape(&text));
        }
        for line in row.trouble().into_iter().chain(row.stolen()) {
            let _ = write!(out, "<p class=\"bad\">{}: {}</p>", escape(&row.what), escape(&line));
        }
    }
}

fn bars(rows: &[Row], out: &mut String) {
    const EACH: f64 = 26.0;
    let most = rows.iter().map(|row| row.per_second).fold(f64::MIN_POSITIVE, f64::max);
    let mut y = 0.0;
    let mut body = String::new();
    for row in rows {
        let width = (WIDTH - 420.0) * row.per_second / most;
        let _ = write!(
            body,
            "<text x=\"0\" y=\"{:.0}\">{}</text><rect x=\"290\" y=\"{:.0}\" width=\"{width:.1}\" height=\"16\" \
             fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.0}\">{} {}/s</text>",
            y + 16.0,
            escape(&row.what),
            y + 4.0,
            COLOURS[0],
            width + 296.0,
            y + 16.0,
            grouped(row.per_second),
            row.unit,
        );
        y += EACH;
    }
    let _ = write!(out, "<svg viewBox=\"0 0 {WIDTH} {y:.0}\" role=\"img\">{body}</svg>");
}

/// Draws lines over one axis from the left, with 0 at the bottom.
fn lines(
    series: &[(&str, Vec<(f64, f64)>)],
    ticks: &[(f64, String)],
    show: impl Fn(f64) -> String,
    out: &mut String,
) {
    let points = || series.iter().flat_map(|(_, points)| points);
    let (x_most, y_most) = points().fold((f64::MIN_POSITIVE, f64::MIN_POSITIVE), |most, point| {
        (most.0.max(point.0), most.1.max(point.1))
    });
    let x = |value: f64| LEFT + (WIDTH - LEFT - 10.0) * value / x_most;
    let y = |value: f64| (HEIGHT - BOTTOM) - (HEIGHT - BOTTOM - 10.0) * value / y_most;
    let mut body = String::new();
    for part in 0..=4 {
        let value = y_most * f64::from(part) / 4.0;
        let at = y(value);
        let _ = write!(
            body,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dde4ea\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            show(value),
        );
    }
    for (at, text) in ticks.iter().filter(|(at, _)| *at <= x_most) {
        let y = HEIGHT - 6.0;
        let _ = write!(body, "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>", x(*at));
    }
    let mut legend = String::new();
    for ((name, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let path = path.join(" ");
        let _ = write!(
            body,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let _ = write!(legend, "<span style=\"color:{colour}\">■</span> {} &emsp;", escape(name));
    }
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">{body}</svg><p class=\"dim\">{legend}</p>"
    );
}

/// Returns text that stays where it is put: neither markup nor anything that turns what follows around.
fn escape(text: &str) -> String {
    let is_unsafe = |character: char| {
        (character.is_control() && character != '\n')
            || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = text.replace(is_unsafe, "\u{fffd}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_can_leave_its_place() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
        assert_eq!(escape("a\u{1b}[2J\u{202e}b\n"), "a\u{fffd}[2J\u{fffd}b\n");
    }

    #[test]
    fn lines_stay_in_their_frame() {
        let mut out = String::new();
        let points = vec![(0.0, 0.0), (1.0, 5.0), (2.0, 10.0)];
        lines(&[("a<b", points)], &[(1.0, "one".to_owned())], micros, &mut out);
        assert!(out.contains("points=\"90.0,196.0 490.0,103.0 890.0,10.0\""), "{out}");
        assert!(out.contains("a&lt;b"));
    }
}
