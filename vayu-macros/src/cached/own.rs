//! `own(..)`: borrowed arguments of which a run in the background has copies.
//!
//! The body is a closure with these arguments as its parameters. A run in the caller lends it the arguments as they are, one in
//! the background lends it the copies. `self` is another name there.

use std::mem;

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::visit::Visit;
use syn::{FnArg, Item, Lifetime, Pat, Receiver, ReceiverKind, Signature, Token, Type};

use crate::cached::args::{Arguments, NameList};
use crate::cached::closure::names_inline;
use crate::cached::function::{Argument, Function, contains_impl};
use crate::cached::model::Model;
use crate::diagnostics::Diagnostics;
use crate::paths::{own_ident, span_of};

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
pub(super) fn choose(
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
pub(super) fn is_reference(receiver: &Receiver) -> bool {
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

/// Generates the parameters of the body.
pub(super) fn parameters(model: &Model) -> TokenStream {
    let parameters = model.own.iter().map(|owned| match owned {
        Owned::This => {
            let this = this(Span::mixed_site());
            quote!(#this: &Self)
        }
        Owned::Argument { name, pointee, .. } => {
            let mutability = is_mutable(model, name).then(|| quote!(mut));
            quote_spanned!(span_of(pointee)=> #mutability #name: &#pointee)
        }
    });
    quote!(#(#parameters),*)
}

/// Returns the signature without `mut` on the parameters of the body, which has it there.
pub(super) fn signature(model: &Model, mut signature: Signature) -> Signature {
    for input in &mut signature.inputs {
        if let FnArg::Typed(typed) = input
            && let Pat::Ident(pattern) = &mut *typed.pat
            && model.own.iter().any(|owned| owned.is(&pattern.ident))
        {
            pattern.mutability = None;
        }
    }
    signature
}

/// Returns whether the function binds an argument as `mut`.
fn is_mutable(model: &Model, name: &Ident) -> bool {
    model.function.item.sig.inputs.iter().any(|input| match input {
        FnArg::Typed(typed) => {
            matches!(&*typed.pat, Pat::Ident(pattern) if pattern.ident == *name && pattern.mutability.is_some())
        }
        FnArg::Receiver(_) => false,
    })
}

/// Generates the arguments of the body for a run in the caller.
pub(super) fn borrowed(model: &Model) -> TokenStream {
    let receiver = model.function.item.sig.receiver().map(|receiver| receiver.self_token);
    let arguments = model.own.iter().map(|owned| match owned {
        Owned::This => receiver.to_token_stream(),
        Owned::Argument { name, .. } => name.to_token_stream(),
    });
    quote!(#(#arguments),*)
}

/// Generates the copies, and the arguments of the body for a run that has them.
pub(super) fn copies(model: &Model) -> (TokenStream, TokenStream) {
    let receiver = model.function.item.sig.receiver().map(|receiver| receiver.self_token);
    let copies = model.own.iter().enumerate().map(|(index, owned)| {
        let (argument, pointee) = match owned {
            Owned::This => (receiver.to_token_stream(), quote!(Self)),
            Owned::Argument { name, pointee, .. } => {
                (name.to_token_stream(), pointee.to_token_stream())
            }
        };
        let span = match owned {
            Owned::This => receiver.map_or_else(Span::mixed_site, |receiver| receiver.span),
            Owned::Argument { pointee, .. } => span_of(pointee),
        };
        let copied = model.root.private_at("OwnedCopy", span);
        let copy = own_ident(&format!("vayu_copy_{index}"), Span::mixed_site());
        (
            quote_spanned!(span=> let #copy = <#pointee as #copied>::owned_copy(#argument);),
            quote_spanned!(span=> <#pointee as #copied>::lend(&#copy)),
        )
    });
    let (copies, lent): (Vec<_>, Vec<_>) = copies.unzip();
    (quote!(#(#copies)*), quote!(#(#lent),*))
}

/// Generates the copies for a body that may run several times.
///
/// Returns the statements that make them, those that make copies of them, and those that give the arguments their names.
pub(super) fn of_batch(model: &Model) -> [TokenStream; 3] {
    let (copies, _) = copies(model);
    let parts = model.own.iter().enumerate().map(|(index, owned)| {
        let copy = own_ident(&format!("vayu_copy_{index}"), Span::mixed_site());
        let again =
            quote_spanned!(Span::mixed_site()=> let #copy = ::core::clone::Clone::clone(&#copy););
        let owned_copy = model.root.private("OwnedCopy");
        let bound = match owned {
            Owned::This => {
                let this = this(Span::mixed_site());
                quote_spanned!(Span::mixed_site()=> let #this = <Self as #owned_copy>::lend(&#copy);)
            }
            Owned::Argument { name, pointee, .. } => {
                let mutability = is_mutable(model, name).then(|| quote!(mut));
                quote_spanned! {span_of(pointee)=>
                    let #mutability #name = <#pointee as #owned_copy>::lend(&#copy);
                }
            }
        };
        (again, bound)
    });
    let (again, bound): (Vec<_>, Vec<_>) = parts.unzip();
    [copies, quote!(#(#again)*), quote!(#(#bound)*)]
}

/// Generates the statements of the body.
pub(super) fn statements(model: &Model) -> TokenStream {
    let statements = &model.function.item.block.stmts;
    let statements = in_body(model, quote!(#(#statements)*));
    // The body may not use it.
    let this = renames_self(model).then(|| {
        let this = this(Span::mixed_site());
        quote!(let _ = #this;)
    });
    quote!(#this #statements)
}

/// Returns code of the user as it is in the body.
pub(super) fn in_body(model: &Model, code: TokenStream) -> TokenStream {
    if renames_self(model) { rename_self(code, &mut None) } else { code }
}

fn renames_self(model: &Model) -> bool {
    model.own.iter().any(|owned| matches!(owned, Owned::This))
}

fn this(span: Span) -> Ident {
    own_ident("vayu_this", span)
}

/// Renames `self` where it is a value: not in a path, an import, a visibility, or an `impl` in the body. Sets `inline` to the
/// first string in a macro that has it as an inline argument, which stays as it is.
fn rename_self(tokens: TokenStream, inline: &mut Option<Literal>) -> TokenStream {
    rename_self_in(tokens, false, inline)
}

fn rename_self_in(
    tokens: TokenStream,
    is_in_macro: bool,
    inline: &mut Option<Literal>,
) -> TokenStream {
    let mut is_macro = false;
    let mut renamed = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    // The delimiter or punctuation up to which tokens stay as they are.
    let mut kept: Option<End> = None;
    while let Some(token) = tokens.next() {
        if let Some(end) = &kept {
            if end.is(&token) {
                kept = None;
            }
            renamed.push(token);
            continue;
        }
        let is_after_macro = mem::replace(
            &mut is_macro,
            matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '!'),
        );
        match token {
            TokenTree::Ident(name) if name == "self" => {
                let is_path = matches!(tokens.peek(), Some(TokenTree::Punct(colon)) if colon.as_char() == ':');
                renamed.push(TokenTree::Ident(if is_path {
                    name
                } else {
                    this(Span::mixed_site().located_at(name.span()))
                }));
            }
            TokenTree::Ident(name) => {
                kept = match name.to_string().as_str() {
                    "impl" | "trait" => Some(End::Group(Delimiter::Brace)),
                    "pub" => matches!(tokens.peek(), Some(TokenTree::Group(_)))
                        .then_some(End::Group(Delimiter::Parenthesis)),
                    "use" => Some(End::Semicolon),
                    _ => None,
                };
                renamed.push(name.into());
            }
            TokenTree::Group(group) => {
                let stream = rename_self_in(group.stream(), is_in_macro || is_after_macro, inline);
                let mut inner = Group::new(group.delimiter(), stream);
                inner.set_span(group.span());
                renamed.push(inner.into());
            }
            TokenTree::Literal(literal) => {
                if is_in_macro && names_inline(&literal, &Owned::This.name()) {
                    inline.get_or_insert_with(|| literal.clone());
                }
                renamed.push(literal.into());
            }
            punct @ TokenTree::Punct(_) => renamed.push(punct),
        }
    }
    renamed.into_iter().collect()
}

enum End {
    Group(Delimiter),
    Semicolon,
}

impl End {
    fn is(&self, token: &TokenTree) -> bool {
        match (self, token) {
            (Self::Group(delimiter), TokenTree::Group(group)) => group.delimiter() == *delimiter,
            (Self::Semicolon, TokenTree::Punct(punct)) => punct.as_char() == ';',
            _ => false,
        }
    }
}
