//! `#[invalidates]`: invalidates entries after a function has written what they were made of.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{
    AttrStyle, Attribute, Error, Expr, ExprLit, ItemFn, Lit, Path, Result, ReturnType, Token,
    TraitItemFn, Type,
};

use crate::cached::args::format::check_format;
use crate::cached::expand::body::typed_async_block;
use crate::cached::function::Kind;
use crate::cached::types::{contains_impl, is_future, output_of_boxed_future};
use crate::diagnostics::Diagnostics;
use crate::paths::{Root, own_ident, span_of};

/// The arguments and an example of each.
const FORMS: [(&str, &str); 8] = [
    ("cache", "cache = PAGES"),
    ("tags", "tags(\"user:{id}\")"),
    ("functions", "functions(user, Shop::price)"),
    ("prefixes", "prefixes(\"user\")"),
    ("all", "all"),
    ("before", "before"),
    ("after", "after"),
    ("crate", "crate = renamed"),
];

/// The parsed arguments.
#[derive(Default)]
struct Arguments {
    cache: Option<Expr>,
    tags: Vec<Expr>,
    functions: Vec<Expr>,
    prefixes: Vec<Expr>,
    is_all: bool,
    is_before: bool,
    is_after: bool,
    root: Option<Path>,
}

/// Returns the function, which invalidates entries. On errors: `compile_error!` calls and the item as it is written.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut diagnostics = Diagnostics::default();
    let arguments = Arguments::parse(arguments, &mut diagnostics);
    let function = parse_function(&item, &mut diagnostics);
    match function {
        Some(function) if diagnostics.is_empty() => expand_function(&arguments, &function),
        _ => {
            let mut tokens = item;
            tokens.extend(diagnostics.into_compile_errors());
            tokens
        }
    }
}

impl Arguments {
    fn parse(tokens: TokenStream, diagnostics: &mut Diagnostics) -> Self {
        let mut arguments = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                arguments.parse_one(input, &mut seen)?;
                if !input.is_empty() {
                    comma(input)?;
                }
            }
            Ok(())
        };
        match parser.parse2(tokens) {
            Err(error) => diagnostics.push(error),
            Ok(()) if arguments.names_nothing() => diagnostics.push(Error::new(
                Span::call_site(),
                "this says nothing to invalidate; write `tags(\"user:{id}\")`, `functions(user)`, \
                 `prefixes(\"user\")` or `all`",
            )),
            Ok(()) => {}
        }
        arguments
    }

    fn names_nothing(&self) -> bool {
        self.tags.is_empty()
            && self.functions.is_empty()
            && self.prefixes.is_empty()
            && !self.is_all
    }

    fn parse_one(&mut self, input: ParseStream<'_>, seen: &mut Vec<Ident>) -> Result<()> {
        let start = input.span();
        let name = input.call(Ident::parse_any).map_err(|_| {
            Error::new(start, "each argument has a name; write `tags(\"user:{id}\")`")
        })?;
        let text = name.to_string();
        if seen.contains(&name) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice; remove one")));
        }
        seen.push(name.clone());
        match text.as_str() {
            "cache" => self.cache = Some(parse_cache(value(input, &name)?)?),
            "tags" => {
                self.tags = list(input, &name)?;
                for tag in &self.tags {
                    check_format(tag, |formatted| format!("tags({formatted})"))?;
                }
            }
            "prefixes" => self.prefixes = list(input, &name)?,
            "functions" => {
                self.functions = list(input, &name)?;
                for function in &self.functions {
                    if !matches!(function, Expr::Path(_)) {
                        let message = "`functions` takes functions by their names; write `functions(user, Shop::price)`";
                        return Err(Error::new_spanned(function, message));
                    }
                }
            }
            "all" | "before" | "after" => {
                if !input.is_empty() && !input.peek(Token![,]) {
                    return Err(malformed(&name));
                }
                match text.as_str() {
                    "all" => self.is_all = true,
                    "before" => self.is_before = true,
                    _ => self.is_after = true,
                }
            }
            "crate" => {
                input.parse::<Token![=]>().map_err(|_| malformed(&name))?;
                self.root = Some(input.call(Path::parse_mod_style).map_err(|_| malformed(&name))?);
            }
            _ => return Err(Error::new(name.span(), unknown(&text))),
        }
        Ok(())
    }
}

/// Returns the message for an unknown argument.
fn unknown(name: &str) -> String {
    let known = match name {
        "tag" => "tags",
        "function" | "fns" => "functions",
        "prefix" => "prefixes",
        "everything" | "all_entries" => "all",
        "before_invocation" => "before",
        _ => "",
    };
    match FORMS.iter().find(|(form, _)| *form == known) {
        Some((_, form)) => format!("there is no `{name}`; write `{form}`"),
        None => {
            let names: Vec<String> = FORMS.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("there is no `{name}`; the arguments are {}", names.join(", "))
        }
    }
}

