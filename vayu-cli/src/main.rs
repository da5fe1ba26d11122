//! A look into the cache directories of [vayu](https://docs.rs/vayu).
//!
//! It exits with 0 when all is well, with 1 when what was asked for is not there or is damaged, and
//! with 2 when it could not be done.

mod args;
mod commands;
mod output;

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::commands::{ls, purge, show, stats, verify};

/// What a command found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// What was asked for is not there, or is damaged.
    Bad,
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
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        // Whoever reads has seen enough: `vayu ls | head`.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vayu: {}", output::with_causes(&*error));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
