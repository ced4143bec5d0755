//! Pacing: when a lane sends, and how much at a time. Numbers in, decisions out.
//!
//! It knows neither messages nor time: there is no timer. A message that finds the lane at rest is sent at
//! once; what arrives while pipelines are under way waits for one of them, or until there is enough for
//! another behind them.

/// Most messages taken into one pipeline. Past a few hundred a larger one gains little, and the
/// first message in it waits for the last. A single call's batch is never split.
pub(super) const PIPELINE_MESSAGES_MAX: usize = 512;
/// Most message bytes taken into one pipeline, so that one pipeline stays far from any timeout.
const PIPELINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages that have to wait before they are sent behind a pipeline that is under way: half as many as
/// that has, within these bounds. So some take turns, of a size that what a pipeline costs, whatever is in
/// it, is little for each message.
const BEHIND_MESSAGES_MIN: usize = 12;
const BEHIND_MESSAGES_MAX: usize = 128;
/// Pipelines of a lane that are under way: one with the server, one on its way, and one whose publishers are
/// being answered. With fewer, all messages of a small crowd of publishers can wait for one and the same.
const PIPELINES_MAX: usize = 3;
/// Most calls answered at once behind which a lane goes on at once: as many as one connection has.
const CALLS_FEW: usize = 4;

const _: () = assert!(BEHIND_MESSAGES_MIN <= BEHIND_MESSAGES_MAX);
const _: () = assert!(BEHIND_MESSAGES_MAX <= PIPELINE_MESSAGES_MAX, "what is enough fits into one pipeline");

/// What a lane does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is under way: waits for a message and sends what there is then.
    Rest,
    /// Sends what waits.
    Send,
    /// Waits until a pipeline is answered, or before that until enough wait for another.
    AnswerOrEnough,
    /// Waits until a pipeline is answered.
    Answer,
}

/// Returns what a lane does that has so many pipelines under way, while so many messages wait and so many
/// are [enough](enough_behind).
pub(super) const fn next(pipelines: usize, waiting: usize, enough: usize) -> Step {
    if pipelines == 0 {
        Step::Rest
    } else if pipelines >= PIPELINES_MAX {
        Step::Answer
    } else if waiting >= enough {
        Step::Send
    } else {
        Step::AnswerOrEnough
    }
}

/// Returns how many messages are enough to be sent behind a pipeline of so many. Before there was one, it is
/// that of the smallest.
pub(super) fn enough_behind(messages: usize) -> usize {
    (messages / 2).clamp(BEHIND_MESSAGES_MIN, BEHIND_MESSAGES_MAX)
}

/// Returns whether a pipeline with so much in it takes another call's messages.
pub(super) const fn takes_more(messages: usize, bytes: usize) -> bool {
    messages < PIPELINE_MESSAGES_MAX && bytes < PIPELINE_BYTES_MAX
}

/// Returns whether a lane that has answered so many calls lets the publishers go first: they may have
/// something to send at once, which then comes along.
pub(super) const fn lets_go_first(calls: usize) -> bool {
    calls > CALLS_FEW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_this_one() {
        // Pipelines under way, messages that wait, messages of the pipeline sent last.
        for (pipelines, waiting, sent, step) in [
            (0, 0, 0, Step::Rest),
            (0, 1_000, 1, Step::Rest),
            (1, 0, 1, Step::AnswerOrEnough),
            (1, 11, 1, Step::AnswerOrEnough),
            (1, 12, 1, Step::Send),
            (1, 12, 24, Step::Send),
            (1, 12, 26, Step::AnswerOrEnough),
            (1, 13, 26, Step::Send),
            (2, 49, 100, Step::AnswerOrEnough),
            (2, 50, 100, Step::Send),
            (2, 127, 512, Step::AnswerOrEnough),
            (2, 128, 512, Step::Send),
            (2, 128, 100_000, Step::Send),
            (3, 0, 1, Step::Answer),
            (3, 100_000, 1, Step::Answer),
        ] {
            assert_eq!(next(pipelines, waiting, enough_behind(sent)), step, "{pipelines} {waiting} {sent}");
        }
    }

    #[test]
    fn a_pipeline_is_full_at_its_bounds() {
        for (messages, bytes, more) in [
            (0, 0, true),
            (511, 0, true),
            (512, 0, false),
            (1, PIPELINE_BYTES_MAX - 1, true),
            (1, PIPELINE_BYTES_MAX, false),
            (100_000, 0, false),
        ] {
            assert_eq!(takes_more(messages, bytes), more, "{messages} {bytes}");
        }
    }

    #[test]
    fn only_crowds_go_first() {
        assert_eq!([0, 1, 4, 5, 500].map(lets_go_first), [false, false, false, true, true]);
    }
}
