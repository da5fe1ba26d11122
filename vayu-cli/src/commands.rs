//! The commands, one module each.

pub(crate) mod ls;
pub(crate) mod purge;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod verify;

/// The result of a command.
pub(crate) type Outcome = Result<crate::Verdict, crate::Failure>;
