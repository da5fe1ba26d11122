use vayu::cached;

#[cached(ttl = "1m")]
fn log(line: String) {
    println!("{line}");
}

fn main() {}
