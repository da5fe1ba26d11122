//! The checked combination of attribute and function from which code is generated.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{
    Expr, ExprClosure, ExprLit, GenericParam, Ident, Lit, Pat, Receiver, ReceiverKind, Type,
    TypeReference,
};

use crate::cached::Attribute;
pub(crate) use crate::cached::args::Handle;
use crate::cached::args::{Arguments, ErrTtl, KeySource, Limits, NameList, Options, Ttl};
use crate::cached::batch;
use crate::cached::closure::{find_value, names_value};
use crate::cached::function::{Argument, Function, Kind, only_argument, peel, readable};
use crate::cached::own::{self, Owned};
use crate::cached::pattern::{self, Binding};
use crate::diagnostics::Diagnostics;
use crate::paths::Root;

pub(crate) struct Model {
    pub(crate) kind: Attribute,
    pub(crate) root: Root,
    pub(crate) function: Function,
    pub(crate) cache: Option<Cache>,
    /// The limit of the memory cache of the function's own, if it has one.
    pub(crate) limit: Option<Limit>,
    pub(crate) key: Key,
    pub(crate) serializer: Option<Serializer>,
    pub(crate) ttl: Ttl,
    pub(crate) handle: Option<Handle>,
    /// The elements, in a batch function.
    pub(crate) batch: Option<Batch>,
    /// The borrowed arguments of which a run in the background has copies.
    pub(crate) own: Vec<Owned>,
    pub(crate) options: Options,
    /// The tokens of the attribute.
    pub(crate) attribute: String,
}

pub(crate) struct Cache {
    pub(crate) expression: Expr,
    /// True if the body may move or mutate the variables of the expression, so the cache is cloned.
    pub(crate) needs_clone: bool,
}

/// The limit of a memory cache of the function's own.
pub(crate) enum Limit {
    Entries(Expr),
    Weight { max: Expr, weigh: Expr },
}

pub(crate) struct Serializer {
    pub(crate) expression: Expr,
    /// As in [`Cache`].
    pub(crate) needs_clone: bool,
}

/// The argument whose elements have an entry each.
pub(crate) struct Batch {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    pub(crate) at_most: Option<Expr>,
}

pub(crate) enum Key {
    /// One part per argument.
    Arguments(Vec<KeyPart>),
    Source(KeySource),
}

/// The part of an argument that is in the key.
pub(crate) enum KeyPart {
    Whole,
    /// Some of the names of its pattern.
    Names(Vec<Ident>),
    Nothing,
}

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

impl Model {
    pub(crate) fn new(
        arguments: Arguments,
        function: Function,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let is_complete = arguments.is_complete;
        if is_complete {
            check_self(&arguments, &function, diagnostics);
        }
        let batch = batch::choose(&arguments, &function, diagnostics);
        let own = own::choose(&arguments, &function, diagnostics);
        check_closures(&arguments, &own, diagnostics);
        let key = match arguments.key {
            Some(source) => {
                let attribute = arguments.attribute;
                check_source(attribute, &source, arguments.skip.as_ref(), &function, diagnostics);
                Key::Source(source)
            }
            None => Key::Arguments(choose_arguments(
                arguments.attribute,
                arguments.skip.as_ref(),
                arguments.options.include.is_empty() && arguments.batch.each.is_none(),
                is_complete,
                &function,
                diagnostics,
            )),
        };
        if let Some(predicate) = &arguments.options.cache_if {
            check_predicate(predicate, &function, diagnostics);
        }
        let has_cache = arguments.cache.is_some();
        let limit = choose_limit(arguments.limits, has_cache, is_complete, &function, diagnostics);
        let cache = arguments.cache.map(|expression| {
            check_cache(&expression, &function, diagnostics);
            let needs_clone = needs_clone(&expression, &function);
            Cache { expression, needs_clone }
        });
        let serializer = arguments.serializer.map(|expression| {
            let needs_clone = needs_clone(&expression, &function);
            Serializer { expression, needs_clone }
        });
        if let (Some(condition), Key::Arguments(parts)) = (&arguments.options.refresh_if, &key) {
            check_refresh_if(condition, parts, &function, diagnostics);
        }
        if let Some(spawn) = &arguments.options.spawn {
            check_spawner(spawn, &function, diagnostics);
            if is_complete {
                check_spawn(&function, arguments.own.as_ref(), batch.as_ref(), diagnostics);
            }
        }
        if is_complete {
            check_background(&arguments.options, &function, diagnostics);
            check_patience(&arguments.options, &function, diagnostics);
            check_revalidate(&arguments.options, &function, diagnostics);
        }
        let handle = arguments.handle.map(|handle| check_handle(handle, &function, diagnostics));
        Some(Self {
            kind: arguments.attribute,
            root: Root::new(arguments.root.as_ref()),
            function,
            cache,
            limit,
            key,
            serializer,
            ttl: arguments.ttl?,
            handle,
            batch,
            own,
            options: arguments.options,
            attribute: arguments.text,
        })
    }

