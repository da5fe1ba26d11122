//! Interned functions.

use std::any::{TypeId, type_name};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::race::OnceBox;

use crate::key::hasher::{IdentityHasher, Seeds};

/// A function of this process, identified by the type of its body. Each function has one, so that two
/// are the same function only if their addresses are equal.
///
/// They are interned in a direct-mapped table, at a place that is known when the call is compiled. A
/// lookup is a load and a comparison. The table is append-only, and without a lock: a child process may
/// be forked at any time.
pub(super) struct FunctionInfo {
    id: TypeId,
    path: fn() -> &'static str,
    number: u32,
    seeds: Seeds,
}

impl FunctionInfo {
    /// Returns the function whose body has the type `F`.
    #[inline(always)]
    pub(super) fn of<F: ?Sized>() -> &'static Self {
        let id = typeid::of::<F>();
        match FUNCTIONS.places[home(id)].get() {
            Some(function) if function.id == id => function,
            _ => FUNCTIONS.get_or_insert_type(typeid::of::<F>, type_name::<F>),
        }
    }

    /// Returns the function with this number, which is in the upper half.
    pub(super) fn of_number(number: u64) -> Option<&'static Self> {
        let mut table = Some(&FUNCTIONS);
        while let Some(current) = table {
            let mut functions = current.places.iter().filter_map(OnceBox::get);
            if let Some(function) = functions.find(|function| function.number() == number) {
                return Some(function);
            }
            table = current.next.get();
        }
        None
    }

    /// Returns the type of the body.
    pub(super) fn id(&self) -> TypeId {
        self.id
    }

    /// Returns the name of the type of the body.
    pub(super) fn path(&self) -> &'static str {
        (self.path)()
    }

    /// Returns a small number in the upper half of a word: that of no other function of this process, and
    /// not zero.
    #[inline(always)]
    pub(super) fn number(&self) -> u64 {
        // The compiler knows that the lower half is zero.
        u64::from(self.number) << 32
    }

    /// Returns the seeds of the hashes of the keys of the function.
    #[inline(always)]
    pub(super) fn seeds(&self) -> &Seeds {
        &self.seeds
    }
}

impl fmt::Debug for FunctionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// The number of places of a table. Most programs have fewer cached functions.
const PLACES: usize = 2048;
/// The maximum number of places, from its home on, that a function may have in one table.
const PROBES: usize = 16;

static FUNCTIONS: Table = Table::new();

/// An append-only hash table. What is in none of the places of its hash is in the next table.
struct Table {
    places: [OnceBox<FunctionInfo>; PLACES],
    next: OnceBox<Table>,
}

impl Table {
    const fn new() -> Self {
        Self { places: [const { OnceBox::new() }; PLACES], next: OnceBox::new() }
    }

    /// Returns a function that is not at its home, and inserts it if it is new. The type is the result of a
    /// function, so that the caller need not store it in memory.
    #[cold]
    #[inline(never)]
    fn get_or_insert_type(
        &'static self,
        id: fn() -> TypeId,
        path: fn() -> &'static str,
    ) -> &'static FunctionInfo {
        self.get_or_insert(id(), path)
    }

    /// Threads that insert at once agree on the first free place.
    fn get_or_insert(
        &'static self,
        id: TypeId,
        path: fn() -> &'static str,
    ) -> &'static FunctionInfo {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let new = || {
            let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            Box::new(FunctionInfo { id, path, number, seeds: Seeds::of(&id) })
        };
        let mut table = self;
        loop {
            for probe in 0..PROBES {
                let function = table.places[(home(id) + probe) % PLACES].get_or_init(new);
                if function.id == id {
                    return function;
                }
            }
            table = table.next.get_or_init(|| Box::new(Self::new()));
        }
    }
}

/// Returns the first place of a function. The compiler folds it to a constant.
#[inline(always)]
fn home(id: TypeId) -> usize {
    let mut bits = IdentityHasher::default();
    id.hash(&mut bits);
    usize::try_from(bits.finish() % PLACES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ptr;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// A list of types, as a type.
    trait Each {
        /// Interns two functions for each level of the list, for a body that holds a `P`.
        fn each<P>(found: &mut Vec<&'static FunctionInfo>);
    }

    struct End;
    struct Twice<T>(T);

    impl Each for End {
        fn each<P>(found: &mut Vec<&'static FunctionInfo>) {
            found.push(FunctionInfo::of::<P>());
        }
    }

    impl<T: Each> Each for Twice<T> {
        fn each<P>(found: &mut Vec<&'static FunctionInfo>) {
            T::each::<(P, u8)>(found);
            T::each::<(P, i8)>(found);
        }
    }

    type Few = Twice<Twice<Twice<End>>>;
    type Many = Twice<Twice<Twice<Twice<Twice<Twice<Twice<Few>>>>>>>;

    fn all<T: Each>() -> Vec<&'static FunctionInfo> {
        let mut found = Vec::new();
        T::each::<()>(&mut found);
        found
    }

    #[test]
    fn function_is_interned_once_by_threads_that_start_together() {
        let start = Barrier::new(4);
        let found = thread::scope(|scope| {
            let intern = || {
                start.wait();
                all::<Many>()
            };
            let threads = [(); 4].map(|()| scope.spawn(intern));
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!(found[0].len(), 1024);
        for other in &found[1..] {
            assert!(found[0].iter().zip(other).all(|(one, other)| ptr::eq(*one, *other)));
        }
        let ids: HashSet<_> = found[0].iter().map(|function| function.id()).collect();
        let numbers: HashSet<_> = found[0].iter().map(|function| function.number()).collect();
        assert_eq!((ids.len(), numbers.len()), (1024, 1024));
        assert!(!numbers.contains(&0));
    }

    #[test]
    fn functions_with_one_home_are_distinguished_beyond_the_first_table() {
        let table: &'static Table = Box::leak(Box::new(Table::new()));
        let ids: Vec<_> = all::<Few>().iter().map(|function| function.id()).collect();
        // All the places of these homes but one are taken.
        let taken = || {
            Box::new(FunctionInfo {
                id: TypeId::of::<u8>(),
                path: || "",
                number: 1,
                seeds: Seeds::of(&0),
            })
        };
        for id in &ids {
            for probe in 1..PROBES {
                let _ = table.places[(home(*id) + probe) % PLACES].set(taken());
            }
            let _ = table.places[home(*id)].set(taken());
        }
        let get = || ids.iter().map(|&id| table.get_or_insert(id, || "")).collect::<Vec<_>>();
        let (first, second) = (get(), get());
        assert!(first.iter().zip(&second).all(|(one, other)| ptr::eq(*one, *other)));
        assert!(first.iter().zip(&ids).all(|(function, id)| function.id() == *id));
        assert!(table.next.get().is_some());
    }
}
