//! The attribute and the function together: what is to be generated.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Expr, Ident, Pat, Receiver, ReceiverKind, Type, TypeReference};

pub(crate) use crate::cached::args::Handle;
use crate::cached::args::{Arguments, KeySource, Skip, Time, Ttl};
use crate::cached::function::{Argument, Function, Kind, peel};
use crate::cached::pattern::{self, Binding};
use crate::diagnostics::Mistakes;
use crate::paths::Root;

pub(crate) struct Model {
    pub(crate) root: Root,
    pub(crate) function: Function,
    pub(crate) cache: Option<Cache>,
    pub(crate) prefix: Option<Expr>,
    pub(crate) key: Key,
    pub(crate) include: Vec<Expr>,
    pub(crate) serializer: Option<Serializer>,
    pub(crate) ttl: Ttl,
    pub(crate) stale: Option<Time>,
    pub(crate) spawn: Option<Expr>,
    /// In thousandths.
    pub(crate) jitter: Option<u16>,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) version: Option<String>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) handle: Option<Handle>,
    pub(crate) is_quiet: bool,
}

pub(crate) struct Cache {
    pub(crate) expression: Expr,
    /// The body may move what the expression borrows from, so the handle is cloned.
    pub(crate) is_moved_from: bool,
}

pub(crate) struct Serializer {
    pub(crate) expression: Expr,
    /// As for the cache.
    pub(crate) is_moved_from: bool,
}

pub(crate) enum Key {
    /// What of each argument is in it.
    Arguments(Vec<Share>),
    Source(KeySource),
}

/// What of an argument is in the key.
pub(crate) enum Share {
    Whole,
    /// Some of the names of its pattern.
    Names(Vec<Ident>),
    Nothing,
}

impl Model {
    pub(crate) fn new(
        arguments: Arguments,
        function: Function,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        refuse_self(&arguments, &function, mistakes);
        let key = match arguments.key {
            Some(source) => {
                check_source(&source, arguments.skip.as_ref(), &function, mistakes);
                Key::Source(source)
            }
            None => Key::Arguments(choose_arguments(
                arguments.skip.as_ref(),
                arguments.include.is_empty(),
                &function,
                mistakes,
            )),
        };
        let cache = arguments.cache.map(|expression| {
            let is_moved_from = is_moved_from(&expression, &function);
            Cache { expression, is_moved_from }
        });
        let serializer = arguments.serializer.map(|expression| {
            let is_moved_from = is_moved_from(&expression, &function);
            Serializer { expression, is_moved_from }
        });
        if let Some(spawn) = &arguments.spawn {
            check_spawn(spawn, arguments.stale.is_some(), &function, mistakes);
        }
        let handle = arguments.handle.map(|handle| check_handle(handle, &function, mistakes));
        Some(Self {
            root: Root::new(arguments.root.as_ref()),
            function,
            cache,
            prefix: arguments.prefix,
            key,
            include: arguments.include,
            serializer,
            ttl: arguments.ttl?,
            stale: arguments.stale,
            spawn: arguments.spawn,
            jitter: arguments.jitter,
            cache_if: arguments.cache_if,
            version: arguments.version,
            tags: arguments.tags,
            handle,
            is_quiet: arguments.is_quiet,
        })
    }
}

/// The handle, with what the function says of where it is.
fn check_handle(mut handle: Handle, function: &Function, mistakes: &mut Mistakes) -> Handle {
    let item = &function.item;
    if handle.name == item.sig.ident {
        mistakes
            .add(&handle.name, "this is the name of the function itself; give the handle another");
    }
    for argument in &function.arguments {
        if let Type::ImplTrait(ty) = peel(&argument.ty) {
            let message = "a function with a handle must be able to name its types; write a type \
                           parameter";
            mistakes.add(ty, message);
        }
        if let Some(condition) = argument.conditions.first() {
            mistakes
                .add(condition, "an argument of a function with a handle cannot be conditional");
        }
    }
    handle.is_associated |=
        mentions(item.sig.to_token_stream(), &|name| name == "self" || name == "Self");
    handle
}

