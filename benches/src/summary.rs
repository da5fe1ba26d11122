//! The index of all comparisons, from the JSON files of the parts.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::units::time;

/// Writes `README.md` in a directory with the files of reports.
pub(crate) fn write(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<_> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    let mut text = HEAD.to_owned();
    for path in paths {
        let part = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let works: Vec<Value> = serde_json::from_str(&fs::read_to_string(&path)?)?;
        works.iter().filter_map(|work| row(part, work)).for_each(|row| text += &row);
    }
    Ok(fs::write(directory.join("README.md"), text)?)
}

const HEAD: &str = "# Benchmarks

Each page has the tables of one part, with the machine that it was measured on, and comes with its numbers as JSON. This
is the index of all comparisons: the median of vayu, and its ratio to the fastest of the others.

A *peer* is a crate that does the same work: it honours a ttl and shares its entries between threads. *Bounded* peers have
a maximum number of entries, as vayu has by default; other peers never evict, and need no work for it. *Of all* includes
crates that do less, and maps without a function around them.

| part | | vayu | of the best bounded peer | of the best peer | of all |
|---|---|--:|--:|--:|--:|
";

fn row(part: &str, work: &Value) -> Option<String> {
    let ratios = work["ratios"].as_array()?;
    let ratio = |of| {
        let found = ratios.iter().find(|ratio| ratio["of"] == of)?;
        Some(format!("{:.2}, {}", found["ratio"].as_f64()?, found["name"].as_str()?))
    };
    let ratios = ["the best bounded peer", "the best peer", "the best of all"];
    let ratios = ratios.map(|of| ratio(of).unwrap_or_default());
    let vayu = work["nanoseconds"].as_array()?.iter().find(|one| one["role"] == "vayu")?;
    Some(format!(
        "| [{part}]({part}.md) | {} | {} | {} |\n",
        work["work"].as_str()?,
        time(vayu["median"].as_f64()?),
        ratios.join(" | ")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn row_has_the_median_and_all_ratios() {
        let work = json!({
            "work": "hit",
            "nanoseconds": [{ "name": "vayu", "role": "vayu", "median": 20.0 }],
            "ratios": [
                { "of": "the best peer", "name": "cached", "ratio": 0.5 },
                { "of": "the best of all", "name": "map", "ratio": 2.0 },
            ],
        });
        assert_eq!(
            row("memory", &work).as_deref(),
            Some("| [memory](memory.md) | hit | 20.0 ns |  | 0.50, cached | 2.00, map |\n")
        );
        assert_eq!(row("ratio", &json!({ "calls": "zipf" })), None);
    }
}
