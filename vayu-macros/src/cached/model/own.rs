//! `own(..)`: borrowed arguments of which a run in the background has copies, checked against the function.

use proc_macro2::{Ident, Span};
use quote::ToTokens;
use syn::visit::Visit;
use syn::{Item, Lifetime, Receiver, ReceiverKind, Token, Type};

use crate::cached::args::{Arguments, NameList};
use crate::cached::function::{Argument, Function};
use crate::cached::tokens::rename_self;
use crate::cached::types::contains_impl;
use crate::diagnostics::Diagnostics;

/// An argument to copy.
pub(crate) enum Owned {
    /// `&self`.
    This,
    /// A reference to a value of this type.
    Argument { name: Ident, lifetime: Option<Lifetime>, pointee: Box<Type> },
}

impl Owned {
    /// Returns the name of the argument.
    pub(crate) fn name(&self) -> Ident {
        match self {
            Self::This => Ident::from(Token![self](Span::call_site())),
            Self::Argument { name, .. } => name.clone(),
        }
    }

    /// Returns whether this is the argument with this name.
    pub(crate) fn is(&self, other: &Ident) -> bool {
        match self {
            Self::This => other == "self",
            Self::Argument { name, .. } => name == other,
        }
    }
}

/// Checks the arguments to copy against the function.
pub(crate) fn choose(
    arguments: &Arguments,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Vec<Owned> {
    let Some(NameList { keyword, names }) = &arguments.own else { return Vec::new() };
    if arguments.is_complete && arguments.options.spawn.is_none() {
        let message = "`own` copies borrowed arguments for a run in the background; add `spawn = tokio::spawn` or \
                       `spawn = std::thread::spawn`, or remove `own`";
        diagnostics.add(keyword, message);
        return Vec::new();
    }
    let mut chosen: Vec<Owned> = Vec::new();
    for name in names {
        if chosen.iter().any(|owned| owned.is(name)) {
            diagnostics.add(name, format!("`{name}` is in `own` twice; remove one"));
            continue;
        }
        let owned =
            if name == "self" { receiver(function, name) } else { argument(function, name) };
        match owned {
            Ok(owned) => chosen.push(owned),
            Err(message) => diagnostics.add(name, message),
        }
    }
    if chosen.iter().any(|owned| matches!(owned, Owned::This)) {
        check_renaming(arguments, function, diagnostics);
    }
    check_lifetimes(&chosen, function, diagnostics);
    chosen
}

/// Rejects strings with `self` as an inline argument, which has another name in the body.
fn check_renaming(arguments: &Arguments, function: &Function, diagnostics: &mut Diagnostics) {
    let revalidate = arguments.options.revalidate.as_ref().map(|(_, check)| check);
    for code in [function.item.block.to_token_stream(), revalidate.to_token_stream()] {
        let mut inline = None;
        rename_self(code, &mut inline);
        if let Some(literal) = inline {
            let message = "`own(self)` makes `self` another name, which a string cannot use; write `let this = self;` \
                           and `{this}`";
            diagnostics.add(literal, message);
        }
    }
}

/// Rejects uses in the body of the lifetimes of references to what is copied: the copy does not live as long.
fn check_lifetimes(chosen: &[Owned], function: &Function, diagnostics: &mut Diagnostics) {
    struct Uses<'a, 'b> {
        name: &'a Ident,
        lifetime: &'a Lifetime,
        diagnostics: &'b mut Diagnostics,
    }
    impl<'ast> Visit<'ast> for Uses<'_, '_> {
        fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
            if lifetime == self.lifetime {
                let message = format!(
                    "the copy of `{}` in a run in the background does not live for `{lifetime}`; remove this lifetime",
                    self.name,
                );
                self.diagnostics.add(lifetime, message);
            }
        }

        // It has lifetimes of its own.
        fn visit_item(&mut self, _: &'ast Item) {}
    }
    for owned in chosen {
        let lifetime = match owned {
            Owned::This => {
                let receiver = function.item.sig.receiver().and_then(SelfReference::of);
                receiver.and_then(|receiver| receiver.lifetime)
            }
            Owned::Argument { lifetime, .. } => lifetime.as_ref(),
        };
        if let Some(lifetime) = lifetime {
            let name = &owned.name();
            Uses { name, lifetime, diagnostics }.visit_block(&function.item.block);
        }
    }
}

/// A receiver that is a reference: `&self`, or `self` with such a type.
struct SelfReference<'a> {
    lifetime: Option<&'a Lifetime>,
    is_mutable: bool,
    /// The type that is referred to, where it is written.
    pointee: Option<&'a Type>,
}

impl<'a> SelfReference<'a> {
    /// Returns the parts of a receiver, if it is a reference.
    fn of(receiver: &'a Receiver) -> Option<Self> {
        let (lifetime, mutability, pointee) = match &receiver.kind {
            ReceiverKind::Reference(_, lifetime, mutability) => (lifetime, mutability, None),
            ReceiverKind::Typed(_, ty) => match &**ty {
                Type::Reference(ty) => (&ty.lifetime, &ty.mutability, Some(&*ty.elem)),
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { lifetime: lifetime.as_ref(), is_mutable: mutability.is_some(), pointee })
    }
}

/// Returns whether a receiver is a reference.
pub(crate) fn is_reference(receiver: &Receiver) -> bool {
    SelfReference::of(receiver).is_some()
}

fn is_self(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("Self"))
}

fn receiver(function: &Function, name: &Ident) -> Result<Owned, String> {
    let Some(receiver) = function.item.sig.receiver() else {
        return Err(unknown(function, name));
    };
    let Some(receiver) = SelfReference::of(receiver) else {
        return Err("`self` is owned already; remove it from `own`".to_owned());
    };
    if receiver.is_mutable {
        return Err(
            "a run in the background cannot change what `&mut self` refers to; take `&self`"
                .to_owned(),
        );
    }
    if receiver.pointee.is_some_and(|ty| !is_self(ty)) {
        return Err(
            "`own(self)` copies a `&self`; take that, or `self` without a reference".to_owned()
        );
    }
    Ok(Owned::This)
}

fn argument(function: &Function, name: &Ident) -> Result<Owned, String> {
    let has_name = |argument: &&Argument| argument.names().any(|other| other == name);
    let Some(argument) = function.arguments.iter().find(has_name) else {
        return Err(unknown(function, name));
    };
    if argument.pattern.is_some() {
        return Err(format!(
            "`{name}` is in a pattern; give the whole argument one name for `own`"
        ));
    }
    if !argument.conditions.is_empty() {
        return Err("an argument in `own` cannot be conditional".to_owned());
    }
    let Type::Reference(reference) = &argument.ty else {
        return Err(format!("`{name}` is owned already; remove it from `own`"));
    };
    if reference.mutability.is_some() {
        return Err(format!(
            "a run in the background cannot change what `{name}` refers to; take `&` in place of `&mut`"
        ));
    }
    if reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static") {
        return Err(format!("`{name}` is `'static`, so it needs no copy; remove it from `own`"));
    }
    if contains_impl(&reference.elem) {
        return Err(format!(
            "the type of `{name}` must have a name to be copied; write a type parameter"
        ));
    }
    let (lifetime, pointee) = (reference.lifetime.clone(), reference.elem.clone());
    Ok(Owned::Argument { name: name.clone(), lifetime, pointee })
}

fn unknown(function: &Function, name: &Ident) -> String {
    let function = &function.item.sig.ident;
    format!("`{name}` is not an argument of `{function}`; write the name of one that is borrowed")
}
