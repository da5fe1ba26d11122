use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use super::*;

/// Returns the messages for an attribute on a function.
fn messages(arguments: TokenStream, item: &TokenStream) -> Vec<String> {
    messages_by(Attribute::Cached, arguments, item)
}

fn messages_by(attribute: Attribute, arguments: TokenStream, item: &TokenStream) -> Vec<String> {
    let mut diagnostics = Diagnostics::default();
    let arguments = Arguments::parse(attribute, arguments, &mut diagnostics);
    if let Some(function) = function::parse(attribute, item, &mut diagnostics) {
        Model::new(arguments, function, &mut diagnostics);
    }
    diagnostics.messages()
}

fn function() -> TokenStream {
    quote! { fn call(a: u8, b: &str) -> u8 { a } }
}

#[test]
fn valid_attributes_have_no_errors() {
    for arguments in [
        quote!(ttl = "1h 30m"),
        quote!(ttl = 30,),
        quote!(ttl = 0.5, cache = self.cache, prefix = "p", log = false),
        quote!(ttl = Duration::MAX, key = "k", version = 2, crate = ::renamed),
        quote!(ttl = |value: &u8| minutes(value), key = |a, _| format!("{a}"), version = "2"),
        quote!(ttl = ttl(a), key = format!("{a}"), include(b, a + 1), serializer = Json),
        quote!(ttl = 1, skip(a), cache_if = Option::is_some),
        quote!(ttl = 18446744073709551615),
        quote!(ttl = 1, max_entries = 1_000),
        quote!(expires_at = midnight(a), stale = 1, jitter = "10%"),
        quote!(expires_at = |value: &u8| at(value), cache_if = Some),
        quote!(ttl = 1, refresh_if = a > 3, bypass_if = b.is_empty()),
        quote!(ttl = 1, max_entries = limits::MAX, handle = entry),
        quote!(ttl = 1, max_weight = 64 << 20, weigh = |value: &u8| 1),
        quote!(ttl = 1, weigh = weigh, max_weight = MAX),
    ] {
        assert_eq!(messages(arguments.clone(), &function()), [""; 0], "{arguments}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let item = quote! { const extern "C" fn call(a: &mut u8) -> &u8 { a } };
    let found = messages(quote!(ttl = "soon", colour = "red", log = 5, skip(c), skip(a)), &item);
    assert_eq!(found.len(), 8, "{found:#?}");
}

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

/// Like `messages`, parsed from strings: `quote!` rejects literals with unknown suffixes.
fn messages_of(arguments: &str, item: &str) -> Vec<String> {
    messages(arguments.parse().unwrap(), &item.parse().unwrap())
}

#[test]
fn literal_with_a_suffix_is_an_error() {
    for (arguments, expected) in [
        ("ttl = 5m", "`5m` is not a number; write `ttl = \"5m\"`"),
        ("ttl = 0.5h", "`0.5h` is not a number; write `ttl = \"0.5h\"`"),
        ("ttl = 5M", "`5M` is not a number; write `ttl = \"5m\"` or `ttl = \"5months\"`"),
        ("ttl = 5x", "`5x` is not a number; write `ttl = \"30s\"`"),
        ("ttl = 5_u64", "`5_u64` is not a number; write `ttl = 5`"),
        ("ttl = 5f32", "`5f32` is not a number; write `ttl = 5`"),
        ("ttl = \"5\"m", "`\"5\"m` is not a string; write `ttl = \"5\"`"),
        ("ttl = 1, stale = 2h", "`2h` is not a number; write `stale = \"2h\"`"),
        ("ttl = 1, stale = \"2h\"x", "`\"2h\"x` is not a string; write `stale = \"2h\"`"),
        ("ttl = 1, version = 2b", "`2b` is not a number; write `version = \"2b\"`"),
        ("ttl = 1, version = 2u8", "`2u8` is not a number; write `version = 2`"),
        ("ttl = 1, version = \"2\"u8", "`\"2\"u8` is not a string; write `version = \"2\"`"),
        ("ttl = 1, jitter = 10percent", "is not a number; write `jitter = \"10%\"`"),
        ("ttl = 1, jitter = \"10%\"x", "is not a string; write `jitter = \"10%\"`"),
        ("ttl = 1, jitter = \"10.55%\"", "`jitter` is a part of the ttl"),
        ("ttl = 18446744073709551616", "is not a number of seconds (number is too large)"),
        ("ttl = 1e300", "is not a number of seconds (number is too large)"),
        ("ttl = 0.0000000001", "is not a number of seconds (it has more digits than count)"),
        ("ttl = \"99999999999999999999w\"", "is not a time (number is too large)"),
        ("ttl = \"5M\"", "write `ttl = \"5m\"` or `ttl = \"5months\"`"),
        ("ttl = \"5y\"", "write `ttl = \"5years\"`"),
        ("ttl = 1, stale = \"5 Min\"", "write `stale = \"5 min\"`"),
    ] {
        let found = messages_of(arguments, "fn call(a: u8, b: &str) -> u8 { a }");
        assert!(found.len() == 1 && found[0].contains(expected), "{arguments}: {found:#?}");
    }
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
fn types_in_invisible_groups_are_checked() {
    let ty: TokenTree =
        proc_macro2::Group::new(proc_macro2::Delimiter::None, quote!(&mut u8)).into();
    let found = messages(quote!(ttl = 1), &quote! { fn call(a: #ty) -> u8 {} });
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn malformed_argument_is_one_error_that_says_its_form() {
    let names = [
        "ttl",
        "expires_at",
        "stale",
        "idle",
        "spawn",
        "own",
        "patience",
        "jitter",
        "cache",
        "max_entries",
        "max_weight",
        "weigh",
        "prefix",
        "key",
        "skip",
        "include",
        "serializer",
        "log",
        "cache_if",
        "refresh_if",
        "bypass_if",
        "version",
        "tags",
        "label",
        "handle",
        "crate",
    ];
    let forms = [
        "NAME",
        "NAME =",
        "NAME: 5",
        "NAME 5",
        "NAME == 5",
        "NAME => 5",
        "NAME(5 6)",
        "NAME(,)",
        "NAME()",
        "NAME(\"x\" + )",
        "NAME[5]",
        "NAME { 5 }",
        "NAME = 5",
        "NAME = 5.5",
        "NAME = -5",
        "NAME = true",
        "NAME = 'x'",
        "NAME = b\"x\"",
        "NAME = \"\"",
        "NAME = \"x\"",
        "NAME = x y",
        "NAME = +",
        "NAME = ;",
        "NAME = fn",
        "NAME = self",
        "NAME = |",
        "NAME = |_, _, _| ..",
        "NAME = a..b =",
        "NAME = a.b::<",
        "NAME::x",
        "NAME!",
        "NAME.x",
        "r#NAME = 5",
        "\"NAME\" = 5",
    ];
    let function = "async fn call(n: u8) -> u8 { n }";
    for name in names {
        for form in forms {
            let others = match name {
                "ttl" | "expires_at" => "stale = 1",
                "stale" => "ttl = 1, idle = 1",
                _ => "ttl = 1, stale = 1",
            };
            let arguments = format!("{}, {others}", form.replace("NAME", name));
            let Ok(tokens) = arguments.parse::<TokenStream>() else { continue };
            let found = messages(tokens, &function.parse().unwrap());
            assert!(found.len() <= 1, "{arguments}: {found:#?}");
            for message in &found {
                let is_of_parser = ["expected", "unexpected", "cannot parse"]
                    .iter()
                    .any(|start| message.starts_with(start) || message.contains(", expected"));
                assert!(!is_of_parser && message.contains('`'), "{arguments}: {message}");
            }
        }
        let found = messages_of(name, function);
        assert!(found.len() == 1 && found[0].contains(&format!("`{name}")), "{name}: {found:?}");
    }
}

#[test]
fn unknown_argument_is_the_only_error() {
    for arguments in [
        "ttl_secs = 60",
        "tll = 60",
        "unbound",
        "size = 5",
        "Capacity: 123, TimeToLive: 5",
        "key_fn = by_id",
        "ignore(self)",
        "\"5m\"",
        "5",
        "PAGES",
    ] {
        for item in ["fn call(&self) -> u8 { 1 }", "fn call(a: &mut u8) -> u8 { 1 }"] {
            let found = messages_of(arguments, item);
            let expected = arguments.split(", ").count();
            assert_eq!(found.len(), expected, "{arguments} on {item}: {found:#?}");
        }
    }
    for (arguments, expected) in [
        ("ttl_secs = 60", "write `ttl = 60`"),
        ("ttl_millis = 500", "write `ttl = \"500ms\"`"),
        ("ttl_minutes = 5", "write `ttl = \"5m\"`"),
        ("time = 60 * 5", "write `ttl = 60`"),
        ("timeout = \"1h\"", "write `ttl = \"1h\"`"),
        ("expire = 60u64", "write `ttl = \"5m\"`"),
        ("stales = 5", "write `stale = \"1h\"`"),
        ("SIZE = 5", "`max_entries = 1_000`"),
        ("r#type = \"A\"", "`cache = PAGES`"),
        ("colour = 5", "the arguments are `ttl`"),
    ] {
        let found = messages_of(arguments, "fn call(a: u8) -> u8 { a }");
        assert!(found.len() == 1 && found[0].contains(expected), "{arguments}: {found:#?}");
    }
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
fn handle_and_function_share_one_static() {
    let item = quote! { #[cfg(unix)] #[inline] fn r#match<T>(&self, a: T) -> u8 { 1 } };
    let arguments = quote!(ttl = 1, max_entries = 5, handle = entry);
    let expanded = expand(Attribute::Cached, arguments, item).to_string();
    assert_eq!(expanded.matches("static VAYU_CACHE").count(), 1, "{expanded}");
    assert_eq!(expanded.matches("Self :: vayu_cache_of_match ()").count(), 2, "{expanded}");
    assert_eq!(expanded.matches("cfg (unix)").count(), 3, "{expanded}");
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
fn names_of_the_user_are_not_words() {
    for name in
        ["FOREVER", "MAX", "max", "none", "always", "forever", "never", "inf", "NONE", "Endless"]
    {
        for arguments in [format!("ttl = {name}"), format!("ttl = 1, stale = {name}")] {
            let item = format!("fn call({name}: Duration, n: u8) -> u8 {{ n }}");
            assert_eq!(messages_of(&arguments, &item), [""; 0], "{arguments}");
            assert_eq!(
                messages_of(&arguments, "fn call(n: u8) -> u8 { n }"),
                [""; 0],
                "{arguments}"
            );
        }
        let written = format!("ttl = \"{name}\"");
        let found = messages_of(&written, "fn call(n: u8) -> u8 { n }");
        assert!(found.len() == 1 && found[0].contains("Duration::MAX"), "{written}: {found:?}");
    }
    for arguments in ["ttl = None", "ttl = 1, stale = None"] {
        let found = messages_of(arguments, "fn call(n: u8) -> u8 { n }");
        assert!(found.len() == 1 && found[0].contains("Duration::MAX"), "{arguments}: {found:?}");
    }
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

#[test]
fn expression_in_a_string_is_an_error_that_says_to_format_it() {
    let item = "fn call(tenant: Tenant, n: f64) -> u8 { 1 }";
    for (arguments, expected) in [
        ("tags(\"x:{tenant.id}\")", Some("write `tags(format!(\"x:{}\", tenant.id))`")),
        (
            "tags(\"a\", \"{{{n}:{tenant.id:>3}\")",
            Some("write `tags(format!(\"{{{n}:{:>3}\", tenant.id))`"),
        ),
        ("label = \"{tenant.id()}{n}\"", Some("write `label = format!(\"{}{n}\", tenant.id())`")),
        ("tags(\"{{tenant.id}}\", \"{n:.2}\", \"{n:.*}\", \"a.b\", \"{\", \"}\", \"{}\")", None),
    ] {
        let found = messages_of(&format!("ttl = 1, {arguments}"), item);
        match expected {
            None => assert_eq!(found, [""; 0], "{arguments}"),
            Some(expected) => {
                assert!(found.len() == 1 && found[0].contains(expected), "{arguments}: {found:?}");
            }
        }
    }
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
fn single_flight_takes_what_is_about_the_key_alone() {
    let messages = |arguments: &str, item: &str| {
        let item = item.parse().unwrap();
        messages_by(Attribute::SingleFlight, arguments.parse().unwrap(), &item)
    };
    for arguments in ["", "prefix = \"p\", skip(b), include(b.len()), log = false, crate = vayu"] {
        let found = messages(arguments, "fn call(a: u8, b: &str) { body() }");
        assert_eq!(found, [""; 0], "{arguments}");
    }
    for (name, form) in names::FORMS {
        let found = messages(form, "fn call(a: u8, id: u8, client: u8, name: u8) {}");
        let is_taken = ["prefix", "key", "skip", "include", "log", "crate"].contains(&name);
        let refused = format!("so it does not take `{name}`");
        assert_eq!(found.iter().any(|message| message.contains(&refused)), !is_taken, "{found:?}");
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

#[test]
fn every_argument_but_crate_has_documentation_for_editors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vayu/src/attribute/arguments.rs");
    let documented = std::fs::read_to_string(path).unwrap();
    let is_documented = |name: &str| documented.lines().any(|line| line.trim() == name);
    for (name, _) in names::FORMS {
        assert_eq!(is_documented(name), name != "crate", "{name}");
    }
}