    /// Returns whether an argument is the one whose elements have an entry each.
    pub(crate) fn is_each(&self, argument: &Argument) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.name == argument.name)
    }

    /// Returns whether the attribute may use a name, in an expression or in a string.
    pub(crate) fn may_use(&self, name: &Ident) -> bool {
        self.attribute.contains(&name.unraw().to_string())
    }
}

/// Checks the handle, and decides whether it is an associated function.
fn check_handle(mut handle: Handle, function: &Function, diagnostics: &mut Diagnostics) -> Handle {
    let item = &function.item;
    if handle.name == item.sig.ident {
        diagnostics
            .add(&handle.name, "this is the name of the function itself; give the handle another");
    }
    for argument in &function.arguments {
        if let Type::ImplTrait(ty) = peel(&argument.ty) {
            let message = "a function with a handle must be able to name its types; write a type \
                           parameter";
            diagnostics.add(ty, message);
        }
        if let Some(condition) = argument.conditions.first() {
            diagnostics
                .add(condition, "an argument of a function with a handle cannot be conditional");
        }
    }
    handle.is_associated |=
        mentions(item.sig.to_token_stream(), &|name| name == "self" || name == "Self");
    handle
}

/// Rejects a `bool` that asks for a refresh and is in the key: the new value would be stored where no other call
/// finds it.
fn check_refresh_if(
    condition: &Expr,
    parts: &[KeyPart],
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    let flags: Vec<&Ident> = function
        .arguments
        .iter()
        .zip(parts)
        .filter(|(argument, part)| {
            !matches!(part, KeyPart::Nothing)
                && matches!(peel(&argument.ty), Type::Path(path) if path.path.is_ident("bool"))
        })
        .flat_map(|(argument, _)| argument.names())
        .collect();
    if let Some(name) = find(condition.to_token_stream(), &|name| flags.contains(&name)) {
        let message = format!(
            "`{name}` is part of the key, so other calls would not find the new value; write `skip({name})`"
        );
        diagnostics.add(name, message);
    }
}

