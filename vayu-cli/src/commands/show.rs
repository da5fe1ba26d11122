//! `vayu-cache show`: one entry and its value.

use std::io::{Write, stdout};

use vayu_core::__internal::with_causes;

use super::Outcome;
use crate::Verdict;
use crate::args::Show;
use crate::find::{Accept, find_one};
use crate::output::{date, duration, entry_json, escaped, escaped_json, now, serializer, size};
use crate::source::{Entry, Source};
use crate::{value, wrapped};

pub(crate) fn run(arguments: &Show) -> Outcome {
    let target = &arguments.target;
    let source = Source::open(&target.cache)?;
    let Some(entry) =
        find_one(&source, &arguments.entry, Accept::Start, Some(arguments.limit), target.redact)?
    else {
        return Ok(Verdict::Failure);
    };
    // Only a sealed value needs the environment.
    let is_sealed = entry.details.as_ref().is_ok_and(|details| details.serializer().is_sealed());
    let keys =
        if is_sealed && !target.redact { wrapped::keys(arguments, &target.cache)? } else { None };
    let max_bytes = arguments.max_bytes;
    let value = if entry.length <= max_bytes {
        source.value(&entry).map_err(|error| with_causes(&error))
    } else {
        Err(format!("the entry is longer than {max_bytes} bytes; `--max-bytes` sets the limit"))
    };
    let mut out = stdout().lock();
    let details = entry.details.as_ref().ok();
    let unwrapped = |bytes, details| wrapped::unwrap(bytes, details, keys.as_ref(), max_bytes);
    if target.json {
        let mut shown = entry_json(&entry, now(), target.redact);
        if let (Ok(bytes), Some(details), false) = (&value, details, target.redact) {
            match unwrapped(bytes, details) {
                Ok((serializer, bytes)) => value::add_to(&mut shown, serializer, &bytes),
                Err(reason) => shown["value_error"] = reason.into(),
            }
        }
        if let Err(error) = &value {
            shown["error"] = error.as_str().into();
        }
        writeln!(out, "{}", escaped_json(&shown.to_string()))?;
    } else {
        write_lines(&mut out, &entry, target.redact)?;
        match (&value, details) {
            (Ok(_), _) if target.redact => {}
            (Ok(bytes), Some(details)) => {
                let shown = match unwrapped(bytes, details) {
                    Ok((serializer, bytes)) => value::as_text(serializer, &bytes),
                    Err(reason) => reason,
                };
                writeln!(out, "\n{shown}")?;
            }
            (Ok(_), None) => {}
            (Err(error), _) => writeln!(out, "\n{error}")?,
        }
    }
    Ok(if value.is_ok() { Verdict::Success } else { Verdict::Failure })
}

fn write_lines(out: &mut impl Write, entry: &Entry, is_redacted: bool) -> std::io::Result<()> {
    let now = now();
    let shown = entry_json(entry, now, is_redacted);
    let field = |name: &str| shown[name].as_str().unwrap_or("-");
    writeln!(out, "call        {}", field("call"))?;
    writeln!(out, "key         {}", field("key").escape_debug())?;
    writeln!(out, "path        {}", escaped(&entry.path))?;
    writeln!(out, "size        {}", size(entry.length))?;
    writeln!(out, "state       {}", entry.state(now).name())?;
    match &entry.details {
        Ok(details) => {
            writeln!(out, "created     {}", date(details.created()))?;
            writeln!(out, "expires     {}", date(details.expires()))?;
            writeln!(out, "took        {}", duration(details.compute_time()))?;
            writeln!(out, "serializer  {}", serializer(details.serializer()))?;
        }
        Err(error) => writeln!(out, "error       {error}")?,
    }
    Ok(())
}
