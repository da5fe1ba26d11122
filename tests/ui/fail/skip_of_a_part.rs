use vayu::cached;

macro_rules! names {
    ($name:ident) => {
        $name
    };
}

#[cached(ttl = 60, skip(first))]
fn of_a_whole_in_the_key(whole @ (first, _): (u8, u8)) -> u8 {
    whole.1 + first
}

#[cached(ttl = 60, skip(first))]
fn of_what_a_macro_binds((first, names!(second)): (u8, u8)) -> u8 {
    first + second
}

struct Database;

#[cached(ttl = 60, skip(second))]
fn of_what_is_not_the_matter((database, second): (Database, u8)) -> u8 {
    let _ = database;
    second
}

fn main() {}
