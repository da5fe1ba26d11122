//! Runs in the background: `spawn`, `patience` and `revalidate`, checked against the function.

use syn::{Expr, Ident, Type};

use crate::cached::args::{NameList, Options};
use crate::cached::function::{Function, Kind};
use crate::cached::model::batch::Batch;
use crate::cached::model::own;
use crate::diagnostics::Diagnostics;

/// Rejects a spawner of futures on a sync function, one of closures on an `async fn`, and any on a function that returns a
/// boxed future.
pub(crate) fn check_spawner(spawn: &Expr, function: &Function, diagnostics: &mut Diagnostics) {
    let Expr::Path(path) = spawn else { return };
    let names: Vec<String> = path.path.segments.iter().map(|it| it.ident.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = match (function.kind, &names[..]) {
        (Kind::Sync, ["tokio" | "smol" | "async_std", .., "spawn"]) => {
            "this spawns futures; for a sync function write `spawn = std::thread::spawn`, \
             `rayon::spawn` or `tokio::task::spawn_blocking`"
        }
        (Kind::Async, [.., "thread" | "rayon", "spawn"] | [.., "spawn_blocking"]) => {
            "this spawns closures; for an `async fn` write `spawn = tokio::spawn`"
        }
        _ => return,
    };
    diagnostics.add(spawn, message);
}

/// Checks that a sync function with `spawn` has something to refresh, and that no function does which returns a boxed
/// future.
pub(crate) fn check_background(
    options: &Options,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    let Some(spawn) = &options.spawn else { return };
    match function.kind {
        Kind::Sync if options.stale.is_none() => {
            let message = "a sync function runs in its caller, and with `spawn` its refresh in another thread, while \
                           callers get the old value; add `stale = \"1h\"`, or remove `spawn`";
            diagnostics.add(spawn, message);
        }
        Kind::Boxed => {
            let message = "a function that returns a boxed future cannot `spawn`; write an `async fn` that is called by \
                           this one";
            diagnostics.add(spawn, message);
        }
        Kind::Sync | Kind::Async => {}
    }
}

/// Checks that all arguments are owned: what is spawned outlives the call.
pub(crate) fn check_spawn(
    function: &Function,
    own: Option<&NameList>,
    batch: Option<&Batch>,
    diagnostics: &mut Diagnostics,
) {
    let is_copied = |name: &Ident| {
        // The elements of a batch are copied one by one.
        own.is_some_and(|own| own.names.contains(name)) || batch.is_some_and(|it| it.name == *name)
    };
    let outlives = match function.kind {
        Kind::Sync => "its refresh",
        Kind::Async | Kind::Boxed => "its task",
    };
    let message = format!(
        "a function with `spawn` must own what it is given, since {outlives} outlives the call"
    );
    for argument in &function.arguments {
        if let Type::Reference(reference) = &argument.ty
            && reference.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static")
            && !argument.names().any(is_copied)
        {
            let instead = match (&argument.pattern, &reference.mutability) {
                (None, None) => {
                    format!("write `own({})` for a copy of it there, or take", argument.name)
                }
                _ => "take".to_owned(),
            };
            diagnostics.add(reference, format!("{message}; {instead} an owned value or an `Arc`"));
        }
        if let Some(name) = argument.borrowed_name() {
            diagnostics.add(name, format!("{message}; bind `{name}` without `ref`"));
        }
    }
    if let Some(receiver) = function.item.sig.receiver()
        && own::is_reference(receiver)
        && !is_copied(&Ident::from(receiver.self_token))
    {
        let message = format!(
            "{message}; write `own(self)` for a copy of it there, or take `self` or an `Arc` of it"
        );
        diagnostics.add(receiver, message);
    }
}

/// Checks that there is a refresh in the background to wait for.
pub(crate) fn check_patience(
    options: &Options,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    let Some((keyword, _)) = &options.patience else { return };
    let spawn = match function.kind {
        Kind::Sync => "spawn = std::thread::spawn",
        Kind::Async | Kind::Boxed => "spawn = tokio::spawn",
    };
    let missing = match (&options.stale, &options.spawn) {
        (Some(_), Some(_)) => return,
        (None, Some(_)) => "stale = \"1h\"".to_owned(),
        (Some(_), None) => spawn.to_owned(),
        (None, None) => format!("stale = \"1h\", {spawn}"),
    };
    let message = format!(
        "`patience` is how long a call waits for the refresh of a value past its ttl, which `stale` serves and \
         `spawn` refreshes; add `{missing}`, or remove `patience`"
    );
    diagnostics.add(keyword, message);
}

/// Checks that an old value is kept, and that it can be compared with the arguments.
pub(crate) fn check_revalidate(
    options: &Options,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    let Some((keyword, check)) = &options.revalidate else { return };
    if options.stale.is_none() {
        let message = "`revalidate` is about a value past its ttl, which is kept for the time of `stale`; add \
                       `stale = \"1h\"`, or remove `revalidate`";
        diagnostics.add(keyword, message);
    }
    if check.is_none() {
        return;
    }
    for argument in &function.arguments {
        if let Some(pattern) = &argument.pattern {
            let message = "the function of `revalidate` is called with a reference to each argument, so each must have a \
                           name; or write `revalidate` alone and call `vayu::previous` in the body";
            diagnostics.add(pattern, message);
        }
        if let Some(condition) = argument.conditions.first() {
            diagnostics.add(
                condition,
                "an argument of a function with `revalidate` cannot be conditional",
            );
        }
    }
}