/// Rejects a spawner of futures on a sync function, one of closures on an `async fn`, and any on a function that returns a
/// boxed future.
fn check_spawner(spawn: &Expr, function: &Function, diagnostics: &mut Diagnostics) {
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
fn check_background(options: &Options, function: &Function, diagnostics: &mut Diagnostics) {
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
fn check_spawn(
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
        if let Some(name) = pattern::borrowed_name(argument) {
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

/// A closure on the value or on the error, or an expression in its place.
pub(super) struct OnValue {
    parameters: TokenStream,
    body: TokenStream,
}

impl OnValue {
    fn of_closure(closure: &ExprClosure) -> Self {
        let (parameters, body) = (closure.inputs.to_token_stream(), closure.body.to_token_stream());
        Self { parameters, body }
    }

    fn of(expression: &Expr) -> Self {
        match expression {
            Expr::Closure(closure) => Self::of_closure(closure),
            other => Self { parameters: TokenStream::new(), body: other.to_token_stream() },
        }
    }

    /// Returns the use of an argument, if it uses that.
    pub(super) fn uses(&self, name: &Ident) -> Option<TokenTree> {
        if names_value(self.parameters.clone(), name) {
            return None;
        }
        find_value(self.body.clone(), name)
    }
}

/// Returns the closures on values and on errors.
pub(super) fn on_values(arguments: &Arguments) -> impl Iterator<Item = OnValue> {
    let ttl = match &arguments.ttl {
        Some(Ttl::ByValue(closure)) => Some(OnValue::of_closure(closure)),
        Some(Ttl::ExpiresAt(moment)) => Some(OnValue::of(moment)),
        Some(Ttl::Fixed(_)) | None => None,
    };
    let err_ttl = match &arguments.options.err_ttl {
        Some(ErrTtl::ByError(closure)) => Some(OnValue::of_closure(closure)),
        Some(ErrTtl::Fixed(_)) | None => None,
    };
    let cache_if = arguments.options.cache_if.as_ref().map(OnValue::of);
    [ttl, err_ttl, cache_if].into_iter().flatten()
}

/// Rejects closures on values that name a borrowed argument: a run in the background has these, too.
fn check_closures(arguments: &Arguments, own: &[Owned], diagnostics: &mut Diagnostics) {
    for closure in on_values(arguments) {
        for owned in own {
            let name = owned.name();
            if let Some(used) = closure.uses(&name) {
                let message = format!(
                    "this outlives the call, so it cannot use `{name}`, which is borrowed; take an owned value or an `Arc`"
                );
                diagnostics.add(used, message);
                break;
            }
        }
    }
}

/// Checks that there is a refresh in the background to wait for.
fn check_patience(options: &Options, function: &Function, diagnostics: &mut Diagnostics) {
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
fn check_revalidate(options: &Options, function: &Function, diagnostics: &mut Diagnostics) {
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

fn check_source(
    attribute: Attribute,
    source: &KeySource,
    skip: Option<&NameList>,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    if let Some(skip) = skip {
        let message = "`skip` does nothing where `key` says what the key is; remove one of them";
        diagnostics.add(&skip.keyword, message);
    }
    let closure = match source {
        KeySource::Closure(closure) => closure,
        KeySource::Expression(expression) => {
            return check_key_string(attribute, expression, function, diagnostics);
        }
    };
    let (given, wanted) = (closure.inputs.len(), function.arguments.len());
    if given != wanted {
        let message = format!(
            "this closure takes {given} but is called with a reference to each of the {wanted} \
             arguments of `{}`",
            function.item.sig.ident
        );
        diagnostics.add(closure, message);
    } else if wanted > 0 && closure.inputs.iter().all(|input| matches!(input, Pat::Wild(_))) {
        let message = format!(
            "this closure ignores every argument, so all calls would share one {}; write \
             `key = \"..\"` if that is meant",
            attribute.unit()
        );
        diagnostics.add(closure, message);
    }
}

/// Rejects a key that is a constant where something else was meant: the name of a type, or arguments in
/// braces.
fn check_key_string(
    attribute: Attribute,
    expression: &Expr,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    let Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) = expression else { return };
    let (text, written) = (literal.value(), literal.to_token_stream());
    let names: Vec<&Ident> = function.arguments.iter().flat_map(Argument::names).collect();
    let in_braces = |name: &&&Ident| {
        let name = name.unraw().to_string();
        [format!("{{{name}}}"), format!("{{{name}:"), format!("{{{name}.")]
            .iter()
            .any(|it| text.contains(it))
    };
    if names.iter().find(in_braces).is_some() || text.contains("{self") {
        let message = format!(
            "this string is the key of every call; write `key = format!({written})`, or write \
             `key = ({written})` if that is meant"
        );
        diagnostics.add(literal, message);
    } else if names_a_type(&text, function) {
        let unit = attribute.unit();
        let example = names.first().map_or_else(|| "id".to_owned(), ToString::to_string);
        let message = format!(
            "`key` is the key itself, not its type, so all calls would share one {unit}; write \
             `key = format!(\"{{{example}}}\")`, or leave `key` out to use all the arguments; or write \
             `key = ({written})` if that is meant"
        );
        diagnostics.add(literal, message);
    }
}

/// Returns whether a string is a primitive type, the type of an argument as it is written, or made of them. A name
/// alone may be meant as the key, unless it is that of a primitive type.
fn names_a_type(text: &str, function: &Function) -> bool {
    const PRIMITIVE: [&str; 18] = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
        "f32", "f64", "bool", "char", "String", "str",
    ];
    fn is_type(ty: &Type, arguments: &[String]) -> bool {
        let is_argument = arguments.contains(&ty.to_token_stream().to_string());
        match ty {
            Type::Path(path) => {
                PRIMITIVE.iter().any(|name| path.path.is_ident(name))
                    || is_argument && path.path.get_ident().is_none()
            }
            _ if is_argument => true,
            Type::Tuple(tuple) => {
                !tuple.elems.is_empty() && tuple.elems.iter().all(|ty| is_type(ty, arguments))
            }
            Type::Reference(reference) => is_type(&reference.elem, arguments),
            Type::Slice(slice) => is_type(&slice.elem, arguments),
            Type::Array(array) => is_type(&array.elem, arguments),
            _ => false,
        }
    }
    let pointees = function.arguments.iter().map(|argument| match &argument.ty {
        Type::Reference(reference) => reference.elem.to_token_stream().to_string(),
        ty => ty.to_token_stream().to_string(),
    });
    let arguments: Vec<String> = pointees.collect();
    !arguments.is_empty() && syn::parse_str::<Type>(text).is_ok_and(|ty| is_type(&ty, &arguments))
}

/// Rejects the function itself as its cache, where a field of `self` is meant.
fn check_cache(expression: &Expr, function: &Function, diagnostics: &mut Diagnostics) {
    let Expr::Path(path) = expression else { return };
    let name = &function.item.sig.ident;
    if path.path.is_ident(name)
        && !function.arguments.iter().any(|it| it.names().any(|it| it == name))
    {
        let instead = match function.item.sig.receiver() {
            Some(_) => format!("write `cache = self.{name}` for a field"),
            None => "name a cache, like `cache = PAGES`".to_owned(),
        };
        diagnostics.add(path, format!("`{name}` is the function itself; {instead}"));
    }
}

/// Combines the arguments that describe a cache of the function's own. Reports one mistake.
fn choose_limit(
    limits: Limits,
    has_cache: bool,
    is_complete: bool,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Option<Limit> {
    let Limits { max_entries, max_weight, weigh } = limits;
    if let Some((keyword, _)) = max_entries.as_ref().or(max_weight.as_ref())
        && has_cache
    {
        let message = format!(
            "`{keyword}` creates a memory cache for this function alone; remove `cache`, or set the \
             limit where that cache is built"
        );
        diagnostics.add(keyword, message);
        return None;
    }
    match (max_entries, max_weight, weigh) {
        (Some((keyword, _)), Some(_), _) => {
            let message =
                "a cache has a limit on entries or one on their weight; remove one of the two";
            diagnostics.add(keyword, message);
            None
        }
        (None | Some(_), None, Some((keyword, _))) => {
            if is_complete {
                let message = "`weigh` is for `max_weight`; write `max_weight = 64 << 20`, the limit on \
                               the sum of the weights, or remove `weigh`";
                diagnostics.add(keyword, message);
            }
            None
        }
        (Some((keyword, max)), None, None) => {
            check_constant(&keyword, &max, function, diagnostics);
            Some(Limit::Entries(max))
        }
        (None, Some((keyword, max)), Some((_, weigh))) => {
            check_constant(&keyword, &max, function, diagnostics);
            if let Expr::Closure(closure) = &weigh
                && closure.inputs.len() != 1
            {
                let message = "`weigh` takes one parameter, a reference to the value; write \
                               `weigh = |value| ..`";
                diagnostics.add(closure, message);
            }
            Some(Limit::Weight { max, weigh })
        }
        (None, Some((keyword, max)), None) => {
            if check_constant(&keyword, &max, function, diagnostics) && is_complete {
                let message = "`max_weight` needs the weight of each value, a `u32`; write \
                               `weigh = |value| ..`";
                diagnostics.add(keyword, message);
            }
            None
        }
        (None, None, None) => None,
    }
}

/// Rejects names of the signature in an expression that belongs to a static. Returns whether there are none.
fn check_constant(
    keyword: &Ident,
    expression: &Expr,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> bool {
    let parameters = function.item.sig.generics.params.iter().filter_map(|it| match it {
        GenericParam::Type(parameter) => Some(&parameter.ident),
        GenericParam::Const(parameter) => Some(&parameter.ident),
        GenericParam::Lifetime(_) => None,
    });
    let names: Vec<&Ident> =
        function.arguments.iter().flat_map(Argument::names).chain(parameters).collect();
    let used = find(expression.to_token_stream(), &|name| {
        names.contains(&name) || name == "self" || name == "Self"
    });
    if let Some(name) = &used {
        let message = format!(
            "`{keyword}` is evaluated once, when the cache is created, so it cannot use `{name}`; write \
             a constant"
        );
        diagnostics.add(name, message);
    }
    used.is_none()
}

/// Rejects a closure whose parameter is the whole `Result`, as it is written in the signature: only the value in its
/// `Ok` is cached. The compiler checks the types of other predicates.
fn check_predicate(predicate: &Expr, function: &Function, diagnostics: &mut Diagnostics) {
    let Some(output) = &function.output else { return };
    let Some(value) = only_argument(output, "Result") else { return };
    let Expr::Closure(closure) = predicate else { return };
    let Some(Pat::Type(typed)) = closure.inputs.first() else { return };
    let pointee = match peel(&typed.ty) {
        Type::Reference(reference) => peel(&reference.elem),
        ty => ty,
    };
    if pointee.to_token_stream().to_string() == peel(output).to_token_stream().to_string() {
        let message = format!(
            "of a `Result` only the value in `Ok` is cached: `cache_if` takes a predicate on that \
             `{}`; remove it, since an `Err` is not cached anyway",
            readable(value)
        );
        diagnostics.add(predicate, message);
    }
}

/// Rejects `&mut self` in the key, and a key that would be empty because `self` is its only argument.
fn check_self(arguments: &Arguments, function: &Function, diagnostics: &mut Diagnostics) {
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
        diagnostics.add(receiver, message);
        return;
    }
    let names_self = |expression: &Expr| mentions(expression.to_token_stream(), &|n| n == "self");
    let is_said = arguments.cache.iter().chain(&arguments.options.prefix).any(names_self);
    let has_parts = !arguments.options.include.is_empty()
        || function.arguments.iter().any(Argument::is_visible);
    if !is_said && !has_parts {
        let message = match arguments.attribute {
            Attribute::SingleFlight => {
                "`self` is not part of the key, so the calls of all values would be one; write \
                 `include(self.id)` with what the result depends on, or `key = ..`; or `skip(self)` if \
                 that is meant"
            }
            Attribute::Cached | Attribute::MemCached => {
                "`self` is not part of the key, so all values would share one entry; write \
                 `include(self.id)` with what the result depends on, `cache = self.cache` for \
                 entries of its own, or `key = ..`; or `skip(self)` if all values share it"
            }
        };
        diagnostics.add(receiver.self_token, message);
    }
}

/// Returns whether the type of a receiver contains an exclusive reference.
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

/// Chooses the part of each argument that is in the key.
fn choose_arguments(
    attribute: Attribute,
    skip: Option<&NameList>,
    is_alone: bool,
    is_complete: bool,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Vec<KeyPart> {
    let skipped = skip.map_or(&[][..], |skip| &skip.names);
    check_skipped(skipped, function, diagnostics);
    let parts: Vec<KeyPart> = function
        .arguments
        .iter()
        .map(|argument| key_part(argument, skipped, diagnostics))
        .collect();
    for (argument, part) in function.arguments.iter().zip(&parts) {
        if is_complete
            && let Type::Reference(reference) = &argument.ty
            && reference.mutability.is_some()
            && !matches!(part, KeyPart::Nothing)
        {
            let names: Vec<String> = argument.names().map(ToString::to_string).collect();
            let message = format!(
                "what a `&mut` argument holds may change during the call, so it cannot be part of \
                 the key; write `skip({})`",
                names.join(", ")
            );
            diagnostics.add(reference, message);
        }
    }
    if let Some(skip) = skip
        && parts.iter().all(|part| matches!(part, KeyPart::Nothing))
        && is_alone
        && function.arguments.iter().any(Argument::is_visible)
    {
        let message = format!(
            "every argument is skipped, so all calls would share one {}; write `key = \"..\"` if that \
             is meant",
            attribute.unit()
        );
        diagnostics.add(&skip.keyword, message);
    }
    parts
}

/// Removes the skipped names of an argument. The whole argument is left out only if all of its names are
/// skipped.
fn key_part(argument: &Argument, skipped: &[Ident], diagnostics: &mut Diagnostics) -> KeyPart {
    let (out, left): (Vec<&Binding>, Vec<&Binding>) =
        argument.bindings.iter().partition(|binding| skipped.contains(&binding.name));
    if !argument.is_visible() {
        return KeyPart::Nothing;
    }
    let Some(first) = out.first() else { return KeyPart::Whole };
    if argument.hides_names() {
        let message = format!(
            "the argument of `{}` has names that only a macro knows, so it cannot be skipped; write \
             `key = ..`",
            first.name
        );
        diagnostics.add(&skipped[position(skipped, &first.name)], message);
        return KeyPart::Whole;
    }
    for binding in &out {
        let whole = binding.wholes.iter().find(|whole| !skipped.contains(whole));
        if let Some(whole) = whole {
            let name = &binding.name;
            let message = format!(
                "`{name}` is a part of `{whole}`, which is in the key; write `skip({whole}, {name})`"
            );
            diagnostics.add(&skipped[position(skipped, name)], message);
        }
    }
    if left.is_empty() {
        KeyPart::Nothing
    } else {
        KeyPart::Names(left.into_iter().map(|binding| binding.name.clone()).collect())
    }
}

fn position(names: &[Ident], name: &Ident) -> usize {
    names.iter().position(|other| other == name).unwrap_or_default()
}

fn check_skipped(skipped: &[Ident], function: &Function, diagnostics: &mut Diagnostics) {
    let bindings: Vec<&Ident> = function.arguments.iter().flat_map(Argument::names).collect();
    let has_self = function.item.sig.receiver().is_some();
    for (index, name) in skipped.iter().enumerate() {
        if skipped[..index].contains(name) {
            diagnostics.add(name, format!("`{name}` is skipped twice; remove one"));
        } else if !(bindings.contains(&name) || name == "self" && has_self) {
            let message = if bindings.is_empty() {
                format!("`{name}` is not an argument: `{}` has none", function.item.sig.ident)
            } else {
                let names: Vec<String> = bindings.iter().map(|b| format!("`{b}`")).collect();
                format!("`{name}` is not an argument; the arguments are {}", names.join(", "))
            };
            diagnostics.add(name, message);
        }
    }
}

/// Returns whether an expression uses a variable that the body may move or borrow mutably.
fn needs_clone(expression: &Expr, function: &Function) -> bool {
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

fn mentions(tokens: TokenStream, predicate: &dyn Fn(&Ident) -> bool) -> bool {
    find(tokens, predicate).is_some()
}

/// Returns the first identifier that a predicate accepts.
fn find(tokens: TokenStream, predicate: &dyn Fn(&Ident) -> bool) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(name) => predicate(&name).then_some(name),
        TokenTree::Group(group) => find(group.stream(), predicate),
        _ => None,
    })
}
