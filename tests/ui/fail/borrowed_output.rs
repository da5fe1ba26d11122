use vayu::cached;

use std::borrow::Cow;

#[cached(ttl = 60)]
fn text(text: &str) -> &str {
    text
}

#[cached(ttl = 60)]
fn clever(text: &str) -> Cow<'_, str> {
    text.into()
}

#[cached(ttl = 60)]
fn inner<'a>(text: &'a str) -> Result<Option<&'a str>, ()> {
    Ok(Some(text))
}

fn main() {}
