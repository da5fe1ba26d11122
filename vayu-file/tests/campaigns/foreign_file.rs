//! Foreign files to put in place of a file of the cache.

use std::fs;
use std::path::Path;

use vayu_core::Key;

use crate::HOUR;
use crate::fixture::{self, Fixture, entry};

/// A kind of foreign file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForeignFile {
    Pipe,
    Socket,
    LinkToEntry,
    LinkToDirectory,
    DanglingLink,
    LoopingLink,
    Directory,
    Device,
    /// A hard link to the entry of another key.
    OtherEntry,
}

pub(crate) const FOREIGN_FILES: [ForeignFile; 9] = [
    ForeignFile::Pipe,
    ForeignFile::Socket,
    ForeignFile::LinkToEntry,
    ForeignFile::LinkToDirectory,
    ForeignFile::DanglingLink,
    ForeignFile::LoopingLink,
    ForeignFile::Directory,
    ForeignFile::Device,
    ForeignFile::OtherEntry,
];

impl ForeignFile {
    /// Creates it, and replaces an existing file. Returns whether it can be created.
    pub(crate) fn make(self, at: &Path, fixture: &Fixture, key: &Key) -> bool {
        if at.is_dir() {
            fs::remove_dir_all(at).expect("the directory can be removed");
        } else {
            let _ = fs::remove_file(at);
        }
        fs::create_dir_all(at.parent().expect("it is in a directory")).expect("its directory");
        match self {
            ForeignFile::Pipe | ForeignFile::Socket | ForeignFile::Device => {
                return make_special(self, at);
            }
            ForeignFile::LinkToEntry => return symlink(&fixture.outside_entry(key), at),
            ForeignFile::LinkToDirectory => return symlink(&fixture.outside_shard(), at),
            ForeignFile::DanglingLink => return symlink(&fixture.outside_shard().join("none"), at),
            ForeignFile::LoopingLink => return symlink(at, at),
            ForeignFile::Directory => {
                fs::create_dir(at).expect("a directory");
                fs::write(at.join("note"), "to be kept").expect("a note in it");
            }
            ForeignFile::OtherEntry => {
                let other = fixture::key("other");
                fixture.open().set(&other, &"other".to_owned(), HOUR).expect("it is written");
                fs::hard_link(entry(fixture.path(), &other), at).expect("a second name");
            }
        }
        true
    }
}

#[cfg(unix)]
fn make_special(foreign: ForeignFile, at: &Path) -> bool {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    let node = |kind, device| mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device);
    match foreign {
        ForeignFile::Pipe => node(FileType::Fifo, 0).expect("a pipe"),
        ForeignFile::Socket => drop(UnixListener::bind(at).expect("a socket")),
        // The device of `/dev/zero`.
        _ => return crate::is_root() && node(FileType::CharacterDevice, makedev(1, 5)).is_ok(),
    }
    true
}

/// Returns `false`: directories of Windows contain no such files.
#[cfg(windows)]
fn make_special(_: ForeignFile, _: &Path) -> bool {
    false
}

#[cfg(unix)]
pub(crate) fn symlink(to: &Path, at: &Path) -> bool {
    std::os::unix::fs::symlink(to, at).expect("a link");
    true
}

/// Creates a link, which not every user may. Wine pretends to create it.
#[cfg(windows)]
pub(crate) fn symlink(to: &Path, at: &Path) -> bool {
    use std::os::windows::fs::{symlink_dir, symlink_file};
    let made = if to.is_dir() { symlink_dir(to, at) } else { symlink_file(to, at) };
    made.is_ok() && at.is_symlink()
}
