//! The context that code is generated for.

/// The context that code is generated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A call; it ends before its variables are dropped.
    Call,
    /// A call for several elements, which is described for each of them.
    Batch,
    /// A call that may spawn a task, which outlives the variables.
    Task,
    /// A call for several elements that may spawn a task.
    BatchTask,
    /// An entry, which outlives the variables.
    Entry,
}
