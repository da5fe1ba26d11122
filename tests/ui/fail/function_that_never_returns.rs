use vayu::cached;

#[cached(ttl = 60)]
fn call() -> ! {
    panic!()
}

fn main() {}
