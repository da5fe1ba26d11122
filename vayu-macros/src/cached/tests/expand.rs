//! The expansion.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use super::messages;
use crate::cached::{Attribute, expand};

#[test]
fn function_is_emitted_as_it_is_written_on_an_error() {
    let item =
        quote! { #[inline] pub(crate) async unsafe fn call<T>(a: T) -> T where T: Copy { a; } };
    for arguments in ["ttl = 0", "ttl = ", "tt", "ttl = 1 stale = 5", "\"5m\"", "= , ="] {
        let expanded =
            expand(Attribute::Cached, arguments.parse().unwrap(), item.clone()).to_string();
        assert!(expanded.contains("compile_error"), "{expanded}");
        assert!(expanded.starts_with(&item.to_string()), "{expanded}");
    }
    let other = quote! { struct Shop { a: u8 } };
    let expanded = expand(Attribute::Cached, quote!(ttl = 1), other.clone()).to_string();
    assert!(expanded.starts_with(&other.to_string()), "{expanded}");
}

#[test]
fn body_is_emitted_once() {
    let item = quote! { #[doc = "d"] pub fn call(a: u8) -> u8 { the_body(a) } };
    let expanded = expand(Attribute::Cached, quote!(ttl = 1), item).to_string();
    assert_eq!(expanded.matches("the_body").count(), 1, "{expanded}");
    assert!(expanded.starts_with("# [doc = \"d\"] pub fn call (a : u8) -> u8 {"), "{expanded}");
}

#[test]
fn boxed_future_is_recognized_under_any_path() {
    for output in [
        quote!(Pin<Box<dyn Future<Output = Result<u8, E>> + Send + 'a>>),
        quote!(::core::pin::Pin<Box<dyn ::core::future::Future<Output = u8> + 'async_trait>>),
    ] {
        let item = quote! { fn call<'a>(a: &'a str) -> #output { body() } };
        let expanded = expand(Attribute::Cached, quote!(ttl = 1), item).to_string();
        assert!(expanded.contains("finish_async"), "{expanded}");
    }
}

#[test]
fn cache_is_cloned_if_the_body_may_move_its_owner() {
    let clones = |item: TokenStream| {
        let arguments = quote!(ttl = 1, cache = self.cache, skip(self));
        expand(Attribute::Cached, arguments, item).to_string().contains("Clone :: clone")
    };
    assert!(!clones(quote! { fn call(&self) -> u8 {} }));
    assert!(!clones(quote! { fn call(self: &Self) -> u8 {} }));
    assert!(clones(quote! { fn call(&mut self) -> u8 {} }));
    assert!(clones(quote! { fn call(self) -> u8 {} }));
    assert!(clones(quote! { async fn call(self: Arc<Self>) -> u8 {} }));
}

#[test]
fn names_that_async_trait_moved_into_the_body_are_found() {
    let item = quote! {
        fn call<'a>(&'a self, __arg1: (u8, u8), __arg2: Db, id: u8) -> Pin<Box<dyn Future<Output = u8> + 'a>> {
            Box::pin(async move {
                let __self = self;
                let (a, mut b) = { let __arg1 = __arg1; __arg1 };
                let __arg2 = __arg2;
                let id = id;
                let __ret: u8 = { a + b + id };
                __ret
            })
        }
    };
    assert_eq!(messages(quote!(ttl = 1, skip(a)), &item), [""; 0]);
    let found = messages(quote!(ttl = 1, skip(c)), &item);
    assert_eq!(found, ["`c` is not an argument; the arguments are `a`, `b`, `id`"]);
    let expanded = expand(Attribute::Cached, quote!(ttl = 1), item).to_string();
    assert_eq!(expanded.matches("let (a , mut b) = __arg1").count(), 1, "{expanded}");
    assert!(!expanded.contains("Part (& (__arg2))"), "{expanded}");
}

#[test]
fn handle_and_function_share_one_static() {
    let item = quote! { #[cfg(unix)] #[inline] fn r#match<T>(&self, a: T) -> u8 { 1 } };
    let arguments = quote!(ttl = 1, max_entries = 5, handle = entry);
    let expanded = expand(Attribute::Cached, arguments, item).to_string();
    assert_eq!(expanded.matches("static VAYU_CACHE").count(), 1, "{expanded}");
    assert_eq!(expanded.matches("Self :: vayu_cache_of_match ()").count(), 2, "{expanded}");
    assert_eq!(expanded.matches("cfg (unix)").count(), 3, "{expanded}");
}

#[test]
fn expansion_lifts_no_lint() {
    for item in [
        "fn call(_a: u8, (_b, c): (u8, u8), names!(d): u8) -> u8 { c }",
        "async fn call(_a: u8, (_b, c): (u8, u8), names!(d): u8) -> u8 { return c; }",
    ] {
        for arguments in [
            "ttl = 1, handle = entry",
            "ttl = 1, cache = CACHE, key = |a, _, _| k(a)",
            "ttl = 1, version = 1, cache_if = Some",
        ] {
            let expanded =
                expand(Attribute::Cached, arguments.parse().unwrap(), item.parse().unwrap())
                    .to_string();
            assert!(
                !expanded.contains("compile_error") && !expanded.contains("allow"),
                "{expanded}"
            );
        }
    }
}

/// Returns every token stream with one token deleted, doubled or swapped with the next.
fn mutations(tokens: &TokenStream) -> Vec<TokenStream> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut mutations = Vec::new();
    for index in 0..tokens.len() {
        let mut deleted = tokens.clone();
        deleted.remove(index);
        let mut doubled = tokens.clone();
        doubled.insert(index, tokens[index].clone());
        let mut swapped = tokens.clone();
        swapped.swap(index, (index + 1) % tokens.len());
        mutations.extend([deleted, doubled, swapped]);
        if let TokenTree::Group(group) = &tokens[index] {
            for inner in self::mutations(&group.stream()) {
                let mut changed = tokens.clone();
                changed[index] = proc_macro2::Group::new(group.delimiter(), inner).into();
                mutations.push(changed);
            }
        }
    }
    mutations.into_iter().map(|tokens| tokens.into_iter().collect()).collect()
}

#[test]
fn malformed_input_does_not_panic() {
    let arguments = [
        "ttl = |v: &u8| f(v), cache = self.cache, prefix = \"p\", key = |a, b| a, include(a, b + 1),
         skip(a), serializer = Json, log = false, cache_if = Some, version = 2, crate = ::a::b",
        "ttl = 5m, stale = \"5M\"x, jitter = \"1e1%\", version = 1.0f, skip(self, r#type, r#in, whole),
         tags(\"{type}\", r#in), handle = Self::r#match, spawn = r#move, r#ttl = 1",
    ];
    let items = [
        "#[doc = \"d\"] pub(crate) async unsafe fn call<'a, T: A, const N: usize>(
            self: Arc<Self>, mut a: &'a [T], (b, [c, ..]): (u8, [u8; N]), _: impl B,
        ) -> Result<Option<T>, E<'a>> where T: C { let x = a?; return Ok(x); }",
        "fn r#match<'r#ref, r#Type: r#trait, const r#N: usize>(
            mut self: Pin<&'r#ref mut Self>, whole @ r#Type { r#type, r#in: ref mut r#if, .. }: r#Type,
            &(ref r#use, (r#dyn, ..)): &'r#ref (u8, &(u8, u8)), (Ok(r#fn) | Err(r#fn)): Result<u8, u8>,
            names!(r#let): u8, r#loop: u8,
        ) -> u8 { r#type }",
        "fn r#box<'a>(&'a self, __arg1: (u8, u8)) -> Pin<Box<dyn Future<Output = u8> + 'a>> {
            Box::pin(async move { let (r#a, mut b) = { let __arg1 = __arg1; __arg1 }; a })
        }",
    ];
    let attributes = [Attribute::Cached, Attribute::MemCached];
    for arguments in arguments {
        let arguments: TokenStream = arguments.parse().unwrap();
        for item in items {
            let item: TokenStream = item.parse().unwrap();
            for arguments in mutations(&arguments) {
                let _ = expand(attributes[1], arguments, item.clone());
            }
            for item in mutations(&item) {
                let _ = expand(attributes[0], arguments.clone(), item.clone());
                let _ = expand(attributes[0], quote!(ttl = 1), item.clone());
                let _ = expand(attributes[0], quote!(ttl = 1, handle = r#entry), item.clone());
                let _ = expand(
                    attributes[0],
                    quote!(ttl = 1, skip(a), stale = 1, spawn = s, own(self, a, b)),
                    item.clone(),
                );
                let _ = expand(attributes[0], quote!(ttl = 1, key = |a, b, c, d, e| b), item);
            }
        }
    }
}

#[test]
fn raw_names_expand_in_every_position() {
    let names = ["plain", "r#match", "r#type", "_under", "Upper", "r#async", "é"];
    for name in names {
        for item in [
            format!("fn {name}({name}: u8) -> u8 {{ {name} }}"),
            format!("async fn {name}<{name}>({name}: {name}) -> u8 {{ 1 }}"),
            format!("fn {name}<'a, const {name}: usize>(({name}, _): (&'a u8, u8)) -> u8 {{ 1 }}"),
            format!("fn call(Both {{ {name}, .. }}: Both) -> u8 {{ {name} }}"),
            format!("fn call(Both {{ mut {name}, .. }}: Both) -> u8 {{ {name} }}"),
            format!("fn call({name} @ (ref a, ref b): (u8, u8)) -> u8 {{ 1 }}"),
            format!("fn {name}(&self, {name}: u8) -> u8 {{ {name} }}"),
        ] {
            let item: TokenStream = item.parse().unwrap();
            for arguments in [
                format!("ttl = 1, tags({name})"),
                format!("ttl = 1, key = {name}, handle = {name}_entry"),
                format!("ttl = 1, include({name}), handle = r#loop"),
                format!("ttl = 1, cache = {name}.cache, handle = Self::r#loop"),
                format!("ttl = 1, serializer = {name}, prefix = {name}"),
                format!("ttl = 1, max_entries = 9, handle = {name}_entry"),
            ] {
                // `r#match_entry` is a single identifier.
                let arguments: TokenStream = arguments.parse().unwrap();
                let expanded = expand(Attribute::Cached, arguments.clone(), item.clone());
                let expanded = expanded.to_string();
                assert!(!expanded.contains("compile_error"), "{arguments} on {item}: {expanded}");
                // The expansion is one function, or two with a handle.
                syn::parse_str::<syn::File>(&format!("impl X {{ {expanded} }}"))
                    .unwrap_or_else(|error| panic!("{arguments} on {item}: {error}: {expanded}"));
            }
        }
    }
}
