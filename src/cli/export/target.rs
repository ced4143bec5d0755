//! Where an export is written to: standard output, a pipe with a name, or a file that has another name until it is whole.
//!
//! **Invariant:** what is written may have hashes of passwords, so a file is made anew, with rights of its owner alone, and
//! nothing is followed that stands under its name.
//!
//! It must not know what is written.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tokio::task::spawn_blocking;

use super::not_written;
use crate::cli::CliError;

/// How a file is opened that is only looked at: no link is followed, and no pipe waited for.
const LOOK: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Where it is written to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Standard output.
    Output,
    /// What is no file, as a pipe with a name.
    Stream(PathBuf),
    File(PathBuf),
}

impl Target {
    pub(super) fn of(path: &Path, overwrite: bool) -> Result<Self, CliError> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(CliError::Usage(
                    "--output: standard output is a terminal; name a file".to_owned(),
                ));
            }
            return Ok(Self::Output);
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                Err(CliError::Usage(format!("--output: {} is a folder", path.display())))
            }
            Ok(found) if !found.is_file() => Ok(Self::Stream(path.to_owned())),
            Ok(_) if !overwrite => Err(CliError::Usage(is_there(path))),
            _ => Ok(Self::File(path.to_owned())),
        }
    }

    /// Opens it; of a file, the one that has its name later. A pipe is waited for that nobody reads yet.
    pub(super) async fn open(self) -> io::Result<(Box<dyn Write + Send>, Option<Part>)> {
        spawn_blocking(move || self.open_now()).await?
    }

    fn open_now(&self) -> io::Result<(Box<dyn Write + Send>, Option<Part>)> {
        let (file, part) = match self {
            Self::Output => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            Self::Stream(path) => (File::options().write(true).open(path)?, None),
            Self::File(path) => {
                let part = Part::make(path)?;
                (part.file.try_clone()?, Some(part))
            }
        };
        Ok((Box::new(BufWriter::new(file)), part))
    }

    /// Returns the path of a file that is there already.
    pub(super) fn replaced(&self) -> Option<&Path> {
        match self {
            Self::File(path) if path.exists() => Some(path),
            Self::File(_) | Self::Output | Self::Stream(_) => None,
        }
    }
}

fn is_there(path: &Path) -> String {
    format!("--output: {} is there already; to replace it, add --overwrite", path.display())
}

/// A file that is not whole. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    /// What it is called once it is whole.
    path: PathBuf,
    part: PathBuf,
    file: File,
    is_kept: bool,
}

impl Part {
    fn make(path: &Path) -> io::Result<Self> {
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        remove_left(&part)?;
        let made = File::options().write(true).create_new(true).mode(0o600).open(&part);
        let file = made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => another(&part),
            _ => error,
        })?;
        lock(&file, &part)?;
        // Who has removed it meanwhile took it for one that was left.
        if !is_at(&file.metadata()?, &part) {
            return Err(another(&part));
        }
        Ok(Self { path: path.to_owned(), part, file, is_kept: false })
    }

    /// Gives it its name, once it is on the disk.
    pub(super) fn keep(mut self, overwrite: bool) -> Result<(), CliError> {
        if !overwrite && self.path.exists() {
            return Err(CliError::Usage(is_there(&self.path)));
        }
        let keep = || {
            self.file.sync_all()?;
            if !self.is_ours() {
                let why = format!("{} was removed or replaced while it was written", self.part.display());
                return Err(io::Error::other(why));
            }
            fs::rename(&self.part, &self.path)?;
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        keep().map_err(not_written)?;
        self.is_kept = true;
        Ok(())
    }

    /// Whether what stands under its name is it.
    fn is_ours(&self) -> bool {
        self.file.metadata().is_ok_and(|found| is_at(&found, &self.part))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept && self.is_ours() {
            // Nobody is left to be told: the file is not whole, and its name says so.
            drop(fs::remove_file(&self.part));
        }
    }
}

/// Removes what an export has left that was killed, or somebody else has put there. What is no file and no link stays.
fn remove_left(part: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_symlink() && !found.is_file() {
        let why = format!("{} is there, and is no file; remove it", part.display());
        return Err(io::Error::other(why));
    }
    // As long as it is open, and locked, nobody else takes it for one that was left.
    let _left = if found.is_file() { lock_left(part)? } else { None };
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Locks a file that may be one of another export, which holds its lock. One that may not be written to is of another user.
fn lock_left(part: &Path) -> io::Result<Option<File>> {
    let flags = LOOK.bits().cast_signed();
    let Ok(file) = File::options().write(true).custom_flags(flags).open(part) else { return Ok(None) };
    lock(&file, part)?;
    if is_at(&file.metadata()?, part) { Ok(Some(file)) } else { Err(another(part)) }
}

fn lock(file: &File, part: &Path) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(another(part)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn another(part: &Path) -> io::Error {
    io::Error::other(format!("another export writes {}", part.display()))
}

/// Whether a file is what stands under a name.
fn is_at(file: &Metadata, path: &Path) -> bool {
    let of = |found: &Metadata| (found.dev(), found.ino());
    fs::symlink_metadata(path).is_ok_and(|found| of(&found) == of(file))
}
