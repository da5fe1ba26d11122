use vayu::{invalidates, mem_cache};

#[invalidates(cache = mem_cache(), tags("user:{m}"))]
fn rename(_n: u32) {}

fn main() {}
