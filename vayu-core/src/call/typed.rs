//! What involves the types of the function of a call.
//!
//! Most of the course of a call is compiled once for all functions: it reads the [`Properties`] of the call, and a value in the
//! form in which the backend stores it. What involves the types of the function is a method of [`TypedCall`], which the [`Frame`]
//! of the call implements: to decode a value, to clone an error, to run a closure of the attribute. The outputs are in the frame.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::previous::PreviousSlot;
use crate::call::{CachedFn, Call, FnOutput, OutputShape, Properties, Retention};
use crate::error::Result;
use crate::panic::drop_quietly;
use crate::serializer::{EntryContext, Serializer};
use crate::shared_error::SharedError;

/// A call of any function.
pub(crate) type UntypedCall<'a, B> = Call<'a, B, Properties<'a>>;

/// The operations of a call that involve the types of its function.
///
/// An output that was decoded or cloned is kept in the frame as the one that was *found*. The one that the function has
/// *returned* is there beside it.
pub(crate) trait TypedCall<B: Backend>: EncodeOutput<B::Stored> {
    /// Decodes the output from a stored value.
    fn deserialize(&mut self, stored: &B::Stored, entry: &EntryContext<'_>) -> Result<()>;

    /// Decodes the output from a stored value, which may be moved out.
    fn deserialize_owned(&mut self, stored: &mut B::Stored, entry: &EntryContext<'_>)
    -> Result<()>;

    /// Drops the output that was found.
    fn discard(&mut self);

    /// Drops the output that the function has returned.
    fn discard_returned(&mut self);

    /// Returns whether a stored value that was decoded can be stored again with other times.
    fn is_renewable(&self) -> bool;

    /// Verifies a stored value, as far as the serializer can.
    fn verify(&self, stored: &B::Stored, entry: &EntryContext<'_>) -> Result<()>;

    /// Decodes a stored value for the run that replaces it.
    fn previous_slot(
        &self,
        stored: &B::Stored,
        entry: &EntryContext<'_>,
    ) -> Result<Option<PreviousSlot>>;

    /// Returns the ttl of an error, zero for one that is not cached.
    fn error_ttl(&self, error: &SharedError) -> Duration;

    /// Clones an error to an output, if it is of the type of the function. Returns whether it is.
    fn clone_error(&mut self, error: &SharedError) -> bool;

    /// Returns whether the function has returned a value.
    fn has_value(&self) -> bool;

    /// Returns the error that the function has returned, if callers can share it.
    fn shared_error(&self) -> Option<SharedError>;

    /// Returns the text of the error that the function has returned, if it is known to have one.
    fn error_text(&self) -> Option<String>;
}

/// An output of a function, to be encoded to what a backend stores: that which the function of a call has returned, or any.
pub(crate) trait EncodeOutput<V> {
    /// Returns whether there is a value, of a type that can be stored.
    fn can_store(&self) -> Result<bool>;

    /// Returns the ttl of the value, or `None` if it is not to be stored.
    fn ttl(&self) -> Option<Duration>;

    /// Serializes the value.
    fn serialize(&self, entry: &EntryContext<'_>) -> Result<V>;
}

/// An output of a function.
pub(crate) struct OutputOf<'o, F: CachedFn> {
    pub(crate) function: &'o F,
    pub(crate) output: &'o F::Output,
}

impl<F: CachedFn> EncodeOutput<F::Stored> for OutputOf<'_, F> {
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn can_store(&self) -> Result<bool> {
        let has_value = F::Shape::value(self.output).is_some();
        // With a key made by hand, a `Result` may be the value.
        if has_value
            && !self.function.options().is_by_key
            && let Some(error) = F::Shape::unsupported()
        {
            return Err(error);
        }
        Ok(has_value)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn ttl(&self) -> Option<Duration> {
        let Self { function, output } = self;
        let retention = function.retention();
        let value = F::Shape::value(output).filter(|value| retention.should_cache(value))?;
        let ttl = retention.ttl(value);
        // Of one value alone, it is not an error.
        if ttl.is_zero() && retention.fixed_ttl().is_none() { None } else { Some(ttl) }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn serialize(&self, entry: &EntryContext<'_>) -> Result<F::Stored> {
        let value = F::Shape::value(self.output).expect("it has a ttl");
        self.function.serializer().serialize_for(value, entry)
    }
}

/// The function of a call, and its outputs.
pub(crate) struct Frame<'a, F: FnOutput> {
    function: &'a F,
    found: Option<F::Output>,
    returned: Option<F::Output>,
}

impl<'a, F: CachedFn> Frame<'a, F> {
    #[inline]
    pub(crate) fn new(function: &'a F) -> Self {
        Self { function, found: None, returned: None }
    }

    /// Creates the frame of a call that has found an output.
    #[inline]
    pub(super) fn with_found(function: &'a F, found: Option<F::Output>) -> Self {
        Self { function, found, returned: None }
    }

    /// Returns the output that was found.
    pub(crate) fn into_found(self) -> Option<F::Output> {
        self.found
    }

    /// Returns the output of the call: the one that the function has returned, or else the one that was found.
    pub(super) fn into_output(self) -> Option<F::Output> {
        match self.returned {
            None => self.found,
            returned => {
                drop_quietly(self.found);
                returned
            }
        }
    }

    /// Takes the output that was found.
    pub(super) fn take_found(&mut self) -> F::Output {
        self.found.take().expect("an output was found")
    }

    /// Sets the output that was found.
    pub(super) fn set_found(&mut self, output: F::Output) {
        if let Some(before) = self.found.replace(output) {
            drop_quietly(before);
        }
    }

    pub(super) fn function(&self) -> &'a F {
        self.function
    }

    /// Returns the output that the function has returned.
    #[inline]
    pub(super) fn output(&self) -> OutputOf<'_, F> {
        let output = self.returned.as_ref().expect("the function has returned");
        OutputOf { function: self.function, output }
    }

    /// Sets the output that the function has returned.
    #[inline]
    pub(super) fn set_returned(&mut self, output: F::Output) {
        self.returned = Some(output);
    }

    /// Sets that the function has returned without an output.
    pub(super) fn set_left_out(&mut self) {
        drop_quietly(self.found.take());
    }

    /// Returns the output of the call after the run of the function: the one that was found if the call `is_stale`, and otherwise
    /// the one that the function has returned.
    #[inline]
    pub(super) fn take_output(&mut self, is_stale: bool) -> F::Output {
        if is_stale {
            drop_quietly(self.returned.take());
            return self.take_found();
        }
        self.returned.take().expect("the function has returned")
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> TypedCall<B> for Frame<'_, F> {
    fn deserialize(&mut self, stored: &F::Stored, entry: &EntryContext<'_>) -> Result<()> {
        let value = self.function.serializer().deserialize_for(stored, entry)?;
        self.set_found(F::Shape::output(value));
        Ok(())
    }

    fn deserialize_owned(
        &mut self,
        stored: &mut F::Stored,
        entry: &EntryContext<'_>,
    ) -> Result<()> {
        let value = self.function.serializer().deserialize_owned_for(stored, entry)?;
        self.set_found(F::Shape::output(value));
        Ok(())
    }

    fn discard(&mut self) {
        self.found = None;
    }

    fn discard_returned(&mut self) {
        drop_quietly(self.returned.take());
    }

    fn verify(&self, stored: &F::Stored, entry: &EntryContext<'_>) -> Result<()> {
        self.function.serializer().verify(stored, entry)
    }

    fn is_renewable(&self) -> bool {
        self.function.serializer().is_renewable()
    }

    fn previous_slot(
        &self,
        stored: &F::Stored,
        entry: &EntryContext<'_>,
    ) -> Result<Option<PreviousSlot>> {
        let value = self.function.serializer().deserialize_for(stored, entry)?;
        Ok(self.function.retention().previous_slot(value))
    }

    fn error_ttl(&self, error: &SharedError) -> Duration {
        self.function.retention().error_ttl(error)
    }

    fn clone_error(&mut self, error: &SharedError) -> bool {
        let output = F::Shape::error_output(error);
        let is_of_this_type = output.is_some();
        if let Some(output) = output {
            self.set_found(output);
        }
        is_of_this_type
    }

    fn has_value(&self) -> bool {
        self.returned.as_ref().and_then(F::Shape::value).is_some()
    }

    fn shared_error(&self) -> Option<SharedError> {
        self.returned.as_ref().and_then(F::Shape::shared_error)
    }

    fn error_text(&self) -> Option<String> {
        self.returned.as_ref().and_then(F::Shape::error_text)
    }
}

impl<F: CachedFn> EncodeOutput<F::Stored> for Frame<'_, F> {
    fn can_store(&self) -> Result<bool> {
        self.output().can_store()
    }

    fn ttl(&self) -> Option<Duration> {
        self.output().ttl()
    }

    fn serialize(&self, entry: &EntryContext<'_>) -> Result<F::Stored> {
        self.output().serialize(entry)
    }
}
