//! The checked combination of attribute and function from which code is generated.

pub(crate) mod background;
pub(crate) mod batch;
pub(crate) mod cache;
mod handle;
pub(crate) mod key;
pub(crate) mod on_value;
pub(crate) mod own;

use syn::Ident;
use syn::ext::IdentExt;

use self::background::{
    check_background, check_patience, check_revalidate, check_spawn, check_spawner,
};
use self::batch::Batch;
use self::cache::{Cache, Limit, Serializer, check_cache, choose_limit, needs_clone};
use self::handle::check_handle;
use self::key::{Key, check_refresh_if, check_self, check_source, choose_arguments};
use self::on_value::{check_closures, check_predicate};
use self::own::Owned;
use crate::cached::args::{Arguments, Handle, Options, Ttl};
use crate::cached::attribute::Attribute;
use crate::cached::function::{Argument, Function};
use crate::diagnostics::Diagnostics;
use crate::paths::Root;

pub(crate) struct Model {
    pub(crate) kind: Attribute,
    pub(crate) root: Root,
    pub(crate) function: Function,
    pub(crate) cache: Option<Cache>,
    /// The limit of the memory cache of the function's own, if it has one.
    pub(crate) limit: Option<Limit>,
    pub(crate) key: Key,
    pub(crate) serializer: Option<Serializer>,
    pub(crate) ttl: Ttl,
    pub(crate) handle: Option<Handle>,
    /// The elements, in a batch function.
    pub(crate) batch: Option<Batch>,
    /// The borrowed arguments of which a run in the background has copies.
    pub(crate) own: Vec<Owned>,
    pub(crate) options: Options,
    /// The tokens of the attribute.
    pub(crate) attribute: String,
}

impl Model {
    pub(crate) fn new(
        arguments: Arguments,
        function: Function,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let is_complete = arguments.is_complete;
        if is_complete {
            check_self(&arguments, &function, diagnostics);
        }
        let batch = batch::choose(&arguments, &function, diagnostics);
        let own = own::choose(&arguments, &function, diagnostics);
        check_closures(&arguments, &own, diagnostics);
        let key = match arguments.key {
            Some(source) => {
                let attribute = arguments.attribute;
                check_source(attribute, &source, arguments.skip.as_ref(), &function, diagnostics);
                Key::Source(source)
            }
            None => Key::Arguments(choose_arguments(
                arguments.attribute,
                arguments.skip.as_ref(),
                arguments.options.include.is_empty() && arguments.batch.each.is_none(),
                is_complete,
                &function,
                diagnostics,
            )),
        };
        if let Some(predicate) = &arguments.options.cache_if {
            check_predicate(predicate, &function, diagnostics);
        }
        let has_cache = arguments.cache.is_some();
        let limit = choose_limit(arguments.limits, has_cache, is_complete, &function, diagnostics);
        let cache = arguments.cache.map(|expression| {
            check_cache(&expression, &function, diagnostics);
            let needs_clone = needs_clone(&expression, &function);
            Cache { expression, needs_clone }
        });
        let serializer = arguments.serializer.map(|expression| {
            let needs_clone = needs_clone(&expression, &function);
            Serializer { expression, needs_clone }
        });
        if let (Some(condition), Key::Arguments(parts)) = (&arguments.options.refresh_if, &key) {
            check_refresh_if(condition, parts, &function, diagnostics);
        }
        if let Some(spawn) = &arguments.options.spawn {
            check_spawner(spawn, &function, diagnostics);
            if is_complete {
                check_spawn(&function, arguments.own.as_ref(), batch.as_ref(), diagnostics);
            }
        }
        if is_complete {
            check_background(&arguments.options, &function, diagnostics);
            check_patience(&arguments.options, &function, diagnostics);
            check_revalidate(&arguments.options, &function, diagnostics);
        }
        let handle = arguments.handle.map(|handle| check_handle(handle, &function, diagnostics));
        Some(Self {
            kind: arguments.attribute,
            root: Root::new(arguments.root.as_ref()),
            function,
            cache,
            limit,
            key,
            serializer,
            ttl: arguments.ttl?,
            handle,
            batch,
            own,
            options: arguments.options,
            attribute: arguments.text,
        })
    }

    /// Returns whether an argument is the one whose elements have an entry each.
    pub(crate) fn is_each(&self, argument: &Argument) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.name == argument.name)
    }

    /// Returns whether the attribute may use a name, in an expression or in a string.
    pub(crate) fn may_use(&self, name: &Ident) -> bool {
        self.attribute.contains(&name.unraw().to_string())
    }
}
