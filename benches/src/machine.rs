//! The machine and the build, described for reports.

use std::{fs, thread};

/// Describes the processor and the build.
pub(crate) fn describe() -> String {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let optimized = if cfg!(debug_assertions) { ", without optimizations" } else { "" };
    format!(
        "Measured on {processors} processors ({}), built by {}{optimized}.",
        processor(&info),
        env!("RUSTC_VERSION")
    )
}

/// Returns vendor, family, model and name of the first processor of `/proc/cpuinfo`, or "unknown".
fn processor(info: &str) -> String {
    let value = |names: [&str; 2]| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let value = lines.find(|(name, _)| names.contains(&name.trim()));
        value.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    };
    // x86-64, and the same on 64-bit ARM.
    let Some(vendor) = value(["vendor_id", "CPU implementer"]) else { return "unknown".to_owned() };
    let [family, model] = [["cpu family", "CPU architecture"], ["model", "CPU part"]].map(value);
    let numbers = [("family", family), ("model", model)]
        .map(|(name, number)| number.map(|number| format!(" {name} {number}")).unwrap_or_default());
    let name = value(["model name", "Processor"]).map(|name| format!(", {name}"));
    format!("{vendor}{}{}", numbers.concat(), name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_has_a_vendor_a_family_and_a_model() {
        let x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n\
                   model name\t: Intel(R) Xeon(R) Processor\n\nprocessor\t: 1\nmodel\t\t: 1\n";
        assert_eq!(processor(x86), "GenuineIntel family 6 model 143, Intel(R) Xeon(R) Processor");
        let arm =
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(arm), "0x41 family 8 model 0xd0c");
        assert_eq!(processor(""), "unknown");
    }
}
