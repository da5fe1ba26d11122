use std::error::Error as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cache::Cache;
use crate::clock::Timestamp;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::MessagePack;
use crate::testing::MapBackend;

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

/// The parts of an entry that are authenticated besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    key: u64,
    schema: u64,
    serializer: u16,
    times: [i64; 3],
}

const PARTS: Parts = Parts { key: 7, schema: 1 << 40, serializer: 0x0201, times: [10, 20, 30] };

impl Parts {
    fn with<R>(self, run: impl FnOnce(&EntryContext<'_>) -> R) -> R {
        let key = Key::new("tokens", &(self.key,)).expect("a key");
        let [created, expires, stale_until] = self.times.map(Timestamp::from_micros);
        let record = Record::new((), created, expires)
            .with_stale_until(stale_until)
            .with_schema(self.schema)
            .with_serializer(SerializerId::from_u16(self.serializer));
        run(&EntryContext::new(&key, &record))
    }

    fn seal(self, sealed: &Sealed<MessagePack>, value: u64) -> Bytes {
        self.with(|entry| sealed.serialize_for(&value, entry)).expect("seal")
    }

    fn open(self, sealed: &Sealed<MessagePack>, stored: &Bytes) -> Result<u64> {
        self.with(|entry| sealed.deserialize_for(stored, entry))
    }
}

fn sealed(keys: SealKeys) -> Sealed<MessagePack> {
    Sealed::new(keys, MessagePack)
}

#[track_caller]
fn assert_refused(result: Result<u64>, reason: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(error.source().expect("a reason").to_string(), reason);
}

const CHANGED: &str = "it was changed, or sealed for another entry";

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn next(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The number of attempts is that of the environment variable `VAYU_FORGERIES`, or 20,000.
#[test]
fn forged_moved_and_redated_entries_are_never_served() {
    let attempts =
        std::env::var("VAYU_FORGERIES").map_or(20_000, |number| number.parse().expect("a number"));
    let sealed = sealed(SealKeys::new(NEW).with_old_key(OLD));
    let mut random = Random(1);
    let (mut stored, mut served) = (PARTS.seal(&sealed, 0), 0);
    for attempt in 0..attempts {
        if attempt % 100 == 0 {
            stored = PARTS.seal(&sealed, attempt);
            // What is remembered of a genuine value opens no other.
            if attempt % 200 == 0 {
                assert_eq!(PARTS.open(&sealed, &stored).ok(), Some(attempt));
            }
        }
        let (mut bytes, mut parts) = (stored.to_vec(), PARTS);
        match random.next(8) {
            0 => parts.key = random.next(1 << 20) + 8,
            1 => parts.schema = parts.schema.wrapping_add(1 << random.next(64)),
            2 => parts.times[0] -= 1 + i64::try_from(random.next(1 << 20)).expect("a number"),
            3 => {
                parts.times = PARTS.times.map(|time| time + 1 + random.next(1 << 20).cast_signed());
            }
            4 => parts.times[2] += 1 + random.next(1 << 20).cast_signed(),
            5 => {
                bytes.truncate(usize::try_from(random.next(bytes.len() as u64)).expect("a length"));
            }
            6 => parts.serializer ^= 1 << random.next(16),
            _ => {
                let at = usize::try_from(random.next(bytes.len() as u64)).expect("an index");
                bytes[at] ^= 1 << random.next(8);
            }
        }
        served += u64::from(parts.open(&sealed, &bytes.into()).is_ok());
    }
    assert_eq!(served, 0, "of {attempts}");
    assert_eq!(PARTS.open(&sealed, &PARTS.seal(&sealed, 7)).ok(), Some(7));
}

#[test]
fn each_part_of_an_entry_is_authenticated() {
    let sealed = sealed(SealKeys::new(NEW));
    let stored = PARTS.seal(&sealed, 7);
    assert_eq!(PARTS.open(&sealed, &stored).ok(), Some(7));
    let [created, expires, stale_until] = PARTS.times;
    for other in [
        Parts { key: 8, ..PARTS },
        Parts { schema: 0, ..PARTS },
        Parts { serializer: 0x0301, ..PARTS },
        Parts { times: [created + 1, expires, stale_until], ..PARTS },
        Parts { times: [created, expires + 1, stale_until], ..PARTS },
        Parts { times: [created, expires, stale_until + 1], ..PARTS },
    ] {
        assert_refused(other.open(&sealed, &stored), CHANGED);
    }
    for at in 0..stored.len() {
        let mut changed = stored.to_vec();
        changed[at] ^= 0x40;
        PARTS.open(&sealed, &changed.into()).expect_err("a byte was changed");
    }
    for end in 0..stored.len() {
        PARTS.open(&sealed, &stored.slice(..end)).expect_err("it is not whole");
    }
}

/// More values than are remembered, of more keys.
#[test]
fn values_are_opened_in_any_order() {
    let sealed = sealed(SealKeys::new(NEW));
    let parts = |key| Parts { key, ..PARTS };
    let stored: Vec<_> = (0..700).map(|key| parts(key).seal(&sealed, key)).collect();
    for key in (0..700).chain((0..700).rev()).chain((0..700).map(|n| n * 37 % 700)) {
        let index = usize::try_from(key).expect("an index");
        assert_eq!(parts(key).open(&sealed, &stored[index]).ok(), Some(key));
        assert_refused(parts(key + 1).open(&sealed, &stored[index]), CHANGED);
    }
}

#[test]
fn equal_values_have_different_stored_forms_that_do_not_contain_them() {
    let sealed = Sealed::new(SealKeys::new(NEW), MessagePack);
    let value = "a secret that must not be stored".to_owned();
    let seal = || PARTS.with(|entry| sealed.serialize_for(&value, entry)).expect("seal");
    let [one, other] = [seal(), seal()];
    assert_ne!(one, other);
    let is_part = |stored: &Bytes| {
        stored.windows(8).any(|part| value.as_bytes().windows(8).any(|it| it == part))
    };
    assert!(!is_part(&one) && !is_part(&other));
}

#[test]
fn value_is_not_encoded_without_its_entry() {
    let sealed = sealed(SealKeys::new(NEW));
    let error = sealed.serialize(&7_u64).expect_err("no entry");
    assert_eq!(error.kind(), ErrorKind::Encode);
    let result: Result<u64> = sealed.deserialize(&PARTS.seal(&sealed, 7));
    assert_eq!(result.expect_err("no entry").kind(), ErrorKind::Decode);
}

#[test]
fn old_keys_open_and_are_counted() {
    let [old, both, new] =
        [SealKeys::new(OLD), SealKeys::new(NEW).with_old_key(OLD), SealKeys::new(NEW)].map(sealed);
    let by_old = PARTS.seal(&old, 7);
    assert_eq!(PARTS.open(&both, &by_old).ok(), Some(7));
    assert_eq!(both.keys().opened(), [0, 1]);
    let by_both = PARTS.seal(&both, 8);
    assert_eq!(PARTS.open(&new, &by_both).ok(), Some(8));
    assert_eq!(PARTS.open(&both.clone(), &by_both).ok(), Some(8));
    assert_eq!(both.keys().opened(), [1, 1], "clones share the counters");
    assert_refused(PARTS.open(&new, &by_old), "its key is not one of these");
    assert_refused(PARTS.open(&new, &Bytes::from_static(b"\xa7plain")), "it is not a sealed value");
}

#[test]
fn context_is_authenticated() {
    let of = |context: &str| sealed(SealKeys::new(NEW).with_context(context).with_old_key(OLD));
    let without = || sealed(SealKeys::new(NEW));
    let stored = PARTS.seal(&of("tenant_a"), 7);
    assert_eq!(PARTS.open(&of("tenant_a"), &stored).ok(), Some(7));
    for other in [of("tenant_b"), of(""), without()] {
        assert_refused(PARTS.open(&other, &stored), CHANGED);
    }
    assert_refused(PARTS.open(&of(""), &PARTS.seal(&without(), 7)), CHANGED);
}

#[cfg(feature = "lz4")]
#[test]
fn id_depends_on_the_order_of_compression_and_seal() {
    use crate::serializer::Compressed;

    fn id(serializer: &impl Serializer<u8, Stored = Bytes>) -> SerializerId {
        serializer.id()
    }
    let keys = || SealKeys::new(NEW);
    let first = id(&Sealed::new(keys(), Compressed::lz4(MessagePack)));
    let last = id(&Compressed::lz4(Sealed::new(keys(), MessagePack)));
    assert_eq!([first.as_u16(), last.as_u16()], [0x0301, 0x0601]);
    for id in [first, last] {
        assert!(id.is_compressed() && id.is_sealed());
        assert_eq!(id.unwrapped(), Some(SerializerId::MESSAGE_PACK));
    }
    let [compressed, sealed]: [&dyn Layer; 2] = [&Compressed::lz4(()), &keys()];
    assert_eq!([first, last].map(|id| sealed.is_outermost(id)), [true, false]);
    assert_eq!([first, last].map(|id| compressed.is_outermost(id)), [false, true]);
}

#[test]
fn keys_are_read_from_strings() {
    let old_hex = "01".repeat(32);
    let base64 = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
    let stored = PARTS.seal(&sealed(SealKeys::new(OLD)), 7);
    for keys in [format!("{base64}=,{old_hex}"), format!("{base64} , {old_hex}"), old_hex.clone()] {
        let sealed = sealed(keys.parse().expect("keys"));
        assert_eq!(PARTS.open(&sealed, &stored).ok(), Some(7), "{keys}");
    }
    let new: SealKeys = base64.parse().expect("a key");
    assert_eq!(PARTS.open(&sealed(new), &PARTS.seal(&sealed(SealKeys::new(NEW)), 8)).ok(), Some(8));
    for wrong in [
        "",
        ",",
        "secret",
        &old_hex[1..],
        &format!("{old_hex},"),
        &format!("{base64}=="),
        &base64.replace('I', "J"),
    ] {
        let error = wrong.parse::<SealKeys>().expect_err(wrong);
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("openssl rand -hex 32"));
    }
}

#[test]
fn secrets_are_not_shown() {
    let sealed = sealed("41".repeat(32).parse().expect("a key"));
    let shown = format!("{sealed:?} {:?}", sealed.keys());
    assert!(!shown.contains("AA") && !shown.contains("41") && !shown.contains("65"), "{shown}");
    let wrong = "secret-password".parse::<SealKeys>().expect_err("not a key");
    assert!(!format!("{wrong:?}").contains("password"));
    let variable = "PATH";
    let error = SealKeys::from_env(variable).expect_err("not a key");
    assert!(error.to_string().contains("`PATH`") && !format!("{error:?}").contains("/bin"));
}

#[test]
fn golden_value_is_opened() {
    let golden = b"\x02N\x8d{T\x01\x00\x86\x8f1\xa5n\xf5S\xcb\x90\xdb\xc5\xc5\xf6]W\x1e=\xfe\x0c\xfc0R\xf3'\xa2\xde\
        \x81\x85\x10=\xb2\xb6\xa1\x97\xe8\xe7T\n\x06\x9f\xf4";
    let result = PARTS.open(&sealed(SealKeys::new(OLD)), &Bytes::from_static(golden));
    assert_eq!(result.ok(), Some(7));
}

#[test]
fn cache_with_sealed_values_finds_them_by_every_door() {
    let cache: Cache<MapBackend, ()> = Cache::with_backend(MapBackend::default());
    let cache = cache.with_serializer(Sealed::new(SealKeys::new(NEW), MessagePack));
    let (key, hour) = (Key::from_text("counts", "k"), Duration::from_secs(3600));
    cache.set(&key, &1_u64, hour).expect("write");
    assert_eq!(cache.get::<u64>(&key).expect("read"), Some(1));
    let next = |old: Option<u64>| old.map_or(0, |old| old + 1);
    assert_eq!(cache.update_with(&key, hour, next).expect("update"), 2);
    assert_eq!(cache.get_or_insert_with(&key, hour, || 9_u64), 2);
    assert_eq!(cache.stats().errors, 0);
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_of_key: bool) {
        let sealed = sealed(SealKeys::new(NEW));
        let mut bytes = bytes;
        if is_of_key {
            let head = &PARTS.seal(&sealed, 7)[..7];
            bytes.splice(0..0, head.iter().copied());
        }
        prop_assert!(PARTS.open(&sealed, &bytes.into()).is_err());
    }
}