fn malformed(name: &Ident) -> Error {
    let text = name.to_string();
    let form = FORMS.iter().find(|(known, _)| *known == text).map_or("", |(_, form)| form);
    Error::new(name.span(), format!("write `{form}`"))
}

fn comma(input: ParseStream<'_>) -> Result<()> {
    input
        .parse::<Token![,]>()
        .map(drop)
        .map_err(|error| Error::new(error.span(), "an argument ends with a comma"))
}

fn value(input: ParseStream<'_>, name: &Ident) -> Result<Expr> {
    input.parse::<Token![=]>().map_err(|_| malformed(name))?;
    input.parse().map_err(|_| malformed(name))
}

fn parse_cache(expression: Expr) -> Result<Expr> {
    if let Expr::Lit(literal) = &expression {
        let message = "`cache` is an expression for a cache; write `cache = PAGES`";
        return Err(Error::new_spanned(literal, message));
    }
    Ok(expression)
}

/// Parses `(expression, ..)` with at least one expression.
fn list(input: ParseStream<'_>, name: &Ident) -> Result<Vec<Expr>> {
    if !input.peek(syn::token::Paren) {
        return Err(malformed(name));
    }
    let content;
    syn::parenthesized!(content in input);
    let items = content.parse_terminated(Expr::parse, Token![,])?;
    if items.is_empty() {
        return Err(Error::new(name.span(), format!("`{name}()` names nothing; remove it")));
    }
    Ok(items.into_iter().collect())
}

/// A parsed function.
struct Function {
    item: ItemFn,
    kind: Kind,
    /// The output of the call, after `.await`.
    output: Type,
}

fn parse_function(item: &TokenStream, diagnostics: &mut Diagnostics) -> Option<Function> {
    let Ok(function) = syn::parse2::<ItemFn>(item.clone()) else {
        diagnostics.push(match syn::parse2::<TraitItemFn>(item.clone()) {
            Ok(declaration) => Error::new_spanned(
                declaration.sig,
                "a function without a body writes nothing; put `#[invalidates]` on the implementations",
            ),
            Err(_) => {
                let first = item.clone().into_iter().next();
                let span = first.map_or_else(Span::call_site, |token| token.span());
                Error::new(span, "`#[invalidates]` goes on a function or a method")
            }
        });
        return None;
    };
    let name = &function.sig.ident;
    for other in &function.attrs {
        let last = other.path().segments.last().map(|segment| segment.ident.to_string());
        match last.as_deref() {
            Some("cached" | "mem_cached") => diagnostics.add(
                other.path(),
                format!("`{name}` is cached, so it does not run in each call; put `#[invalidates]` on the function that writes"),
            ),
            Some("track_caller") => diagnostics.add(
                other.path(),
                "a function under `#[invalidates]` cannot be `#[track_caller]`: its body is a closure; remove it",
            ),
            _ => {}
        }
    }
    if let Some(constness) = &function.sig.constness {
        diagnostics.add(constness, "a `const fn` cannot use a cache; remove `const`");
    }
    let written = match &function.sig.output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    let boxed = output_of_boxed_future(&written);
    let kind = match (&boxed, function.sig.asyncness) {
        (_, Some(_)) => Kind::Async,
        (Some(_), None) => Kind::Boxed,
        (None, None) => Kind::Sync,
    };
    if kind == Kind::Sync && is_future(&written) {
        let message = format!(
            "`{name}` returns a future, which writes later; write `async fn {name}(..)` and the type of its output"
        );
        diagnostics.add(&written, message);
    }
    if let Type::Never(never) = &written {
        diagnostics
            .add(never, "a function that never returns has no end after which to invalidate");
    }
    let output = if kind == Kind::Boxed { boxed? } else { written };
    Some(Function { item: function, kind, output })
}

