//! The function under the attribute.

use proc_macro2::TokenTree;
use quote::quote;

use super::{messages, messages_of};
use crate::cached::{Attribute, expand};

#[test]
fn types_in_invisible_groups_are_checked() {
    let ty: TokenTree =
        proc_macro2::Group::new(proc_macro2::Delimiter::None, quote!(&mut u8)).into();
    let found = messages(quote!(ttl = 1), &quote! { fn call(a: #ty) -> u8 {} });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn output_is_judged_by_what_it_borrows() {
    for (output, errors) in [
        ("Arc<dyn for<'a> Fn(&'a str, &str) -> &'a str + Send + Sync>", 0),
        ("Arc<dyn Fn(&str) -> Box<dyn Display + '_> + Send + Sync>", 0),
        ("for<'a> fn(&'a str, &str) -> &'a str", 0),
        ("fn(&str) -> Cow<'_, str>", 0),
        ("Arc<dyn for<'a> Handler<&'a str, Output<'a>>>", 0),
        ("Box<dyn Fn(Box<dyn for<'a> Fn(&'a u8) -> &'a u8>)>", 0),
        ("&'static str", 0),
        ("Result<String, &str>", 0),
        ("Arc<dyn Fn(&'x str)>", 1),
        ("fn(&'x str) -> u8", 1),
        ("Arc<dyn Handler<'x>>", 1),
        ("&str", 1),
        ("Option<&'x [u8]>", 1),
        ("Cow<'_, str>", 1),
        ("impl Iterator<Item = u8>", 1),
        ("impl Future<Output = u8>", 1),
        ("impl Send + core::future::Future<Output = &str> + 'x", 1),
        ("Box<dyn Future<Output = u8>>", 1),
        ("Pin<Box<impl Future<Output = u8>>>", 1),
        ("BoxFuture<'x, u8>", 1),
        ("BoxFuture<'_, u8>", 1),
        ("futures::future::LocalBoxFuture<'static, u8>", 0),
        ("BoxFuture", 0),
        ("BoxFuture<u8>", 0),
        ("Shared<BoxFuture<'static, u8>>", 0),
        ("Result<u8, impl Error>", 1),
        ("Pin<Box<dyn Future<Output = u8> + Send + 'x>>", 0),
    ] {
        let item = format!("fn call<'x>(text: &'x str) -> {output} {{ body() }}");
        let found = messages_of("ttl = 1", &item);
        assert_eq!(found.len(), errors, "{output}: {found:#?}");
        assert!(
            !output.contains("Future<")
                || found.iter().all(|it| it.contains("write `async fn call")),
            "{found:?}"
        );
    }
    for (output, owned) in [
        ("&str", "`String`"),
        ("&[u8]", "`Vec<u8>`"),
        ("Cow<'_, str>", "`String`"),
        ("&Page", "`Page`"),
        ("&Path", "`PathBuf`"),
    ] {
        let found =
            messages_of("ttl = 1", &format!("fn call(&self, n: u8) -> {output} {{ body() }}"));
        assert!(found.len() == 1 && found[0].contains(&format!("return {owned}")), "{found:?}");
    }
}

#[test]
fn attribute_that_loses_its_meaning_is_an_error() {
    for attribute in ["cached(ttl = 1)", "vayu::mem_cached(ttl = 1)", "track_caller"] {
        let found = messages_of("ttl = 1", &format!("#[{attribute}] fn call(n: u8) -> u8 {{ n }}"));
        assert_eq!(found.len(), 1, "{attribute}: {found:?}");
    }
    for attribute in ["inline", "must_use", "cfg(unix)", "doc = \"cached\"", "deprecated"] {
        let found = messages_of("ttl = 1", &format!("#[{attribute}] fn call(n: u8) -> u8 {{ n }}"));
        assert_eq!(found, [""; 0], "{attribute}");
    }
}

#[test]
fn function_without_a_value_is_an_error_unless_it_says_so() {
    assert_eq!(messages_of("ttl = 1", "fn call(n: u8) {}").len(), 1);
    assert_eq!(messages_of("ttl = 1", "async fn call(n: u8) {}").len(), 1);
    for output in ["()", "Result<(), E>", "Pin<Box<dyn Future<Output = ()>>>"] {
        assert_eq!(
            messages_of("ttl = 1", &format!("fn call(n: u8) -> {output} {{}}")),
            [""; 0],
            "{output}"
        );
    }
    let expanded = expand(
        Attribute::Cached,
        quote!(ttl = 1),
        quote!(
            fn call(n: u8) -> () {}
        ),
    );
    assert!(expanded.to_string().starts_with("fn call (n : u8) {"), "{expanded}");
}
