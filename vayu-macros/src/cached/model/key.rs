//! The key: the arguments that are part of it, or the value of `key`.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{Expr, ExprLit, Ident, Lit, Pat, Receiver, ReceiverKind, Type, TypeReference};

use crate::cached::args::{Arguments, KeySource, NameList};
use crate::cached::attribute::Attribute;
use crate::cached::function::binding::Binding;
use crate::cached::function::{Argument, Function};
use crate::cached::tokens::{find, mentions};
use crate::cached::types::peel;
use crate::diagnostics::Diagnostics;

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

/// Rejects `&mut self` in the key, and a key that would be empty because `self` is its only argument.
pub(crate) fn check_self(
    arguments: &Arguments,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
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

pub(crate) fn check_source(
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

/// Chooses the part of each argument that is in the key.
pub(crate) fn choose_arguments(
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

/// Rejects a `bool` that asks for a refresh and is in the key: the new value would be stored where no other call
/// finds it.
pub(crate) fn check_refresh_if(
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
