//! Foreign files to put in place of a file of the cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use vayu_core::Key;

use crate::fixture::{self, Fixture, entry};
use crate::{HOUR, is_root};

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
        let node = |kind, device| mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device);
        match self {
            ForeignFile::Pipe => node(FileType::Fifo, 0).expect("a pipe"),
            ForeignFile::Socket => drop(UnixListener::bind(at).expect("a socket")),
            ForeignFile::LinkToEntry => symlink(fixture.outside_entry(key), at).expect("a link"),
            ForeignFile::LinkToDirectory => symlink(fixture.outside_shard(), at).expect("a link"),
            ForeignFile::DanglingLink => {
                symlink(fixture.outside_shard().join("none"), at).expect("a link");
            }
            ForeignFile::LoopingLink => symlink(at, at).expect("a link"),
            ForeignFile::Directory => {
                fs::create_dir(at).expect("a directory");
                fs::write(at.join("note"), "to be kept").expect("a note in it");
            }
            // The device of `/dev/zero`.
            ForeignFile::Device if is_root() => {
                return node(FileType::CharacterDevice, makedev(1, 5)).is_ok();
            }
            ForeignFile::Device => return false,
            ForeignFile::OtherEntry => {
                let other = fixture::key("other");
                fixture.open().set(&other, &"other".to_owned(), HOUR).expect("it is written");
                fs::hard_link(entry(fixture.path(), &other), at).expect("a second name");
            }
        }
        true
    }
}
