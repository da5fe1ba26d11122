//! `each = ids`: the argument whose elements have an entry each, checked against the function.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Expr, Ident, Type};

use crate::cached::args::{Arguments, ErrTtl, KeySource, Time, Ttl};
use crate::cached::function::{Argument, Function};
use crate::cached::model::on_value::on_values;
use crate::cached::model::own;
use crate::cached::tokens::{find_value, names_value};
use crate::cached::types::{peel, pointee, readable};
use crate::diagnostics::Diagnostics;

/// The argument whose elements have an entry each.
pub(crate) struct Batch {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    pub(crate) at_most: Option<Expr>,
}

/// Types of one value. Those of other types are known to the compiler only.
const SINGLE: [&str; 17] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32",
    "f64", "bool", "char", "String",
];

/// Checks the arguments of a batch function.
pub(crate) fn choose(
    arguments: &Arguments,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Option<Batch> {
    let Some((keyword, name)) = &arguments.batch.each else {
        if let Some((keyword, _)) = &arguments.batch.at_most
            && arguments.is_complete
        {
            let message = "`at_most` limits the elements of one run of a function with `each`; write `each = ids`, \
                           or remove `at_most`";
            diagnostics.add(keyword, message);
        }
        return None;
    };
    let refused = [
        (
            arguments.options.revalidate.is_some(),
            "revalidate",
            "the old value is that of one element; write `revalidate` on a function of one element that has the same \
             `prefix`",
        ),
        (
            arguments.options.patience.is_some(),
            "patience",
            "a call with old values returns them at once; remove `patience`",
        ),
    ];
    for (_, option, reason) in refused.iter().filter(|(is_given, ..)| *is_given) {
        let given = arguments.names.iter().find(|name| name == option).unwrap_or(keyword);
        diagnostics.add(given, format!("`{option}` does not work with `each`: {reason}"));
    }
    let is_skipped =
        arguments.skip.as_ref().and_then(|skip| skip.names.iter().find(|skipped| *skipped == name));
    if let Some(skipped) = is_skipped {
        let message =
            format!("the elements of `{name}` are the keys of `each`; remove `skip({name})`");
        diagnostics.add(skipped, message);
    }
    if let Some(KeySource::Expression(key)) = &arguments.key
        && !names_value(key.to_token_stream(), name)
    {
        let message = format!(
            "the key does not name `{name}`, so all elements have one entry; write it with `{name}`, which is \
                               one element there"
        );
        diagnostics.add(key, message);
    }
    let patterns = function.arguments.iter().filter_map(|argument| argument.pattern.as_ref());
    for pattern in patterns {
        let message = "a function with `each` takes its arguments by name; write a name in the place of this pattern, \
                       without `_` in front";
        diagnostics.add(pattern, message);
    }
    let Some(argument) = function.arguments.iter().find(|argument| argument.name == *name) else {
        if function.arguments.iter().all(|argument| argument.pattern.is_none()) {
            diagnostics.add(name, not_an_argument(name, function));
        }
        return None;
    };
    if let Some(condition) = argument.conditions.first() {
        diagnostics.add(condition, "the argument of `each` cannot be conditional");
    }
    if arguments.options.spawn.is_some() && arguments.is_complete {
        check_spawn(arguments, function, argument, diagnostics);
    }
    if arguments.handle.is_some()
        && let Some(used) = on_values(arguments).find_map(|closure| closure.uses(name))
    {
        let message = format!(
            "the entry of one element has no collection `{name}`; use another argument or the value here, or remove \
             `handle`"
        );
        diagnostics.add(used, message);
    }
    if arguments.handle.is_some()
        && let Some(used) = of_entry(arguments).find_map(|value| find_value(value, name))
    {
        let message = format!(
            "the entry of one element has no collection `{name}`; use another argument here, or remove `handle`"
        );
        diagnostics.add(used, message);
    }
    let pointee = pointee(&argument.ty).unwrap_or(&argument.ty);
    if let Type::Path(path) = peel(pointee)
        && SINGLE.iter().any(|name| path.path.is_ident(name))
    {
        let message = format!(
            "`each` needs a collection, and `{name}` is one value; write `{name}: &[{}]`",
            readable(pointee)
        );
        diagnostics.add(&argument.ty, message);
        return None;
    }
    if let Type::Array(array) = peel(pointee) {
        let message = format!(
            "the function runs for the elements that are not cached, which may be fewer than this array has; write \
             `{name}: &[{}]`",
            readable(&array.elem)
        );
        diagnostics.add(&argument.ty, message);
        return None;
    }
    Some(batch(argument, arguments))
}

/// Returns the expressions that a call evaluates once for all elements, and an entry for one.
fn of_entry(arguments: &Arguments) -> impl Iterator<Item = TokenStream> {
    let options = &arguments.options;
    let ttl = match &arguments.ttl {
        Some(Ttl::Fixed(ttl)) => Some(ttl),
        Some(Ttl::ByValue(_) | Ttl::ExpiresAt(_)) | None => None,
    };
    let err_ttl = match &options.err_ttl {
        Some(ErrTtl::Fixed(ttl)) => Some(ttl),
        Some(ErrTtl::ByError(_)) | None => None,
    };
    let times = [ttl, err_ttl, options.stale.as_ref(), options.idle.as_ref()];
    let times = times.into_iter().flatten().filter_map(|time| match time {
        Time::Expression(time) => Some(&**time),
        Time::Fixed(_) => None,
    });
    times
        .chain(arguments.cache.as_ref())
        .chain(arguments.serializer.as_ref())
        .map(ToTokens::to_token_stream)
}

/// Checks what a run in the background needs of the elements and of `self`.
fn check_spawn(
    arguments: &Arguments,
    function: &Function,
    argument: &Argument,
    diagnostics: &mut Diagnostics,
) {
    let name = &argument.name;
    let copied = arguments.own.iter().flat_map(|own| &own.names);
    if let Some(copied) = copied.clone().find(|copied| *copied == name) {
        let message =
            format!("the elements of `{name}` are copied anyway; remove `{name}` from `own`");
        diagnostics.add(copied, message);
    }
    let collection = pointee(&argument.ty);
    if let Type::Slice(slice) = peel(collection.unwrap_or(&argument.ty))
        && let Type::Reference(reference) = peel(&slice.elem)
        && reference.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static")
    {
        let message = "a function with `spawn` must own its elements, since its run outlives the call; take elements without \
                       this reference";
        diagnostics.add(reference, message);
    }
    if collection.is_some()
        && let Some(used) = on_values(arguments).find_map(|closure| closure.uses(name))
    {
        let message = format!(
            "this outlives the call, so it cannot use `{name}`, which is borrowed; take an owned collection"
        );
        diagnostics.add(used, message);
    }
    if let Some(receiver) = function.item.sig.receiver()
        && !own::is_reference(receiver)
    {
        let message = "a function with `each` may run several times, so its runs in the background need copies of `self`; \
                       take `&self` and write `own(self)`";
        diagnostics.add(receiver, message);
    }
}

fn batch(argument: &Argument, arguments: &Arguments) -> Batch {
    let at_most = arguments.batch.at_most.as_ref().map(|(_, at_most)| at_most.clone());
    Batch { name: argument.name.clone(), ty: argument.ty.clone(), at_most }
}

fn not_an_argument(name: &Ident, function: &Function) -> String {
    let names: Vec<String> =
        function.arguments.iter().flat_map(Argument::names).map(|it| format!("`{it}`")).collect();
    if names.is_empty() {
        return format!("`{name}` is not an argument: `{}` has none", function.item.sig.ident);
    }
    format!("`{name}` is not an argument; the arguments are {}", names.join(", "))
}