/// Generates the function.
fn expand_function(arguments: &Arguments, function: &Function) -> TokenStream {
    let ItemFn { attrs, vis, sig, block, modifiers } = &function.item;
    let (inner, outer): (Vec<&Attribute>, Vec<&Attribute>) =
        attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let defaultness = &modifiers.defaultness;
    let root = Root::new(arguments.root.as_ref());
    let groups = groups(arguments, function, &root);
    let statements = &block.stmts;
    let is_async = function.kind != Kind::Sync;
    let before = arguments.is_before.then(|| {
        if is_async {
            quote_spanned!(Span::mixed_site()=> vayu_groups.invalidate_async().await;)
        } else {
            quote_spanned!(Span::mixed_site()=> vayu_groups.invalidate();)
        }
    });
    let body = if arguments.is_before && !arguments.is_after {
        let body = match function.kind {
            Kind::Sync | Kind::Async => quote!(#(#statements)*),
            Kind::Boxed => boxed_body(function),
        };
        quote_spanned! {Span::mixed_site()=>
            #before
            ::core::mem::drop(vayu_groups);
            #body
        }
    } else {
        let output = match function.kind {
            Kind::Sync => {
                let run = root.private("run_body");
                let output = &function.output;
                let output = (!contains_impl(output)).then(|| quote!(-> #output));
                quote_spanned!(Span::mixed_site()=> #run(move || #output { #(#statements)* }))
            }
            Kind::Async if contains_impl(&function.output) => {
                quote_spanned!(Span::mixed_site()=> async move { #(#statements)* }.await)
            }
            Kind::Async => {
                let body = typed_async_block(
                    &function.output.to_token_stream(),
                    &root,
                    &TokenStream::new(),
                    &quote!(#(#statements)*),
                );
                quote_spanned!(Span::mixed_site()=> #body.await)
            }
            Kind::Boxed => {
                let body = boxed_body(function);
                quote_spanned!(Span::mixed_site()=> async move { #body }.await)
            }
        };
        let (probe, any) = (root.private("OutputProbe"), root.private("AnyOutput"));
        let check = (!is_async).then(|| {
            let span = match &function.item.sig.output {
                ReturnType::Type(_, ty) => ty.span(),
                ReturnType::Default => Span::call_site(),
            };
            let check = root.private_at("check_run", span);
            let [complete, later] =
                ["CompleteOutput", "LaterOutput"].map(|name| root.private(name));
            let imports = quote_spanned!(Span::mixed_site()=> use #complete as _; use #later as _;);
            let span = span.resolved_at(Span::mixed_site());
            quote_spanned! {span=>
                {
                    #imports
                    #check((&#probe::of(&vayu_output)).vayu_run());
                }
            }
        });
        let end = if is_async {
            quote_spanned!(Span::mixed_site()=> vayu_groups.end_async(vayu_has_failed).await;)
        } else {
            quote_spanned!(Span::mixed_site()=> vayu_groups.end(vayu_has_failed);)
        };
        quote_spanned! {Span::mixed_site()=>
            #before
            let vayu_groups = vayu_groups.begun();
            let vayu_output = #output;
            #check
            let vayu_has_failed = {
                use #any as _;
                #probe::of(&vayu_output).vayu_has_failed(&vayu_output)
            };
            #end
            vayu_output
        }
    };
    let body = quote!(#groups #body);
    let body = match function.kind {
        Kind::Sync | Kind::Async => body,
        Kind::Boxed => quote!(::std::boxed::Box::pin(async move { #body })),
    };
    quote! {
        #(#outer)*
        #vis #defaultness #sig {
            #(#inner)*
            #body
        }
    }
}

/// Generates the body of a function that returns a boxed future, up to its output.
fn boxed_body(function: &Function) -> TokenStream {
    let statements = &function.item.block.stmts;
    let boxed = match &function.item.sig.output {
        ReturnType::Type(_, boxed) => boxed.to_token_stream(),
        ReturnType::Default => quote!(()),
    };
    quote_spanned! {Span::mixed_site()=>
        let vayu_future: #boxed = { #(#statements)* };
        vayu_future.await
    }
}

/// Generates the groups, which are evaluated before the body takes the arguments.
fn groups(arguments: &Arguments, function: &Function, root: &Root) -> TokenStream {
    let cache = match &arguments.cache {
        Some(expression) => {
            let span = span_of(expression);
            let as_cache = root.private_at("AsCache", span);
            quote_spanned! {span=>
                let vayu_cache = &(#expression);
                let vayu_cache = #as_cache::as_cache(vayu_cache);
            }
        }
        None => {
            let mem_cache = root.item("mem_cache");
            quote_spanned!(Span::mixed_site()=> let vayu_cache = #mem_cache();)
        }
    };
    let method = |name: &str, span| own_ident(name, span);
    let tags = arguments.tags.iter().map(|tag| {
        let (span, method) = (span_of(tag), method("tag", span_of(tag)));
        match tag {
            // Inline arguments, as in `format!`.
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
                quote_spanned!(span=> .#method(::core::format_args!(#text)))
            }
            _ => quote_spanned!(span=> .#method(&(#tag))),
        }
    });
    let functions = arguments.functions.iter().map(|function| {
        let (span, method) = (span_of(function), method("function", span_of(function)));
        quote_spanned!(span=> .#method(&#function))
    });
    let prefixes = arguments.prefixes.iter().map(|prefix| {
        let (span, method) = (span_of(prefix), method("prefix", span_of(prefix)));
        quote_spanned!(span=> .#method(#prefix))
    });
    let all = arguments.is_all.then(|| quote!(.all()));
    let invalidates = root.private("invalidates");
    let name = function.item.sig.ident.unraw().to_string();
    quote_spanned! {Span::mixed_site()=>
        let vayu_groups = {
            #cache
            #invalidates(vayu_cache, ::core::concat!(::core::module_path!(), "::", #name))
                #(#tags)*
                #(#functions)*
                #(#prefixes)*
                #all
        };
    }
}
