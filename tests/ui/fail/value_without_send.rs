use std::rc::Rc;

use vayu::cached;

#[cached(ttl = 60)]
fn call(n: u64) -> Rc<str> {
    n.to_string().into()
}

fn main() {}
