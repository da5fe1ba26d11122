//! Numbers with units of bytes, as URLs contain them.

/// Returns the number in a string like `1000`, `64KiB` or `1GiB`.
pub fn parse(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, bits)));
    let (digits, bits) = unit.unwrap_or((text, &0));
    let digits = Some(digits).filter(|digits| !digits.starts_with('+'))?;
    digits.parse::<u64>().ok()?.checked_mul(1 << bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_have_units_of_bytes() {
        assert_eq!(parse("1000"), Some(1000));
        assert_eq!(parse("64KiB"), Some(65_536));
        assert_eq!(parse("1GiB"), Some(1 << 30));
        for wrong in ["", "KiB", "-1", "1.5", "1GB", "20000000TiB", "1 KiB", "+1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