/// A task outlives the call, so it must own what it works with.
fn check_spawn(spawn: &Expr, is_stale: bool, function: &Function, mistakes: &mut Mistakes) {
    if !is_stale {
        let message = "`spawn` runs the refresh of a value past its ttl; say with `stale` how long \
                       that is served";
        mistakes.add(spawn, message);
    }
    if function.kind != Kind::Async {
        mistakes.add(spawn, "`spawn` is for an `async fn`: a sync refresh runs in its caller");
    }
    let message = "a function with `spawn` must own what it is given, since its refresh outlives \
                   the call; take an owned value, or an `Arc`";
    for argument in &function.arguments {
        if let Type::Reference(reference) = &argument.ty
            && reference.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static")
        {
            mistakes.add(reference, message);
        }
        if let Some(name) = pattern::borrowed_name(argument) {
            mistakes.add(name, format!("{message}; bind `{name}` without `ref`"));
        }
    }
    if let Some(receiver) = function.item.sig.receiver()
        && let ReceiverKind::Reference(..) = &receiver.kind
    {
        mistakes.add(receiver, message);
    }
}

fn check_source(
    source: &KeySource,
    skip: Option<&Skip>,
    function: &Function,
    mistakes: &mut Mistakes,
) {
    if let Some(skip) = skip {
        let message = "`skip` does nothing where `key` says what the key is; remove one of them";
        mistakes.add(&skip.keyword, message);
    }
    let KeySource::Closure(closure) = source else { return };
    let (given, wanted) = (closure.inputs.len(), function.arguments.len());
    if given != wanted {
        let message = format!(
            "this closure takes {given} but is called with a reference to each of the {wanted} \
             arguments of `{}`",
            function.item.sig.ident
        );
        mistakes.add(closure, message);
    } else if wanted > 0 && closure.inputs.iter().all(|input| matches!(input, Pat::Wild(_))) {
        let message = "this closure ignores every argument, so all calls would share one entry; \
                       write `key = \"..\"` if that is meant";
        mistakes.add(closure, message);
    }
}

/// What `self` means to the key must be said where nothing else is in it, and what a call may change must
/// not be in it.
fn refuse_self(arguments: &Arguments, function: &Function, mistakes: &mut Mistakes) {
    let Some(receiver) = function.item.sig.receiver() else { return };
    let is_skipped =
        arguments.skip.as_ref().is_some_and(|skip| skip.names.iter().any(|name| name == "self"));
    if arguments.key.is_some() || is_skipped {
        return;
    }
    if is_exclusive(receiver) {
        let message = "what `&mut self` refers to may change during the call, and a call that is \
                       served from the cache does not change it; take `&self`, write `key = ..`, or \
                       `skip(self)` if that is meant";
        mistakes.add(receiver, message);
        return;
    }
    let names_self = |expression: &Expr| mentions(expression.to_token_stream(), &|n| n == "self");
    let is_said = arguments.cache.iter().chain(&arguments.prefix).any(names_self);
    let has_parts =
        !arguments.include.is_empty() || function.arguments.iter().any(Argument::is_visible);
    if !is_said && !has_parts {
        let message = "`self` is not part of the key, so all values would share one entry; write \
                       `include(self.id)` with what the result depends on, `cache = self.cache` for \
                       entries of its own, or `key = ..`; or `skip(self)` if all values share it";
        mistakes.add(receiver.self_token, message);
    }
}

/// Whether a receiver is an exclusive reference, or holds one.
fn is_exclusive(receiver: &Receiver) -> bool {
    #[derive(Default)]
    struct Exclusive(bool);
    impl Visit<'_> for Exclusive {
        fn visit_type_reference(&mut self, reference: &TypeReference) {
            self.0 |= reference.mutability.is_some();
            visit::visit_type_reference(self, reference);
        }
    }
    match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
        ReceiverKind::Typed(_, ty) => {
            let mut exclusive = Exclusive::default();
            exclusive.visit_type(ty);
            exclusive.0
        }
        _ => false,
    }
}

