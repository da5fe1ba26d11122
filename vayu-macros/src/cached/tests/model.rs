//! The arguments, checked against the function.

use quote::quote;

use super::{messages, messages_of};
use crate::cached::Attribute;
use crate::cached::args::Arguments;
use crate::diagnostics::Diagnostics;

#[test]
fn all_errors_are_reported_at_once() {
    let item = quote! { const extern "C" fn call(a: &mut u8) -> &u8 { a } };
    let found = messages(quote!(ttl = "soon", colour = "red", log = 5, skip(c), skip(a)), &item);
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn skipped_part_of_an_argument_is_an_error_or_keeps_the_other_parts() {
    let skip = |names: &str, argument: &str| {
        messages_of(
            &format!("ttl = 1, skip({names})"),
            &format!("fn call({argument}, n: u8) -> u8 {{}}"),
        )
    };
    for (names, argument) in [
        ("a", "(a, b): (A, B)"),
        ("a, b", "(a, b): (A, B)"),
        ("a", "Both { a, b }: Both"),
        ("one", "Both { a: one, .. }: Both"),
        ("a", "(Ok(a) | Err(a)): Result<A, A>"),
        ("whole, a", "whole @ (a, b): (A, B)"),
        ("whole", "whole @ (a, b): (A, B)"),
        ("r#type", "(r#type, b): (A, B)"),
    ] {
        assert_eq!(skip(names, argument), [""; 0], "{names} of {argument}");
    }
    for (names, argument, expected) in [
        ("a", "whole @ (a, b): (A, B)", "`a` is a part of `whole`"),
        ("a, b", "whole @ (a, b): (A, B)", "`a` is a part of `whole`"),
        ("b", "(names!(a), b): (A, B)", "names that only a macro knows"),
    ] {
        let found = skip(names, argument);
        assert!(
            !found.is_empty() && found[0].contains(expected),
            "{names} of {argument}: {found:?}"
        );
    }
}

#[test]
fn every_form_of_a_receiver_is_checked() {
    for receiver in [
        "&mut self",
        "&'a mut self",
        "self: &mut Self",
        "self: &'a mut Self",
        "mut self: &mut Self",
        "self: Pin<&mut Self>",
        "self: core::pin::Pin<&'a mut Self>",
        "self: &Pin<Box<&mut Self>>",
    ] {
        let item = format!("fn call<'a>({receiver}, n: u8) -> u8 {{}}");
        for arguments in ["ttl = 1", "ttl = 1, cache = self.cache", "ttl = 1, include(self.id)"] {
            let found = messages_of(arguments, &item);
            assert!(found.len() == 1 && found[0].contains("`&mut self`"), "{receiver}: {found:?}");
        }
        assert_eq!(messages_of("ttl = 1, key = \"k\"", &item), [""; 0], "{receiver}");
        assert_eq!(messages_of("ttl = 1, skip(self)", &item), [""; 0], "{receiver}");
    }
    for receiver in ["&self", "&'a self", "self", "mut self", "self: &Self", "self: Arc<Self>"] {
        for other in ["", ", _: u8", ", (_, _): (u8, u8)"] {
            let item = format!("fn call<'a>({receiver}{other}) -> u8 {{}}");
            let found = messages_of("ttl = 1", &item);
            assert!(found.len() == 1 && found[0].contains("skip(self)"), "{item}: {found:?}");
            for explicit in [
                "skip(self)",
                "include(self.id)",
                "cache = self.cache",
                "cache = cache_of(&self)",
                "prefix = format!(\"{}\", self.id)",
                "key = \"k\"",
            ] {
                assert_eq!(
                    messages_of(&format!("ttl = 1, {explicit}"), &item),
                    [""; 0],
                    "{item}: {explicit}"
                );
            }
            let implicit = messages_of("ttl = 1, cache = CACHE, prefix = \"p\"", &item);
            assert_eq!(implicit.len(), 1, "{item}: {implicit:?}");
        }
        let with_more = format!("fn call<'a>({receiver}, n: u8) -> u8 {{}}");
        assert_eq!(messages_of("ttl = 1", &with_more), [""; 0]);
        assert_eq!(messages_of("ttl = 1, skip(self)", &with_more), [""; 0]);
        assert_eq!(messages_of("ttl = 1, skip(self, n)", &with_more).len(), 1);
    }
    assert_eq!(messages_of("ttl = 1, skip(self)", "fn call(n: u8) -> u8 {}").len(), 1);
    assert_eq!(messages_of("ttl = 1, skip(self, self)", "fn call(&self, n: u8) -> u8 {}").len(), 1);
}

#[test]
fn limits_that_do_not_fit_together_are_one_error() {
    for (arguments, expected) in [
        ("max_entries = 0", "is an integer of at least 1"),
        ("max_entries = -1", "is an integer of at least 1"),
        ("max_entries = \"many\"", "is an integer of at least 1"),
        ("max_entries = 1.5", "is an integer of at least 1"),
        ("max_entries = 5_u64", "write `max_entries = 5`"),
        ("max_entries = 18446744073709551616", "is an integer of at least 1"),
        ("max_entries = |n| n", "is an integer of at least 1"),
        ("max_entries = a.into()", "it cannot use `a`"),
        ("max_entries = Self::MAX", "it cannot use `Self`"),
        ("max_entries = N", "it cannot use `N`"),
        ("max_entries = size_of::<T>() as u64", "it cannot use `T`"),
        ("max_weight = a.into(), weigh = f", "it cannot use `a`"),
        ("max_entries = 5, cache = PAGES", "remove `cache`"),
        ("max_weight = 5, weigh = f, cache = PAGES", "remove `cache`"),
        ("max_entries = 5, max_weight = 5, weigh = f", "remove one of the two"),
        ("max_entries = 5, weigh = f", "is for `max_weight`"),
        ("weigh = f", "is for `max_weight`"),
        ("max_weight = 5", "write `weigh = |value| ..`"),
        ("max_weight = 5, weigh = 5", "`weigh` does not take a literal"),
        ("max_weight = 5, weigh = |k, v| 1", "takes one parameter"),
    ] {
        let item = "fn call<T, const N: u64>(&self, a: u8, b: T) -> u8 { a }";
        let found = messages_of(&format!("ttl = 1, {arguments}"), item);
        assert!(found.len() == 1 && found[0].contains(expected), "{arguments}: {found:#?}");
    }
    for arguments in ["ttl = 1, max_entries = 5", "ttl = 1, max_weight = 5", "ttl = 1, weigh = f"] {
        let mut diagnostics = Diagnostics::default();
        Arguments::parse(Attribute::MemCached, arguments.parse().unwrap(), &mut diagnostics);
        let found = diagnostics.messages();
        assert!(found.len() == 1 && found[0].contains("write `#[cached("), "{found:?}");
    }
}

#[test]
fn flag_that_asks_for_a_refresh_is_not_in_the_key() {
    let item = "fn call(id: u8, is_forced: bool, (page, all): (u8, bool)) -> u8 { id }";
    for arguments in ["refresh_if = is_forced", "refresh_if = !is_forced || id > 3"] {
        let found = messages_of(&format!("ttl = 1, {arguments}"), item);
        let expected = "write `skip(is_forced)`";
        assert!(found.len() == 1 && found[0].contains(expected), "{arguments}: {found:?}");
    }
    for arguments in [
        "refresh_if = is_forced, skip(is_forced)",
        "refresh_if = is_forced, key = id.to_string()",
        "refresh_if = id > 3",
        "bypass_if = is_forced",
    ] {
        let found = messages_of(&format!("ttl = 1, {arguments}"), item);
        assert_eq!(found, [""; 0], "{arguments}");
    }
}

#[test]
fn key_that_is_not_meant_as_a_string_is_an_error() {
    let item = "fn call(&self, id: u32, names: &[Name], page: Page) -> u8 { 1 }";
    for key in [
        "u32",
        "String",
        "(u32, String)",
        "(u32, [Name])",
        "[Name]",
        "&str",
        "user:{id}",
        "{self.id}",
        "{id:?}",
    ] {
        let found = messages_of(&format!("ttl = 1, key = \"{key}\""), item);
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        let escape = format!("write `key = (\"{key}\")` if");
        assert!(found[0].contains(&escape), "{found:?}");
        let found = messages_of(&format!("ttl = 1, key = (\"{key}\")"), item);
        assert_eq!(found, [""; 0], "{key}");
    }
    for key in [
        "users",
        "all",
        "user 32",
        "{other}",
        "()",
        "Pages",
        "",
        "Page",
        "Option",
        "menu::Option",
        "menu::String",
        "Vec<u8>",
    ] {
        let found = messages_of(&format!("ttl = 1, key = \"{key}\""), item);
        assert_eq!(found, [""; 0], "{key}");
    }
    assert_eq!(messages_of("ttl = 1, key = \"u32\"", "fn call() -> u8 { 1 }"), [""; 0]);
}

#[test]
fn predicate_on_a_result_is_an_error_only_if_its_type_is_written() {
    for (predicate, errors) in [
        ("|reply| reply.is_ok()", 0),
        ("Result::is_ok", 0),
        ("|reply: &Reply| reply.is_ok()", 0),
        ("|reply: &Result<u8, E>| reply.is_ok()", 0),
        ("|reply: &Result<Reply, E>| reply.is_ok()", 1),
        ("|reply: Result<Reply, E>| reply.is_ok()", 1),
    ] {
        let item = "fn call(n: u8) -> Result<Reply, E> { body() }";
        let found = messages_of(&format!("ttl = 1, cache_if = {predicate}"), item);
        assert_eq!(found.len(), errors, "{predicate}: {found:?}");
    }
}
