use std::rc::Rc;
use std::sync::Arc;

use vayu::cached;

trait Repository {
    fn load(&self, id: u32) -> u32;
}

#[cached(ttl = "1m")]
fn by_arc(repository: Arc<dyn Repository>, id: u32) -> u32 {
    repository.load(id)
}

#[cached(ttl = "1m")]
fn by_box(repository: Box<dyn Repository>, id: u32) -> u32 {
    repository.load(id)
}

#[cached(ttl = "1m")]
fn by_rc(repository: Rc<dyn Repository>, id: u32) -> u32 {
    repository.load(id)
}

#[cached(ttl = "1m")]
fn by_reference(repository: &dyn Repository, id: u32) -> u32 {
    repository.load(id)
}

fn main() {}