/// What of each argument is in the key.
fn choose_arguments(
    skip: Option<&Skip>,
    is_alone: bool,
    function: &Function,
    mistakes: &mut Mistakes,
) -> Vec<Share> {
    let skipped = skip.map_or(&[][..], |skip| &skip.names);
    check_skipped(skipped, function, mistakes);
    let shares: Vec<Share> =
        function.arguments.iter().map(|argument| share(argument, skipped, mistakes)).collect();
    for (argument, share) in function.arguments.iter().zip(&shares) {
        if let Type::Reference(reference) = &argument.ty
            && reference.mutability.is_some()
            && !matches!(share, Share::Nothing)
        {
            let names: Vec<String> = argument.names().map(ToString::to_string).collect();
            let message = format!(
                "what a `&mut` argument holds may change during the call, so it cannot be part of \
                 the key; write `skip({})`",
                names.join(", ")
            );
            mistakes.add(reference, message);
        }
    }
    if let Some(skip) = skip
        && shares.iter().all(|share| matches!(share, Share::Nothing))
        && is_alone
        && function.arguments.iter().any(Argument::is_visible)
    {
        let message = "every argument is skipped, so all calls would share one entry; write \
                       `key = \"..\"` if that is meant";
        mistakes.add(&skip.keyword, message);
    }
    shares
}

/// An argument leaves the key only if all of its names are skipped. Where some are, the others are what
/// is left of it.
fn share(argument: &Argument, skipped: &[Ident], mistakes: &mut Mistakes) -> Share {
    let (out, left): (Vec<&Binding>, Vec<&Binding>) =
        argument.bindings.iter().partition(|binding| skipped.contains(&binding.name));
    if !argument.is_visible() {
        return Share::Nothing;
    }
    let Some(first) = out.first() else { return Share::Whole };
    if argument.hides_names() {
        let message = format!(
            "the argument of `{}` has names that only a macro knows, so it cannot be skipped; write \
             `key = ..`",
            first.name
        );
        mistakes.add(&skipped[place(skipped, &first.name)], message);
        return Share::Whole;
    }
    for binding in &out {
        let whole = binding.wholes.iter().find(|whole| !skipped.contains(whole));
        if let Some(whole) = whole {
            let name = &binding.name;
            let message = format!(
                "`{name}` is a part of `{whole}`, which is in the key; write `skip({whole}, {name})`"
            );
            mistakes.add(&skipped[place(skipped, name)], message);
        }
    }
    if left.is_empty() {
        Share::Nothing
    } else {
        Share::Names(left.into_iter().map(|binding| binding.name.clone()).collect())
    }
}

fn place(names: &[Ident], name: &Ident) -> usize {
    names.iter().position(|other| other == name).unwrap_or_default()
}

fn check_skipped(skipped: &[Ident], function: &Function, mistakes: &mut Mistakes) {
    let bindings: Vec<&Ident> = function.arguments.iter().flat_map(Argument::names).collect();
    let has_self = function.item.sig.receiver().is_some();
    for (index, name) in skipped.iter().enumerate() {
        if skipped[..index].contains(name) {
            mistakes.add(name, format!("`{name}` is skipped twice; remove one"));
        } else if !(bindings.contains(&name) || name == "self" && has_self) {
            let message = if bindings.is_empty() {
                format!("`{name}` is no argument: `{}` has none", function.item.sig.ident)
            } else {
                let names: Vec<String> = bindings.iter().map(|b| format!("`{b}`")).collect();
                format!("`{name}` is no argument; the arguments are {}", names.join(", "))
            };
            mistakes.add(name, message);
        }
    }
}

/// Whether an expression names something that the body may move or borrow exclusively.
fn is_moved_from(expression: &Expr, function: &Function) -> bool {
    let owns_self = function.item.sig.receiver().is_some_and(|receiver| match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
        ReceiverKind::Typed(_, ty) => !is_shared_reference(ty),
        _ => true,
    });
    let owned: Vec<&Ident> = function
        .arguments
        .iter()
        .filter(|argument| !is_shared_reference(&argument.ty))
        .flat_map(Argument::names)
        .collect();
    mentions(expression.to_token_stream(), &|name| {
        (owns_self && name == "self") || owned.contains(&name)
    })
}

fn is_shared_reference(ty: &Type) -> bool {
    matches!(peel(ty), Type::Reference(reference) if reference.mutability.is_none())
}

fn mentions(tokens: TokenStream, is_meant: &dyn Fn(&Ident) -> bool) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(name) => is_meant(&name),
        TokenTree::Group(group) => mentions(group.stream(), is_meant),
        _ => false,
    })
}
