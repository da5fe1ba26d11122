//! All patterns of arguments, with all arguments of the attribute that may use their names.
#![deny(warnings, unused)]
#![allow(clippy::eq_op, clippy::toplevel_ref_arg)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vayu::backend::ByReference;
use vayu::{MemoryCache, cached};

/// An extractor of a web framework: not `Clone`, not `Serialize`.
struct Path<T>(T);
struct State<T>(T);
struct Json<T>(T);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Query {
    page: u32,
    words: String,
}

#[derive(Clone, Copy, Serialize)]
struct Unit;

struct App {
    pages: MemoryCache,
    prefix: String,
}

impl App {
    fn new() -> Arc<Self> {
        Arc::new(Self { pages: MemoryCache::new(), prefix: "p".to_owned() })
    }

    async fn load(&self, id: u64) -> String {
        format!("{}{id}", self.prefix)
    }
}

// A typical handler.

#[cached(cache = app.pages, ttl = "1m", key = id.to_string(), tags("user:{id}"))]
async fn user(State(app): State<Arc<App>>, Path(id): Path<u64>) -> String {
    app.load(id).await
}

#[cached(cache = app.pages, ttl = "1m", skip(app, id), include(id), tags("user:{id}", format!("n:{id}")))]
async fn part(State(app): State<Arc<App>>, Path(id): Path<u64>, _: &str) -> String {
    app.load(id).await
}

// All expressions at once, sync and async, with a handle and with `spawn`.

#[cached(
    cache = app.pages,
    ttl = |value: &String| Duration::from_secs(id + value.len() as u64),
    stale = Duration::from_secs(id),
    jitter = "1%",
    prefix = format!("sync/{}/{}", app.prefix, query.page),
    key = format!("{id}/{page}/{}", query.words),
    include(id, query.words, page),
    tags("user:{id}", &query.words, "{page}"),
    label = "{id}/{page}",
    cache_if = |value| value.len() as u64 > id - id,
    serializer = json.0,
    version = 3
)]
fn everything(
    State(app): State<Arc<App>>,
    (Path(id), page): (Path<u64>, u32),
    Json(query): Json<Query>,
    Json(json): Json<(ByReference, u8)>,
) -> String {
    let _ = json;
    drop(query);
    format!("{}{id}{page}", app.prefix)
}

#[cached(
    cache = app.pages,
    ttl = |value: &String| Duration::from_secs(id + value.len() as u64),
    stale = Duration::from_secs(id),
    prefix = format!("async/{}/{}", app.prefix, query.page),
    key = format!("{id}/{page}/{}", query.words),
    include(id, query.words, page),
    tags("user:{id}", &query.words, "{page}"),
    label = "{id}/{page}",
    cache_if = |value| value.len() as u64 > id - id,
    serializer = json.0
)]
async fn everything_async(
    State(app): State<Arc<App>>,
    (Path(id), page): (Path<u64>, u32),
    Json(query): Json<Query>,
    Json(json): Json<(ByReference, u8)>,
) -> String {
    let _ = json;
    drop(query);
    app.load(id + u64::from(page)).await
}

#[cached(
    cache = app.pages,
    ttl = |value: &String| Duration::from_secs(id + value.len() as u64),
    stale = Duration::from_secs(id),
    prefix = format!("handle/{}/{}", app.prefix, query.page),
    key = format!("{id}/{page}/{}", query.words),
    include(id, query.words, page),
    tags("user:{id}", &query.words, "{page}"),
    label = "{id}/{page}",
    cache_if = |value| value.len() as u64 > id - id,
    serializer = json.0,
    handle = everything_entry
)]
fn everything_with_handle(
    State(app): State<Arc<App>>,
    (Path(id), page): (Path<u64>, u32),
    Json(mut query): Json<Query>,
    Json(json): Json<(ByReference, u8)>,
) -> String {
    let _ = json;
    query.page = page;
    format!("{}{id}{}", app.prefix, query.page)
}

