//! A file as a side of a copy: what a source has told, written to be read later, elsewhere.
//!
//! An **export** is written by a copy whose target keeps nothing but the file ([`Export`]): what the source answers goes to
//! the file as it comes, each answer with its question. It is read by a copy whose source is the file ([`ExportedFile`]):
//! the same questions get the same answers. So all that a copy carries is in an export, and a copy from it is planned,
//! broken off and gone on with as any other.
//!
//! | file | owns |
//! |---|---|
//! | `frames` | the bytes: what is compressed, and its checksums |
//! | `records` | what stands in a frame, as lines of JSON |
//! | `writing` | the source that is listened to, and the target that keeps a file |
//! | `checking` | whether an answer can be one |
//! | `index` | which record answers which question |
//! | `reading` | the file as a source |
//!
//! docs/export.md describes the form for other programs.
//!
//! **Invariant:** a file that is cut off or damaged anywhere, or has an answer that none can be, is refused before anything
//! of it is copied.

mod checking;
mod frames;
mod index;
mod reading;
mod records;
mod writing;

pub use reading::ExportedFile;
pub use records::{Counts, FORM, Header, Origin};
pub use writing::Export;

use std::path::PathBuf;

/// Why a file cannot be read as an export.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not begin as one.
    #[error("it is no export of Tidemill")]
    NotAnExport,
    /// Another version has written it.
    #[error("{0}")]
    OtherForm(String),
    /// Bytes are not as they were written.
    #[error("it is damaged in record {record}, which begins at byte {at}")]
    Damaged {
        /// Which record, from 0 on.
        record: u64,
        /// Where it begins.
        at: u64,
    },
    /// It ends before its last record.
    #[error("it is cut off at byte {at}, behind {}; the export did not come to its end, or a part of the file is lost", whole(*.records))]
    CutOff {
        /// How many records are whole.
        records: u64,
        /// Where the first begins that is not.
        at: u64,
    },
    /// Something is behind its last record.
    #[error("it has more behind its end, from byte {at} on")]
    Behind {
        /// Where that begins.
        at: u64,
    },
    /// A record is whole, and does not say what it should.
    #[error("record {record} at byte {at} cannot be used: {why}")]
    Odd {
        /// Which record, from 0 on.
        record: u64,
        /// Where it begins.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It can be read only once, and there is no place for it meanwhile.
    #[error("it cannot be kept in {} while it is read; TMPDIR names another folder: {cause}", .folder.display())]
    NotKept {
        /// Where it was to be kept.
        folder: PathBuf,
        /// Why it cannot.
        cause: std::io::Error,
    },
    /// The operating system does not let it be read.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
}

fn whole(records: u64) -> String {
    format!("{records} whole record{}", if records == 1 { "" } else { "s" })
}
