use std::rc::Rc;

use vayu::single_flight;

struct NotClone;

#[single_flight]
fn borrowed(n: &str) -> &str {
    n
}

#[single_flight]
fn borrowed_error(n: &str) -> Result<u8, &str> {
    Err(n)
}

#[single_flight]
fn not_clone(n: u8) -> NotClone {
    NotClone
}

#[single_flight]
fn error_is_not_clone(n: u8) -> Result<u8, NotClone> {
    Ok(n)
}

#[single_flight]
fn not_send(n: u8) -> Rc<u8> {
    Rc::new(n)
}

#[single_flight]
fn future(n: u8) -> impl Future<Output = u8> {
    async move { n }
}

fn main() {}
