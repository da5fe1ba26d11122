use vayu::cached;

mod web {
    pub struct Path<T>(pub T);
}

#[cached(ttl = "1m")]
async fn user(path: web::Path<i64>) -> i64 {
    path.0
}

#[cached(ttl = "1m")]
fn locked(state: &std::sync::MutexGuard<'_, u8>) -> u8 {
    **state
}

fn main() {}
