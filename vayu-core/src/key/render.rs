//! Rendering of encoded keys as calls: `word_counts("src/main.rs", 3)`.
//!
//! The canonical encoding holds the type of each value and the names of fields and variants, so it is
//! decoded without the types of the program, and written like the output of `{:?}`. A value in two forms
//! is shown in the readable one. The bytes may come from a file that another program has written: any
//! input is accepted, the depth is limited, and what cannot be decoded is shown as `…`.

use std::fmt::{self, Display, Write};

use crate::key::encoder::{
    BOOL, BYTES, CHAR, DEPTH, END, ENTRY, F32, F64, FIELD, I8, I16, I32, I64, I128, MAP,
    NEWTYPE_STRUCT, NEWTYPE_VARIANT, NONE, READABLE, RUN, SEQ, SET, SOME, STR, STRUCT,
    STRUCT_VARIANT, TUPLE, TUPLE_STRUCT, TUPLE_VARIANT, U8, U16, U32, U64, U128, UNIT, UNIT_STRUCT,
    UNIT_VARIANT,
};
use crate::key::kind;
use crate::key::label::cut;
use crate::key::version::DisplayVersion;

/// Returns the call of an encoded key without its version, in up to `max_bytes`.
///
/// A label is shown in brackets: `rates [EUR]`, a string key after a colon: `rates:EUR`, and arguments in
/// parentheses: `rates("EUR", 7)`. Further parts of the key follow a semicolon.
pub(super) fn call(
    prefix: &str,
    version: Option<&str>,
    encoded: &[u8],
    label: Option<&str>,
    max_bytes: usize,
) -> String {
    let mut renderer = Renderer { input: encoded, out: Output::new(max_bytes), depth: 0 };
    renderer.write(Escaped(prefix));
    if let Some(version) = version {
        renderer.write(format_args!("@{}", Escaped(&DisplayVersion(version).to_string())));
    }
    if let Some(label) = label {
        renderer.write(format_args!(" [{}]", Escaped(label)));
    } else if let Some((text, parts)) = kind::split_text(encoded) {
        renderer.write(format_args!(":{}", Escaped(text)));
        renderer.input = parts;
        let start = renderer.out.mark();
        if renderer.further_parts().is_none() {
            renderer.out.reset(start);
            renderer.write("; …");
        }
    } else {
        renderer.write("(");
        let start = renderer.out.mark();
        renderer.input = kind::arguments_of(encoded).unwrap_or_default();
        if renderer.arguments().is_none() {
            renderer.out.reset(start);
            renderer.write("…");
        }
        renderer.write(")");
    }
    renderer.out.finish()
}

/// A string with what a terminal might interpret escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' | '\'' => f.write_char(character),
            _ => write!(f, "{}", character.escape_debug()),
        })
    }
}

/// A string that ends with `…` where it would be longer than its limit.
struct Output {
    text: String,
    max_bytes: usize,
    is_full: bool,
}

impl Output {
    fn new(max_bytes: usize) -> Self {
        Self { text: String::new(), max_bytes, is_full: false }
    }

    fn mark(&self) -> (usize, bool) {
        (self.text.len(), self.is_full)
    }

    /// Removes what was written since the mark.
    fn reset(&mut self, (length, is_full): (usize, bool)) {
        self.text.truncate(length);
        self.is_full = is_full;
    }

    fn finish(mut self) -> String {
        if self.is_full {
            let dots = "…";
            let length = cut(&self.text, self.max_bytes.saturating_sub(dots.len())).len();
            self.text.truncate(length);
            self.text.push_str(dots);
        }
        self.text
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.is_full {
            let shown = cut(text, self.max_bytes - self.text.len());
            self.text.push_str(shown);
            self.is_full = shown.len() < text.len();
        }
        Ok(())
    }
}

/// A decoder of the canonical encoding. Its methods return `None` if the input is not one.
struct Renderer<'a> {
    input: &'a [u8],
    out: Output,
    depth: usize,
}

impl<'a> Renderer<'a> {
    fn write(&mut self, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{value}");
    }

    fn write_debug(&mut self, value: impl fmt::Debug) {
        let _ = write!(self.out, "{value:?}");
    }

    /// Renders a list of arguments, which is a tuple or `()`, or one value that holds them.
    fn arguments(&mut self) -> Option<()> {
        match self.input.first() {
            Some(&UNIT) => {
                self.byte()?;
            }
            Some(&TUPLE) => {
                self.byte()?;
                self.until_end(Self::value)?;
            }
            _ => self.value()?,
        }
        self.further_parts()
    }

    /// Renders the rest of the input, as parts.
    fn further_parts(&mut self) -> Option<()> {
        let mut separator = "; ";
        while !self.input.is_empty() {
            self.write(separator);
            self.value()?;
            separator = ", ";
        }
        Some(())
    }

    /// Renders a value in its readable form, if it has one.
    fn value(&mut self) -> Option<()> {
        let start = self.out.mark();
        self.one_form()?;
        self.readable_form(start)
    }

    /// Replaces what was written since the mark by the readable form, if that follows.
    fn readable_form(&mut self, start: (usize, bool)) -> Option<()> {
        if self.input.first() == Some(&READABLE) {
            self.byte()?;
            self.out.reset(start);
            self.one_form()?;
        }
        Some(())
    }

