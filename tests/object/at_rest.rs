//! Sealed and compressed values in a store whose objects are moved and damaged.

use std::sync::Arc;
use std::time::Duration;

use vayu::backend::Backend;
use vayu::testing::watchdog;
use vayu::{Cache, Compressed, Key, MessagePack, SealKeys, Sealed};

use crate::faulty_store::FaultyStore;
use crate::{HANG, cache};

#[test]
fn sealed_entry_is_served_for_its_own_key_or_not_at_all() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let sealed: Cache<_, Sealed<Compressed<MessagePack>>> = cache(&store)
            .with_serializer(Sealed::new(SealKeys::new([7; 32]), Compressed::zstd(MessagePack)));
        let (one, other) = (Key::from_text("a", "one"), Key::from_text("a", "other"));
        let hour = Duration::from_secs(3600);
        sealed.set(&one, &"secret".repeat(100), hour).unwrap();
        let name = store.names("/entries/").pop().unwrap();
        assert!(!store.bytes(&name).windows(6).any(|part| part == b"secret"));
        assert_eq!(sealed.get::<String>(&one).unwrap(), Some("secret".repeat(100)));
        // The value under another key, with a checksum that is correct.
        let record = sealed.backend().read(&one).unwrap().unwrap();
        sealed.backend().write(&other, record).unwrap();
        assert_eq!(sealed.get::<String>(&other).unwrap(), None);
        let plain = cache(&Arc::clone(&store));
        assert_eq!(plain.get::<String>(&one).unwrap(), None);
    });
}
