use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use super::*;

/// What is wrong with an attribute on a function.
fn mistakes(arguments: TokenStream, item: &TokenStream) -> Vec<String> {
    let mut mistakes = Mistakes::default();
    check(Attribute::Cached, arguments, item, &mut mistakes);
    mistakes.messages()
}

fn function() -> TokenStream {
    quote! { fn call(a: u8, b: &str) -> u8 { a } }
}

#[test]
fn right_attributes_have_no_mistakes() {
    for arguments in [
        quote!(ttl = "1h 30m"),
        quote!(ttl = 30,),
        quote!(ttl = 0.5, cache = self.cache, prefix = "p", log = false),
        quote!(ttl = Duration::MAX, key = "k", version = 2, crate = ::renamed),
        quote!(ttl = |value: &u8| minutes(value), key = |a, _| format!("{a}"), version = "2"),
        quote!(ttl = ttl(a), key = format!("{a}"), include(b, a + 1), serializer = Json),
        quote!(ttl = 1, skip(a), cache_if = Option::is_some),
        quote!(ttl = 18446744073709551616),
    ] {
        assert_eq!(mistakes(arguments.clone(), &function()), [""; 0], "{arguments}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let item = quote! { const extern "C" fn call(a: &mut u8) -> &u8 { a } };
    let found = mistakes(quote!(ttl = "soon", colour = "red", log = 5, skip(c), skip(a)), &item);
    assert_eq!(found.len(), 9, "{found:#?}");
}

#[test]
fn mistake_leaves_the_item_as_it_is() {
    let item = quote! { #[inline] pub(crate) async unsafe fn call<T>(a: T) where T: Copy { a; } };
    let expanded = expand(Attribute::Cached, quote!(ttl = 0), item.clone()).to_string();
    assert!(expanded.contains("compile_error"), "{expanded}");
    assert!(expanded.ends_with(&item.to_string()), "{expanded}");
}

#[test]
fn body_is_emitted_once() {
    let item = quote! { #[doc = "d"] pub fn call(a: u8) -> u8 { the_body(a) } };
    let expanded = expand(Attribute::Cached, quote!(ttl = 1), item).to_string();
    assert_eq!(expanded.matches("the_body").count(), 1, "{expanded}");
    assert!(expanded.starts_with("# [doc = \"d\"] pub fn call (a : u8) -> u8 {"), "{expanded}");
}

#[test]
fn future_in_a_box_is_found_under_any_path() {
    for answer in [
        quote!(Pin<Box<dyn Future<Output = Result<u8, E>> + Send + 'a>>),
        quote!(::core::pin::Pin<Box<dyn ::core::future::Future<Output = u8> + 'async_trait>>),
    ] {
        let item = quote! { fn call<'a>(a: &'a str) -> #answer { body() } };
        let expanded = expand(Attribute::Cached, quote!(ttl = 1), item).to_string();
        assert!(expanded.contains("finish_async"), "{expanded}");
    }
}

#[test]
fn cache_is_cloned_where_the_body_may_take_what_it_comes_from() {
    let clones = |item: TokenStream| {
        let arguments = quote!(ttl = 1, cache = self.cache);
        expand(Attribute::Cached, arguments, item).to_string().contains("Clone :: clone")
    };
    assert!(!clones(quote! { fn call(&self) {} }));
    assert!(!clones(quote! { fn call(self: &Self) {} }));
    assert!(clones(quote! { fn call(&mut self) {} }));
    assert!(clones(quote! { fn call(self) {} }));
    assert!(clones(quote! { async fn call(self: Arc<Self>) {} }));
}

#[test]
fn types_in_the_groups_of_a_macro_are_seen() {
    let ty: TokenTree =
        proc_macro2::Group::new(proc_macro2::Delimiter::None, quote!(&mut u8)).into();
    let found = mistakes(quote!(ttl = 1), &quote! { fn call(a: #ty) {} });
    assert_eq!(found.len(), 1, "{found:?}");
}

/// Every token stream that one deletion, one doubling or one swap makes of another.
fn neighbours(tokens: &TokenStream) -> Vec<TokenStream> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut neighbours = Vec::new();
    for index in 0..tokens.len() {
        let mut deleted = tokens.clone();
        deleted.remove(index);
        let mut doubled = tokens.clone();
        doubled.insert(index, tokens[index].clone());
        let mut swapped = tokens.clone();
        swapped.swap(index, (index + 1) % tokens.len());
        neighbours.extend([deleted, doubled, swapped]);
        if let TokenTree::Group(group) = &tokens[index] {
            for inner in self::neighbours(&group.stream()) {
                let mut changed = tokens.clone();
                changed[index] = proc_macro2::Group::new(group.delimiter(), inner).into();
                neighbours.push(changed);
            }
        }
    }
    neighbours.into_iter().map(|tokens| tokens.into_iter().collect()).collect()
}

#[test]
fn nothing_panics_whatever_is_written() {
    let arguments = quote!(
        ttl = |v: &u8| f(v),
        cache = self.cache,
        prefix = "p",
        key = |a, b| a,
        include(a, b + 1),
        skip(a),
        serializer = Json,
        log = false,
        cache_if = Some,
        version = 2,
        crate = ::a::b
    );
    let item = quote! {
        #[doc = "d"] pub(crate) async unsafe fn call<'a, T: A, const N: usize>(
            self: Arc<Self>, mut a: &'a [T], (b, [c, ..]): (u8, [u8; N]), _: impl B,
        ) -> Result<Option<T>, E<'a>> where T: C { let x = a?; return Ok(x); }
    };
    for arguments in neighbours(&arguments) {
        let _ = expand(Attribute::MemCached, arguments, item.clone());
    }
    for item in neighbours(&item) {
        let _ = expand(Attribute::Cached, arguments.clone(), item.clone());
        let _ = expand(Attribute::Cached, quote!(ttl = 1), item);
    }
}