    fn one_form(&mut self) -> Option<()> {
        // One more than the encoder permits: the list of arguments may be a value itself.
        if self.depth > DEPTH + 1 {
            return None;
        }
        self.depth += 1;
        let tag = self.byte()?;
        let result = self.tagged(tag);
        self.depth -= 1;
        result
    }

    fn tagged(&mut self, tag: u8) -> Option<()> {
        match tag {
            UNIT => self.write("()"),
            NONE => self.write("None"),
            STR => {
                let text = self.text()?;
                self.write_debug(text);
            }
            BYTES => {
                let bytes = self.bytes()?;
                self.write(format_args!("b\"{}\"", bytes.escape_ascii()));
            }
            SOME => {
                self.write("Some");
                self.in_parentheses(Self::value)?;
            }
            UNIT_STRUCT => self.name()?,
            UNIT_VARIANT => self.variant()?,
            NEWTYPE_STRUCT => {
                self.name()?;
                self.in_parentheses(Self::value)?;
            }
            NEWTYPE_VARIANT => {
                self.variant()?;
                self.in_parentheses(Self::value)?;
            }
            TUPLE => self.in_parentheses(|this| {
                if this.until_end(Self::value)? == 1 {
                    this.write(",");
                }
                Some(())
            })?,
            TUPLE_STRUCT => {
                self.name()?;
                self.fields_in_parentheses()?;
            }
            TUPLE_VARIANT => {
                self.variant()?;
                self.fields_in_parentheses()?;
            }
            STRUCT => {
                self.name()?;
                self.fields_in_braces()?;
            }
            STRUCT_VARIANT => {
                self.variant()?;
                self.fields_in_braces()?;
            }
            SEQ => self.sequence()?,
            MAP => {
                self.write("{");
                self.until_end(|this| {
                    this.expect(ENTRY)?;
                    this.value()?;
                    this.write(": ");
                    this.value()
                })?;
                self.write("}");
            }
            SET => {
                self.write("{");
                self.until_end(|this| {
                    this.expect(ENTRY)?;
                    this.value()
                })?;
                self.write("}");
            }
            _ => return self.primitive(tag),
        }
        Some(())
    }

    /// Renders the bytes of a number, a `bool` or a `char`.
    fn primitive(&mut self, tag: u8) -> Option<()> {
        macro_rules! number {
            ($type:ty) => {{
                let value = <$type>::from_le_bytes(self.array()?);
                self.write_debug(value);
            }};
        }
        match tag {
            BOOL => {
                let value = match self.byte()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                self.write(value);
            }
            CHAR => {
                let value = char::from_u32(u32::from_le_bytes(self.array()?))?;
                self.write_debug(value);
            }
            I8 => number!(i8),
            I16 => number!(i16),
            I32 => number!(i32),
            I64 => number!(i64),
            I128 => number!(i128),
            U8 => number!(u8),
            U16 => number!(u16),
            U32 => number!(u32),
            U64 => number!(u64),
            U128 => number!(u128),
            F32 => number!(f32),
            F64 => number!(f64),
            _ => return None,
        }
        Some(())
    }

    /// Renders the elements of a sequence, of which numbers are in runs.
    fn sequence(&mut self) -> Option<()> {
        self.write("[");
        self.until_end(
            |this| if this.input.first()? & RUN != 0 { this.run() } else { this.value() },
        )?;
        self.write("]");
        Some(())
    }

    /// Renders a run. A readable form that follows it is that of its last value.
    fn run(&mut self) -> Option<()> {
        let tag = self.byte()? & !RUN;
        let count = u32::from_le_bytes(self.array()?);
        let mut start = self.out.mark();
        for n in 0..count {
            if n > 0 {
                self.write(", ");
            }
            start = self.out.mark();
            self.primitive(tag)?;
        }
        self.readable_form(start)
    }

    fn fields_in_parentheses(&mut self) -> Option<()> {
        if self.input.first() == Some(&END) {
            return self.expect(END);
        }
        self.in_parentheses(|this| this.until_end(Self::value).map(drop))
    }

    fn fields_in_braces(&mut self) -> Option<()> {
        if self.input.first() == Some(&END) {
            return self.expect(END);
        }
        self.write(" { ");
        self.until_end(|this| {
            this.expect(FIELD)?;
            this.name()?;
            this.write(": ");
            this.value()
        })?;
        self.write(" }");
        Some(())
    }

    fn in_parentheses(&mut self, content: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.write("(");
        content(self)?;
        self.write(")");
        Some(())
    }

    /// Renders items with commas between them, up to the end mark. Returns their number.
    fn until_end(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<usize> {
        let mut count = 0;
        while *self.input.first()? != END {
            if count > 0 {
                self.write(", ");
            }
            item(self)?;
            count += 1;
        }
        self.expect(END)?;
        Some(count)
    }

    /// Renders a name.
    fn name(&mut self) -> Option<()> {
        let name = self.text()?;
        self.write(Escaped(name));
        Some(())
    }

    /// Renders the name of a variant, without that of its type.
    fn variant(&mut self) -> Option<()> {
        self.text()?;
        self.name()
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Takes bytes whose length precedes them, seven bits a byte, lowest first.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let mut length = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                let (bytes, rest) = self.input.split_at_checked(length)?;
                self.input = rest;
                return Some(bytes);
            }
        }
        None
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.input.split_first_chunk()?;
        self.input = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.byte()? == byte).then_some(())
    }
}

#[cfg(test)]
mod tests;
