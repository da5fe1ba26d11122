//! Things that are no files of a cache, to be put where one is looked for.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use vayu_core::Key;

use crate::ground::{self, Ground, entry};
use crate::{HOUR, is_root};

/// Something that is no file of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    Pipe,
    Socket,
    LinkToEntry,
    LinkToFolder,
    DanglingLink,
    LoopingLink,
    Folder,
    Device,
    /// A second name of the entry of another key.
    OtherEntry,
}

pub(crate) const THINGS: [Thing; 9] = [
    Thing::Pipe,
    Thing::Socket,
    Thing::LinkToEntry,
    Thing::LinkToFolder,
    Thing::DanglingLink,
    Thing::LoopingLink,
    Thing::Folder,
    Thing::Device,
    Thing::OtherEntry,
];

impl Thing {
    /// Makes it in the place of whatever is there; whether it can be made.
    pub(crate) fn make(self, at: &Path, ground: &Ground, key: &Key) -> bool {
        if at.is_dir() {
            fs::remove_dir_all(at).expect("the folder can be removed");
        } else {
            let _ = fs::remove_file(at);
        }
        fs::create_dir_all(at.parent().expect("it is in a folder")).expect("its folder");
        let node = |kind, device| mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device);
        match self {
            Thing::Pipe => node(FileType::Fifo, 0).expect("a pipe"),
            Thing::Socket => drop(UnixListener::bind(at).expect("a socket")),
            Thing::LinkToEntry => symlink(ground.outside_entry(key), at).expect("a link"),
            Thing::LinkToFolder => symlink(ground.outside_shard(), at).expect("a link"),
            Thing::DanglingLink => {
                symlink(ground.outside_shard().join("none"), at).expect("a link");
            }
            Thing::LoopingLink => symlink(at, at).expect("a link"),
            Thing::Folder => {
                fs::create_dir(at).expect("a folder");
                fs::write(at.join("note"), "to be kept").expect("a note in it");
            }
            // The device that is called `/dev/zero`.
            Thing::Device if is_root() => {
                return node(FileType::CharacterDevice, makedev(1, 5)).is_ok();
            }
            Thing::Device => return false,
            Thing::OtherEntry => {
                let other = ground::key("other");
                ground.open().set(&other, &"other".to_owned(), HOUR).expect("it is written");
                fs::hard_link(entry(ground.path(), &other), at).expect("a second name");
            }
        }
        true
    }
}
