//! What a function under `#[invalidates]` invalidates.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use crate::backend::Backend;
use crate::cache::{Cache, Engine, everything, named, prefix_of};
use crate::error::Result;
use crate::generation::Group;
use crate::io::{Awaiting, Blocking, run_blocking};
use crate::key::Prefix;
use crate::panic::catch_panic;

/// The groups that a call of a function invalidates.
///
/// Once the call has [`begun`](Self::begun), dropping this invalidates them: the function has panicked, or its future was
/// dropped, and may have written before. That does not wait for the backend.
pub struct Invalidates<B: Backend> {
    engine: Engine<B>,
    /// The function, for the log and for observers.
    function: Prefix,
    /// The groups, each with its name for messages.
    groups: Vec<(Group, String)>,
    has_begun: bool,
}

/// Returns the groups of a cache that a call of `function` invalidates, none at first.
pub fn invalidates<B: Backend, S>(cache: &Cache<B, S>, function: &'static str) -> Invalidates<B> {
    Invalidates {
        engine: cache.engine.clone(),
        function: Prefix::from(function),
        groups: Vec::new(),
        has_begun: false,
    }
}

impl<B: Backend> Invalidates<B> {
    /// Adds the entries with a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Display) -> Self {
        self.groups.push((Group::tag(&tag), named("tag", &tag)));
        self
    }

    /// Adds the entries of a function.
    #[must_use]
    pub fn function<F>(self, function: &F) -> Self {
        match prefix_of(function) {
            Ok(prefix) => self.add_prefix("function", &prefix),
            Err(error) => {
                self.engine.fault(&self.function, &error, false);
                self
            }
        }
    }

    /// Adds the entries under a prefix.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<Prefix>) -> Self {
        self.add_prefix("prefix", &prefix.into())
    }

    /// Adds all entries.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.groups.push((Group::ALL, everything()));
        self
    }

    fn add_prefix(mut self, kind: &str, prefix: &Prefix) -> Self {
        self.groups.push((Group::of_prefix(prefix.as_str()), named(kind, &prefix.as_str())));
        self
    }

    /// Invalidates the groups.
    pub fn invalidate(&self) {
        for (group, name) in &self.groups {
            let invalidated = self.engine.invalidate::<Blocking>(*group, || name.clone());
            self.count(run_blocking(invalidated));
        }
    }

    /// [`invalidate`](Self::invalidate) for async callers.
    pub async fn invalidate_async(&self) {
        for (group, name) in &self.groups {
            self.count(self.engine.invalidate::<Awaiting>(*group, || name.clone()).await);
        }
    }

    /// Begins the call: the function may write from now on.
    #[must_use]
    pub fn begun(mut self) -> Self {
        self.has_begun = true;
        self
    }

    /// Ends the call: invalidates the groups, unless the function has failed.
    pub fn end(mut self, has_failed: bool) {
        if !has_failed {
            self.invalidate();
        }
        self.has_begun = false;
    }

    /// [`end`](Self::end) for async callers.
    pub async fn end_async(mut self, has_failed: bool) {
        if !has_failed {
            self.invalidate_async().await;
        }
        self.has_begun = false;
    }

    /// Counts and logs an error. The function has written all the same.
    fn count(&self, result: Result<()>) {
        if let Err(error) = result {
            self.engine.fault(&self.function, &error, false);
        }
    }
}

impl<B: Backend> Drop for Invalidates<B> {
    fn drop(&mut self) {
        if !self.has_begun {
            return;
        }
        for (group, name) in &self.groups {
            let invalidated = catch_panic("invalidate", || self.engine.invalidate_later(*group));
            self.count(
                invalidated.map_err(|error| error.in_operation(format!("invalidate {name}"))),
            );
        }
    }
}

impl<B: Backend> fmt::Debug for Invalidates<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.groups.iter().map(|(_, name)| name).collect();
        f.debug_struct("Invalidates").field("groups", &names).finish_non_exhaustive()
    }
}

/// Runs a body, as a closure that is called once: it may return what borrows from its captures.
pub fn run_body<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// Finds out by the type of an output whether it may be a failure.
///
/// `vayu_has_failed` is the inherent method for a `Result`, and that of [`AnyOutput`] for any other type.
#[derive(Debug)]
pub struct OutputProbe<R>(PhantomData<fn(&R)>);

impl<R> OutputProbe<R> {
    /// Returns a probe for the type of an output.
    pub fn of(_output: &R) -> Self {
        Self(PhantomData)
    }
}

impl<T, E> OutputProbe<std::result::Result<T, E>> {
    /// Returns whether the output is an `Err`.
    pub fn vayu_has_failed(&self, output: &std::result::Result<T, E>) -> bool {
        output.is_err()
    }
}

/// An output that is not a `Result`.
pub trait AnyOutput<R> {
    /// Returns `false`.
    fn vayu_has_failed(&self, output: &R) -> bool;
}

impl<R> AnyOutput<R> for OutputProbe<R> {
    fn vayu_has_failed(&self, _output: &R) -> bool {
        false
    }
}

/// Finds out by the type of an output whether the function has run to its end.
///
/// For a future, `vayu_run` is the method of [`LaterOutput`]; for any other type that of [`CompleteOutput`], whose
/// receiver has one more reference.
pub trait CompleteOutput {
    /// Returns that the function has run to its end.
    fn vayu_run(&self) -> CompleteRun;
}

/// An output that is a future: the function has not run to its end.
pub trait LaterOutput {
    /// Returns that the function runs later.
    fn vayu_run(&self) -> LaterRun;
}

/// The run of a function that has ended.
#[derive(Debug)]
pub struct CompleteRun;

/// The run of a function whose output is a future.
#[derive(Debug)]
pub struct LaterRun;

impl<R> CompleteOutput for &OutputProbe<R> {
    fn vayu_run(&self) -> CompleteRun {
        CompleteRun
    }
}

impl<R: Future> LaterOutput for OutputProbe<R> {
    fn vayu_run(&self) -> LaterRun {
        LaterRun
    }
}

/// The run of a function after which its entries may be invalidated.
#[diagnostic::on_unimplemented(
    message = "this function returns a future, which writes later",
    label = "the entries would be invalidated before the write",
    note = "write `async fn` and the type of its output, or await the future in the function"
)]
pub trait HasEnded {}

impl HasEnded for CompleteRun {}

/// Does not compile for a function that returns a future.
pub fn check_run(_run: impl HasEnded) {}
