//! A command line tool for the entries of [vayu](https://docs.rs/vayu-cache), in directories and on Redis
//! servers.
//!
//! Exit codes: 0 for success, 1 if an entry was not found, is corrupt or cannot be verified, 2 for an error.

mod args;
mod commands;
mod find;
mod output;
mod progress;
mod source;
mod state;
mod value;
mod wrapped;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::commands::{ls, purge, show, stats, verify};

/// The error of a command.
type Failure = Box<dyn Error>;

/// The outcome of a command that has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Success,
    /// An entry was not found, is corrupt, or cannot be verified.
    Failure,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Purge(arguments) => purge::run(&arguments),
    };
    match result {
        Ok(Verdict::Success) => ExitCode::SUCCESS,
        Ok(Verdict::Failure) => ExitCode::from(1),
        // The reader of a pipe has ended: `vayu-cache ls | head`.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vayu-cache: {}", vayu_core::__internal::with_causes(&*error));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
