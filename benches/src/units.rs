//! Durations as strings.

/// Formats nanoseconds with a suitable unit.
pub(crate) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.1} ns"),
        1e3..1e6 => format!("{:.2} µs", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_has_a_suitable_unit() {
        assert_eq!([12.34, 5678.0, 9e6].map(time), ["12.3 ns", "5.68 µs", "9.00 ms"]);
    }
}
