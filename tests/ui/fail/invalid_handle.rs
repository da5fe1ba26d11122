use vayu::cached;

#[cached(ttl = 60, handle = other::name)]
fn path(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, handle = "name")]
fn text(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, handle = itself)]
fn itself(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, handle = unnamed_entry)]
fn unnamed(n: impl serde::Serialize) -> u8 {
    1
}

#[cached(ttl = 60, handle = conditional_entry)]
fn conditional(#[cfg(unix)] n: u8) -> u8 {
    1
}

fn main() {}
