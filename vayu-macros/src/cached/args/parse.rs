//! The list of arguments: their names, and the commas between them.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, Lit, Result, Token};

use crate::cached::args::written::Written;
use crate::cached::args::{Arguments, Keyword, Time, Ttl, names};
use crate::cached::attribute::Attribute;
use crate::diagnostics::Diagnostics;
use crate::duration;

/// The example of an argument, for messages about none in particular.
const TTL_FORM: &str = "ttl = \"5m\"";

impl Arguments {
    pub(crate) fn parse(
        attribute: Attribute,
        tokens: TokenStream,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut arguments =
            Self { attribute, is_complete: true, text: tokens.to_string(), ..Self::default() };
        if attribute == Attribute::SingleFlight {
            // The output is shared however long the computation took.
            arguments.ttl = Some(Ttl::Fixed(Time::Fixed(Duration::MAX)));
        }
        let mut seen: Vec<&Keyword> = Vec::new();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                let parsed = arguments.parse_one(input, &mut seen);
                if let Err(error) = parsed.and_then(|()| comma(input, seen.last().copied())) {
                    arguments.is_complete = false;
                    diagnostics.push(error);
                    skip_argument(input)?;
                }
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            arguments.is_complete = false;
            diagnostics.push(error);
        }
        if arguments.is_complete && arguments.ttl.is_none() {
            let message = format!(
                "`ttl` is missing: say how long a result is cached; write \
                 `#[{}(ttl = \"5m\")]`",
                attribute.name()
            );
            diagnostics.push(Error::new(Span::call_site(), message));
        }
        arguments
    }

    fn parse_one(&mut self, input: ParseStream<'_>, seen: &mut Vec<&Keyword>) -> Result<()> {
        let name = name(input)?;
        let text = name.to_string();
        self.names.push(name.clone());
        let Some(keyword) = Keyword::find(&text) else {
            let is_alone = input.is_empty() || input.peek(Token![,]);
            let message = if is_alone && text.len() > 1 && text == text.to_uppercase() {
                format!("each argument has a name; write `cache = {text}`")
            } else {
                names::unknown(&text, literal_after(input).as_ref())
            };
            return Err(Error::new(name.span(), message));
        };
        if seen.iter().any(|seen| seen.name == text) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice; remove one")));
        }
        seen.push(keyword);
        if let Some(message) = names::refused(self.attribute, keyword) {
            return Err(Error::new(name.span(), message));
        }
        (keyword.parse)(self, &Written { name, form: keyword.form, rest: input })
    }
}

/// Parses the name of an argument.
fn name(input: ParseStream<'_>) -> Result<Ident> {
    let is_name = |input: ParseStream<'_>| {
        let is_path = input.peek2(Token![::]) || input.peek2(Token![!]) || input.peek2(Token![.]);
        input.peek(Ident::peek_any) && !is_path
    };
    if is_name(input) {
        return input.call(Ident::parse_any);
    }
    let example = match input.fork().parse::<Lit>() {
        Ok(Lit::Str(text)) if duration::parse(&text.value()).is_ok() => {
            format!("ttl = \"{}\"", text.value())
        }
        Ok(Lit::Int(number)) if number.suffix().is_empty() => format!("ttl = {number}"),
        _ => TTL_FORM.to_owned(),
    };
    let first = input.fork().parse::<TokenTree>()?;
    Err(Error::new_spanned(first, format!("each argument has a name; write `{example}`")))
}

/// Returns the literal of `= literal`.
fn literal_after(input: ParseStream<'_>) -> Option<Lit> {
    let ahead = input.fork();
    ahead.parse::<Token![=]>().ok()?;
    ahead.parse().ok()
}

/// Parses the comma between two arguments. `last` is the one before.
fn comma(input: ParseStream<'_>, last: Option<&Keyword>) -> Result<()> {
    if input.is_empty() || input.parse::<Token![,]>().is_ok() {
        return Ok(());
    }
    let next = input.fork().parse::<TokenTree>()?;
    let message = match &next {
        TokenTree::Ident(name) if Keyword::find(&name.to_string()).is_some() => {
            format!("write a comma before `{name}`")
        }
        _ => {
            let form = last.map_or(TTL_FORM, |keyword| keyword.form);
            format!("an argument ends with a comma; write `{form}`")
        }
    };
    Err(Error::new_spanned(next, message))
}

/// Skips the rest of an argument that failed to parse, up to one that looks like an argument again.
fn skip_argument(input: ParseStream<'_>) -> Result<()> {
    while !input.is_empty() {
        let is_comma = input.peek(Token![,]);
        input.parse::<TokenTree>()?;
        if is_comma && is_argument(input) {
            break;
        }
    }
    Ok(())
}

fn is_argument(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let is_name = !ahead.peek(Token![_]) && ahead.call(Ident::parse_any).is_ok();
    is_name
        && (ahead.is_empty()
            || ahead.peek(Token![=])
            || ahead.peek(Token![,])
            || ahead.peek(Token![:])
            || ahead.peek(syn::token::Paren))
}
