//! The arguments, as they are written.

use proc_macro2::TokenStream;
use quote::quote;

use super::{function, messages, messages_by, messages_of};
use crate::cached::{Attribute, args, editor};

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
fn expression_in_a_string_is_an_error_that_says_to_format_it() {
    let item = "fn call(tenant: Tenant, n: f64) -> u8 { 1 }";
    for (arguments, expected) in [
        ("tags(\"x:{tenant.id}\")", Some("write `tags(format!(\"x:{}\", tenant.id))`")),
        (
            "tags(\"a\", \"{{{n}:{tenant.id:>3}\")",
            Some("write `tags(format!(\"{{{n}:{:>3}\", tenant.id))`"),
        ),
        ("label = \"{tenant.id()}{n}\"", Some("write `label = format!(\"{}{n}\", tenant.id())`")),
        ("tags(\"{{tenant.id}}\", \"{n:.2}\", \"{n:.*}\", \"a.b\", \"{\", \"}\")", None),
        ("tags(\"c:{}\", n)", Some("or `tags(format!(\"c:{}\", ..))`")),
        (
            "label = \"{0:>3}\"",
            Some("`{0}` in this string stands for no argument; write the name of one"),
        ),
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
fn single_flight_takes_what_is_about_the_key_alone() {
    let messages = |arguments: &str, item: &str| {
        let item = item.parse().unwrap();
        messages_by(Attribute::SingleFlight, arguments.parse().unwrap(), &item)
    };
    for arguments in ["", "prefix = \"p\", skip(b), include(b.len()), log = false, crate = vayu"] {
        let found = messages(arguments, "fn call(a: u8, b: &str) { body() }");
        assert_eq!(found, [""; 0], "{arguments}");
    }
    for args::Keyword { name, form, .. } in args::KEYWORDS {
        let found = messages(form, "fn call(a: u8, id: u8, client: u8, name: u8) {}");
        let is_taken = ["prefix", "key", "skip", "include", "log", "crate"].contains(name);
        let refused = format!("so it does not take `{name}`");
        assert_eq!(found.iter().any(|message| message.contains(&refused)), !is_taken, "{found:?}");
    }
}

#[test]
fn every_argument_but_crate_has_documentation_for_editors() {
    for keyword in args::KEYWORDS {
        let name = keyword.name;
        assert_eq!(keyword.documentation.is_empty(), name == "crate", "{name}");
    }
    let modules = editor::modules().to_string();
    assert!(modules.contains("share off each ttl at random.\"] # [doc = \"\"]"), "{modules}");
    assert!(modules.contains("pub mod jitter { }"), "{modules}");
}