#[cached(
    cache = app.pages,
    ttl = |value: &String| Duration::from_secs(id + value.len() as u64),
    stale = Duration::from_secs(id),
    prefix = format!("task/{}/{}", app.prefix, query.page),
    key = format!("{id}/{page}/{}", query.words),
    include(id, query.words, page),
    tags("user:{id}", &query.words, "{page}"),
    label = "{id}/{page}",
    cache_if = |value| value.len() as u64 > id - id,
    serializer = json,
    spawn = |task| { drop(Box::pin(task)) },
    handle = everything_task_entry
)]
async fn everything_task(
    State(app): State<Arc<App>>,
    (Path(id), page): (Path<u64>, u32),
    Json(ref query): Json<Query>,
    Json((json, ref mut count)): Json<(ByReference, u8)>,
) -> String {
    let _ = json;
    *count += 1;
    app.load(id + u64::from(page + query.page) + u64::from(*count)).await
}

// Every kind of pattern, with nothing skipped: the whole argument is in the key, and the attribute uses all
// names.

macro_rules! pair {
    ($one:ident, $two:ident) => {
        ($one, $two)
    };
}

macro_rules! shapes {
    ($(#[$attribute:meta])* $name:ident, $entry:ident, [$($asyncness:ident)?]) => {
        #[cached(
            ttl = "1m",
            include(
                a, b, field, renamed, one, first, last, rest, nested, other, under, twice, by_ref, words, mutable,
                whole, part, left, right, either, of_slice, r#type
            ),
            tags("{a}{field}{renamed}{one}{first}{nested}{under}{twice}{by_ref}{mutable}{left}{either}{type}"),
            prefix = format!("{}{a}{words}", stringify!($name)),
            cache_if = |value| *value > u64::from(a) - u64::from(a),
            handle = $entry
        )]
        #[allow(clippy::too_many_arguments)]
        $($asyncness)? fn $name(
            (a, b): (u8, String),
            Query { page: renamed, words: field }: Query,
            Wrapper(one): Wrapper<u16>,
            [first, .., last]: [u32; 4],
            [_, rest @ ..]: [u8; 3],
            (Wrapper(nested), [other, _], _): (Wrapper<u8>, [String; 2], u8),
            &under: &u64,
            &(twice, ref words): &(u8, String),
            ref by_ref: String,
            (mut mutable, ref mut changed): (u8, Vec<u8>),
            whole @ (_, part): (u8, u8),
            (left, right): &(u8, String),
            (Ok(either) | Err(either)): Result<u8, u8>,
            Wrapper(of_slice): Wrapper<&'static str>,
            (r#type, ..): (u8, u8, u8),
            (Unit, mut plain): (Unit, u8),
            _: &str,
            (_, _): (u8, u8),
            pair!(x, y): (u8, u8),
            &[ref in_array, (_, _), ..]: &[(String, u8); 2],
            Both { ref inside, wrapper: Wrapper(deep), .. }: Both,
        ) -> u64 {
            mutable += 1;
            plain += 1;
            changed.push(mutable);
            let bytes = [a, nested, twice, mutable, whole.0, part, *left, either, r#type, plain, x, y, deep];
            let texts = [&b, &field, &other, words, by_ref, right, &in_array.0, inside];
            bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()
                + texts.iter().map(|text| text.len() as u64).sum::<u64>()
                + u64::from(renamed + u32::from(one) + first + last) + under
                + (changed.len() + rest.len() + of_slice.len()) as u64
        }
    };
}

#[derive(Clone, Serialize)]
struct Wrapper<T>(T);

#[derive(Clone, Serialize)]
struct Both {
    inside: String,
    wrapper: Wrapper<u8>,
    hidden: u8,
}

shapes!(shapes, shapes_entry, []);
shapes!(shapes_async, shapes_async_entry, [async]);

macro_rules! call_shapes {
    ($name:ident, $n:expr) => {
        $name(
            ($n, "b".to_owned()),
            Query { page: 1, words: "w".to_owned() },
            Wrapper(2),
            [1, 2, 3, 4],
            [1, 2, 3],
            (Wrapper(1), ["o".to_owned(), "p".to_owned()], 0),
            &7,
            &(1, "t".to_owned()),
            "r".to_owned(),
            (1, vec![1]),
            (1, 2),
            &(1, "right".to_owned()),
            Ok(1),
            Wrapper("slice"),
            (1, 2, 3),
            (Unit, 1),
            "",
            (1, 1),
            (1, 1),
            &[("i".to_owned(), 1), ("j".to_owned(), 2)],
            Both { inside: "in".to_owned(), wrapper: Wrapper(1), hidden: 0 },
        )
    };
}

// Closures for `key` receive whole arguments, and may use names of their patterns.

#[cached(ttl = "1m", key = |_, Path(n), _| format!("{tenant}/{n}/{}", words.len()), handle = closure_entry)]
fn closure((tenant, _): (u32, Unit), Path(n): Path<u64>, Json(words): Json<String>) -> String {
    format!("{tenant}/{n}/{words}")
}

#[cached(ttl = "1m", key = |_, Path(n), _| format!("{tenant}/{n}/{}", words.len()))]
async fn closure_async(
    (tenant, _): (u32, Unit),
    Path(n): Path<u64>,
    Json(words): Json<String>,
) -> String {
    format!("{tenant}/{n}/{words}")
}

// Skipped arguments and parts need no `Serialize`.

struct Database;

#[cached(ttl = "1m", skip(database, _unused), handle = skipped_entry)]
fn skipped(
    (database, tenant): (&Database, u32),
    Json(_unused): Json<Database>,
    Query { page, .. }: Query,
) -> String {
    let _ = database;
    format!("{tenant}/{page}")
}

// Methods of all receivers, and of traits.

struct Shop {
    cache: MemoryCache,
}

impl Shop {
    #[cached(cache = self.cache, ttl = "1m", skip(database), tags("{id}"), handle = fare_entry)]
    fn fare(&self, (database, id): (&Database, u8)) -> u8 {
        let _ = database;
        id
    }

    #[cached(cache = self.cache, ttl = "1m", key = id.to_string())]
    async fn fare_async(
        self: Arc<Self>,
        Path(id): Path<u8>,
        State(mut app): State<Arc<App>>,
    ) -> u8 {
        app = Arc::clone(&app);
        drop(app);
        id
    }

    #[cached(cache = cache, ttl = "1m", skip(cache), handle = Self::associated_entry)]
    fn associated((cache, id): (&MemoryCache, u8)) -> u8 {
        let _ = cache;
        id
    }
}

#[async_trait::async_trait]
trait Store {
    async fn load(&self, pair: (u8, String), _: State<u8>, path: Path<u8>) -> String;
    #[cached(ttl = "1m", key = id.to_string(), tags("{id}{words}"), include(words))]
    async fn by_default(&self, Path(id): Path<u8>, (mut words, _): (String, u8)) -> String {
        words.push('!');
        format!("{id}{words}")
    }
}

#[async_trait::async_trait]
impl Store for Shop {
    #[cached(cache = self.cache, ttl = "1m", skip(n, id), include(id), tags("{n}{id}", &words))]
    async fn load(&self, (n, words): (u8, String), _: State<u8>, Path(id): Path<u8>) -> String {
        format!("{n}{words}{id}")
    }
}

// A manual future.
#[cached(ttl = "1m", key = id.to_string(), tags("{id}{words}"))]
fn boxed(Path(id): Path<u8>, ref words: String) -> Pin<Box<dyn Future<Output = u8> + Send>> {
    let words = words.clone();
    Box::pin(async move { id + words.len() as u8 })
}

fn run<F: Future>(future: F) -> F::Output {
    smol::block_on(future)
}

fn main() {
    let app = App::new();
    for _ in 0..2 {
        assert_eq!(run(user(State(Arc::clone(&app)), Path(7))), "p7");
        assert_eq!(run(user(State(Arc::clone(&app)), Path(8))), "p8");
        assert_eq!(run(part(State(Arc::clone(&app)), Path(9), "")), "p9");
    }
    assert_eq!((app.pages.stats().misses, app.pages.stats().hits), (3, 3));
    app.pages.invalidate_tag("user:7").unwrap();
    run(user(State(Arc::clone(&app)), Path(7)));
    assert_eq!((app.pages.stats().misses, app.pages.stats().hits), (4, 3));

    let query = || Query { page: 1, words: "w".to_owned() };
    for n in 1..3 {
        for _ in 0..2 {
            let state = || State(Arc::clone(&app));
            let json = || Json((ByReference, 0));
            assert_eq!(everything(state(), (Path(n), 1), Json(query()), json()), format!("p{n}1"));
            let output = run(everything_async(state(), (Path(n), 1), Json(query()), json()));
            assert_eq!(output, format!("p{}", n + 1));
            assert_eq!(
                everything_with_handle(state(), (Path(n), 1), Json(query()), json()),
                format!("p{n}1")
            );
            let entry = everything_entry(state(), (Path(n), 1), Json(query()), json());
            assert_eq!(entry.peek().unwrap(), Some(format!("p{n}1")));
            let output = run(everything_task(state(), (Path(n), 1), Json(query()), json()));
            assert_eq!(output, format!("p{}", n + 3));
            let entry = everything_task_entry(state(), (Path(n), 1), Json(query()), json());
            assert_eq!(entry.peek().unwrap(), Some(format!("p{}", n + 3)));
        }
    }
    assert_eq!(app.pages.stats().misses, 4 + 2 * 4);

    for n in 1..3_u8 {
        assert!(call_shapes!(shapes_entry, n).peek().unwrap().is_none());
        let expected = call_shapes!(shapes, n);
        assert_eq!(call_shapes!(shapes, n), expected);
        assert_eq!(call_shapes!(shapes_entry, n).peek().unwrap(), Some(expected));
        assert_eq!(run(call_shapes!(shapes_async, n)), expected);
        assert_eq!(call_shapes!(shapes_async_entry, n).peek().unwrap(), Some(expected));
    }

    let words = || Json("words".to_owned());
    assert_eq!(closure((1, Unit), Path(2), words()), "1/2/words");
    assert_eq!(closure((2, Unit), Path(2), words()), "2/2/words");
    assert_eq!(closure((1, Unit), Path(2), Json("other".to_owned())), "1/2/words");
    assert_eq!(closure_entry((1, Unit), Path(2), words()).peek().unwrap().unwrap(), "1/2/words");
    assert_eq!(run(closure_async((1, Unit), Path(2), words())), "1/2/words");
    assert_eq!(run(closure_async((2, Unit), Path(2), words())), "2/2/words");

    assert_eq!(skipped((&Database, 1), Json(Database), query()), "1/1");
    assert_eq!(skipped((&Database, 2), Json(Database), query()), "2/1");
    assert!(skipped_entry((&Database, 2), Json(Database), query()).peek().unwrap().is_some());
    assert!(skipped_entry((&Database, 3), Json(Database), query()).peek().unwrap().is_none());

    let shop = Arc::new(Shop { cache: MemoryCache::new() });
    assert_eq!((shop.fare((&Database, 1)), shop.fare((&Database, 2))), (1, 2));
    assert_eq!(shop.fare_entry((&Database, 1)).peek().unwrap(), Some(1));
    assert_eq!(run(Arc::clone(&shop).fare_async(Path(3), State(App::new()))), 3);
    assert_eq!(Shop::associated((&shop.cache, 4)), 4);
    assert_eq!(Shop::associated_entry((&shop.cache, 4)).peek().unwrap(), Some(4));
    let text = || "t".to_owned();
    assert_eq!(run(shop.load((1, text()), State(0), Path(2))), "1t2");
    assert_eq!(run(shop.load((9, text()), State(0), Path(2))), "1t2", "`n` is skipped");
    assert_eq!(run(shop.load((1, text()), State(0), Path(3))), "1t3");
    assert_eq!(run(shop.by_default(Path(1), (text(), 0))), "1t!");
    assert_eq!(run(shop.by_default(Path(2), (text(), 0))), "2t!");
    assert_eq!((run(boxed(Path(1), text())), run(boxed(Path(2), text()))), (2, 3));
}
