use vayu::cached;

#[cached(ttl = 60)]
fn call(out: &mut Vec<u8>) -> usize {
    out.len()
}

type Out<'a> = &'a mut Vec<u8>;

#[cached(ttl = 60)]
fn by_alias(out: Out<'_>) -> usize {
    out.len()
}

fn main() {}
