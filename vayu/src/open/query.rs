//! The options in the query of a URL.

use std::time::Duration;

use vayu_core::{Result, byte_size, duration};

use super::wrong;

/// A URL split into its path and its options, each of which is read once.
pub(super) struct Query<'a> {
    path: &'a str,
    left: Vec<(&'a str, &'a str)>,
}

impl<'a> Query<'a> {
    pub(super) fn parse(url: &'a str) -> Self {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
        let left = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        Self { path, left: left.collect() }
    }

    /// Returns the URL without its query.
    pub(super) fn path(&self) -> &'a str {
        self.path
    }

    /// Removes an option.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<&'a str>> {
        let mut taken = None;
        let mut is_twice = false;
        self.left.retain(|&(other, value)| {
            if other == name {
                is_twice |= taken.replace(value).is_some();
            }
            other != name
        });
        if is_twice {
            return Err(wrong(format!("duplicate option `{name}`")));
        }
        Ok(taken)
    }

    /// Removes an option that is a number, with an optional binary unit of bytes.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        byte_size::parse(text)
            .ok_or_else(|| {
                wrong(format!("option `{name}` must be a number like `1000` or `64MiB`"))
            })
            .map(Some)
    }

    /// Removes an option that is a duration with its unit.
    pub(super) fn time(&mut self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let wrong = |_| {
            let units = duration::UNIT_NAMES;
            wrong(format!(
                "option `{name}` must be a duration like `500ms` or `10s`; the units are {units}"
            ))
        };
        duration::parse(text).map(Some).map_err(wrong)
    }

    /// Removes an option that is one of these words.
    pub(super) fn word(
        &mut self,
        name: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let known = words.iter().find(|&&word| word == text).copied();
        known
            .ok_or_else(|| {
                wrong(format!("option `{name}` must be one of `{}`", words.join("`, `")))
            })
            .map(Some)
    }

    /// Returns an error if an option is left: it is unknown.
    pub(super) fn finish(self, scheme: &str, names: &str) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => {
                // It may be a part of a password in a URL of another kind.
                let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                let shown = if is_plain { format!(" `{name}`") } else { String::new() };
                Err(wrong(format!(
                    "unknown option{shown} in a {scheme} URL; the options are {names}"
                )))
            }
        }
    }

    /// Returns the URL without the options that were removed.
    #[cfg(any(feature = "object", feature = "redis"))]
    pub(super) fn remaining_url(&self) -> String {
        let left: Vec<_> =
            self.left.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if left.is_empty() {
            self.path.to_owned()
        } else {
            format!("{}?{}", self.path, left.join("&"))
        }
    }
}
