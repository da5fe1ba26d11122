//! Reading an entry: from a file that is kept open, or by opening it.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use vayu_core::wire::{self, Header};
use vayu_core::{Key, Record, Result};

use super::Store;
use crate::errno::is_absence;
use crate::fs::{File, FileType, buffer, read_full, read_some};
use crate::located_key::LocatedKey;
use crate::open_files::MAX_OPEN_LENGTH;

/// The capacity of a thread's buffer. A shorter entry is read without asking for its length.
const BUFFER_LENGTH: usize = 64 * 1024;

/// The value of an entry of up to this length is copied out of the buffer of the thread, which costs
/// less than a second allocation. A longer entry is read into memory that its value keeps. The length
/// is that of the last read.
const MAX_COPIED_LENGTH: u64 = 4 * 1024;

impl Store {
    /// Reads the record of a key.
    pub(crate) fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = LocatedKey::of(key);
        if let Some(record) = self.read_open_file(&key) {
            return Ok(Some(record));
        }
        let found = match self.open_files.with_fd_retry(|| self.read_entry(&key)) {
            Ok(found) => found,
            Err(error) if is_absence(&error) => None,
            Err(error) => return Err(self.outages.entry_failed(error)),
        };
        self.outages.entry_read();
        Ok(found)
    }

    /// Reads an entry whose file is kept open, if its name still refers to that file. A file that
    /// yields no record is closed.
    fn read_open_file(&self, key: &LocatedKey) -> Option<Record<Bytes>> {
        if !(1..=MAX_OPEN_LENGTH).contains(&key.last_length()) {
            return None;
        }
        let open = self.open_files.get(key.wire())?;
        let named = self.root.status(key.path().as_str());
        let record = if named.is_ok_and(|named| named == open.status) {
            self.read_file(&*open.file, key).ok().flatten()
        } else {
            None
        };
        if record.is_none() {
            self.open_files.close(key.wire());
        }
        record
    }

    fn read_entry(&self, key: &LocatedKey) -> io::Result<Option<Record<Bytes>>> {
        let file = self.root.open(key.path().as_str())?;
        let was_read_before = key.last_length() > 0;
        let mut record = self.read_file(&*file, key)?;
        if record.is_none() {
            // Another process may have overwritten the header at that moment.
            record = self.read_file(&*file, key)?;
        }
        if record.is_none() {
            self.corrupt_entries.fetch_add(1, Ordering::Relaxed);
        } else if was_read_before && key.last_length() <= MAX_OPEN_LENGTH {
            self.open_files.insert(key.wire(), file);
        }
        Ok(record)
    }

    /// Reads a file. `None` if it is not a valid entry of this key.
    fn read_file(&self, file: &dyn File, key: &LocatedKey) -> io::Result<Option<Record<Bytes>>> {
        let length = key.last_length();
        if length <= MAX_COPIED_LENGTH || length > self.max_entry_bytes {
            return with_buffer(|start| {
                self.read_into(start, file, key, |bytes, value| {
                    Bytes::copy_from_slice(&bytes[value])
                })
            });
        }
        // One byte more than the last length shows that nothing was appended.
        self.read_into(&mut buffer(length + 1)?, file, key, take_value)
    }

    /// Reads an entry into an empty buffer. If all of it fits, `take` makes the value of the buffer.
    fn read_into(
        &self,
        start: &mut Vec<u8>,
        file: &dyn File,
        key: &LocatedKey,
        take: fn(&mut Vec<u8>, Range<usize>) -> Bytes,
    ) -> io::Result<Option<Record<Bytes>>> {
        read_some(file, start)?;
        if start.len() < start.capacity() {
            // A decoded entry is complete, so the end of the file need not be read.
            if let Some(record) = self.decode(key, start) {
                return Ok(Some(record.map(|value| take(start, value))));
            }
            read_full(file, start)?;
        }
        if start.len() < start.capacity() {
            let record = self.decode(key, start);
            return Ok(record.map(|record| record.map(|value| take(start, value))));
        }
        let Some(mut bytes) = self.read_long(file, start)? else { return Ok(None) };
        let record = self.decode(key, &bytes);
        Ok(record.map(|record| record.map(|value| take_value(&mut bytes, value))))
    }

    /// Reads all of a long entry that begins with `start`. `None` if its header states another length.
    fn read_long(&self, file: &dyn File, start: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let status = file.status()?;
        if status.file_type != FileType::File
            || entry_length(start) != Some(status.length)
            || status.length > self.max_entry_bytes
        {
            return Ok(None);
        }
        let mut bytes = buffer(status.length)?;
        bytes.extend_from_slice(start);
        read_full(file, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Decodes an entry. Returns its record with the range of the value.
    fn decode(&self, key: &LocatedKey, bytes: &[u8]) -> Option<Record<Range<usize>>> {
        let length = bytes.len() as u64;
        if length > self.max_entry_bytes {
            return None;
        }
        let record = wire::decode(key.wire(), bytes)?;
        key.set_last_length(length);
        Some(record)
    }
}

/// Returns the length that the header of an entry states.
fn entry_length(start: &[u8]) -> Option<u64> {
    Header::parse(start).ok().and_then(|header| header.entry_length())
}

/// Takes the value out of a buffer without copying it, and frees spare capacity.
fn take_value(bytes: &mut Vec<u8>, value: Range<usize>) -> Bytes {
    let mut bytes = mem::take(bytes);
    if bytes.capacity() > bytes.len() + 1 {
        bytes.shrink_to_fit();
    }
    let mut taken = Bytes::from(bytes);
    taken.advance(value.start);
    taken
}

/// Calls `code` with the empty buffer of this thread.
fn with_buffer<T>(code: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // The buffer is gone while the thread's local data are dropped.
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    buffer.reserve_exact(BUFFER_LENGTH);
    let result = code(&mut buffer);
    let _ = BUFFER.try_with(|cell| cell.replace(buffer));
    result
}
