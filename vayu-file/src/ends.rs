//! The entries that leave a directory, for reports.

use std::io;

use vayu_core::wire::EncodedEntry;
use vayu_core::{EndCause, Record};

use crate::fs::{Directory, FileType};
use crate::prefix::read_prefix;

/// An entry that has left the directory.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) function: String,
    pub(crate) cause: EndCause,
}

/// The function and the times of an entry, which is about to leave the directory.
pub(crate) struct Ending {
    function: String,
    record: Record<()>,
}

impl Ending {
    /// Reads the beginning of a file. `None` if it is not an entry.
    pub(crate) fn read(directory: &dyn Directory, name: &str) -> Option<Self> {
        let file = directory.open(name).ok()?;
        let status = file.status().ok().filter(|status| status.file_type == FileType::File)?;
        let bytes = read_prefix(&*file, status.length).ok()?;
        let entry = EncodedEntry::parse_prefix(&bytes).ok()?;
        let function = entry.function().unwrap_or_default().to_owned();
        Some(Self { function, record: entry.record(()) })
    }

    /// Returns the end of the entry for this cause.
    fn with_cause(self, cause: EndCause) -> Ended {
        Ended { function: self.function, cause }
    }

    /// Returns the end of the entry whose place a record takes.
    pub(crate) fn replaced_by<V>(self, new: &Record<V>) -> Ended {
        let cause = EndCause::of_replaced(&self.record, new);
        self.with_cause(cause)
    }
}

/// Removes the file of an entry. Adds the entry to `ended`, if there is a list.
pub(crate) fn remove_entry(
    directory: &dyn Directory,
    name: &str,
    cause: EndCause,
    ended: &mut Option<Vec<Ended>>,
) -> io::Result<()> {
    let ending = ended.as_ref().and_then(|_| Ending::read(directory, name));
    directory.remove(name)?;
    if let (Some(ended), Some(ending)) = (ended, ending) {
        ended.push(ending.with_cause(cause));
    }
    Ok(())
}
