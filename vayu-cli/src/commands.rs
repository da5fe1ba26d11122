//! The commands, one module each.

pub(crate) mod ls;
pub(crate) mod purge;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod verify;

/// What a command answers, or why it could not be done.
pub(crate) type Outcome = Result<crate::Verdict, Box<dyn std::error::Error>>;
