//! Series of measurements: the rules, and the way to storage.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tidemill_proto::series::{
    POINT_COUNT_MAX, POINT_VALUE_MAX, SERIES_KEPT, SeriesMinute, SeriesState, SeriesTotal,
};
use tidemill_proto::{Problem, SeriesName, Timestamp};

use super::shown::{STEP_NAMES, Shown, shown};
use super::{Failure, Gate};
use crate::access::{Kind, Verb};
use crate::storage::Point;

/// Series to which one request adds at one time.
const AT_ONCE_MAX: usize = 64;

/// How much of a series may be read.
pub const SERIES_LAST: [Duration; 2] = [Duration::from_secs(1), SERIES_KEPT];

/// A point whose parts are well-formed, and not yet checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointDraft {
    /// What was measured.
    pub value: f64,
    /// How often.
    pub count: u32,
    /// When; now if absent.
    pub at: Option<Timestamp>,
}

/// Parses the name of a series.
///
/// # Errors
/// The text has another form.
pub fn parse_series(field: &str, text: &str) -> Result<SeriesName, Failure> {
    SeriesName::parse(text).map_err(|error| Problem::field(field, error).into())
}

impl PointDraft {
    fn checked(self) -> Result<Point, Failure> {
        if !(1..=POINT_COUNT_MAX).contains(&self.count) {
            let rule = format_args!("must be a whole number from 1 to {POINT_COUNT_MAX}");
            return Err(Problem::field("count", rule).into());
        }
        Point::new(self.value, self.count, self.at).ok_or_else(|| {
            let rule = format_args!("must be a number from -{POINT_VALUE_MAX:e} to {POINT_VALUE_MAX:e}");
            Problem::field("value", rule).into()
        })
    }
}

fn out_of_bounds() -> Failure {
    Problem::field(
        "at",
        "lies too far away: a point is of the last 24 hours, and at most a minute ahead; it was not added",
    )
    .into()
}

impl Gate {
    /// Adds a point to a series, and returns its minute with it.
    ///
    /// # Errors
    /// The caller may not, the point is out of bounds (the problem names the field), or the storage does not do it.
    pub async fn add_point(&self, series: &SeriesName, draft: PointDraft) -> Result<SeriesMinute, Failure> {
        self.check_series(Verb::Publish, series)?;
        let point = draft.checked()?;
        let added = self.relay().storage.series.add_points(series, &[point]).await;
        added.map_err(Failure::changed)?.first().copied().flatten().ok_or_else(out_of_bounds)
    }

    /// Adds points to several series, each for itself, those of one series in their order; and returns of each the minute
    /// with it, or why it was not added, as for one.
    ///
    /// # Panics
    /// Never: each has its own answer.
    pub async fn add_points(
        &self,
        points: &[(SeriesName, PointDraft)],
    ) -> Vec<Result<SeriesMinute, Box<Problem>>> {
        let mut results: Vec<Option<Result<SeriesMinute, Box<Problem>>>> = vec![None; points.len()];
        let mut of: HashMap<SeriesName, Vec<(usize, Point)>> = HashMap::new();
        for (at, (series, draft)) in points.iter().enumerate() {
            match self.check_series(Verb::Publish, series).and_then(|()| draft.checked()) {
                Ok(point) => of.entry(series.clone()).or_default().push((at, point)),
                Err(failure) => results[at] = Some(Err(Box::new(failure.problem().clone()))),
            }
        }
        let add = |(series, of): (SeriesName, Vec<(usize, Point)>)| {
            let storage = self.relay().storage.series.clone();
            async move {
                let points: Vec<Point> = of.iter().map(|(_, point)| *point).collect();
                let added = storage.add_points(&series, &points).await;
                (of, added.map_err(|error| Failure::changed(error).problem().clone()))
            }
        };
        let mut adding = stream::iter(of).map(add).buffer_unordered(AT_ONCE_MAX);
        while let Some((of, added)) = adding.next().await {
            for (nth, (at, _)) in of.into_iter().enumerate() {
                results[at] = Some(match &added {
                    Ok(minutes) => minutes
                        .get(nth)
                        .copied()
                        .flatten()
                        .ok_or_else(|| Box::new(out_of_bounds().problem().clone())),
                    Err(problem) => Err(Box::new(problem.clone())),
                });
            }
        }
        results.into_iter().map(|result| result.expect("each has its own")).collect()
    }

    /// Returns the minutes of a series of which a part lies within this time before now, and all of them together. A
    /// series that there is not has none.
    ///
    /// # Errors
    /// The caller may not, or the storage does not answer.
    pub async fn series(&self, series: &SeriesName, last: Duration) -> Result<SeriesState, Failure> {
        self.check_series(Verb::Read, series)?;
        let minutes = self.relay().storage.series.read_series(series, last).await;
        let minutes = minutes.map_err(|error| Failure::read(error, None))?;
        Ok(SeriesState { series: series.clone(), total: SeriesTotal::of(&minutes), minutes })
    }

    /// Returns a page of the series that begin so and that the caller may read, with behind which the next begins.
    ///
    /// # Errors
    /// The caller may read no series, too many that it may not read lie in between, or the storage did not answer.
    pub async fn list_series(
        &self,
        prefix: &str,
        after: Option<&SeriesName>,
        limit: usize,
    ) -> Result<(Vec<SeriesName>, Option<SeriesName>), Failure> {
        self.check_some_series(Verb::Read)?;
        let store = &self.relay().storage.series;
        let names = |after: Option<SeriesName>| async move {
            store.series_names(prefix, after.as_ref(), STEP_NAMES).await
        };
        let is_shown = |name: &SeriesName| self.check_series(Verb::Read, name).is_ok();
        let Shown { names, next } = shown("series", after, limit, names, is_shown).await?;
        Ok((names, next))
    }

    /// Forgets a series, if there is one.
    ///
    /// # Errors
    /// The caller may not, or the storage does not do it.
    pub async fn delete_series(&self, series: &SeriesName) -> Result<(), Failure> {
        self.check_series(Verb::Manage, series)?;
        self.relay().storage.series.delete_series(series).await.map_err(Failure::changed)
    }

    /// Checks that the caller may do this with a series: asked before a body is read.
    ///
    /// # Errors
    /// It may not.
    pub fn check_series(&self, verb: Verb, series: &SeriesName) -> Result<(), Failure> {
        Ok(self.caller().check_named(verb, Kind::Series, &[series.as_str()])?)
    }

    /// Checks that there may be a series with which the caller may do this: asked before a body is read.
    ///
    /// # Errors
    /// There can be none.
    pub fn check_some_series(&self, verb: Verb) -> Result<(), Failure> {
        Ok(self.caller().check_some_named(verb, Kind::Series)?)
    }
}
