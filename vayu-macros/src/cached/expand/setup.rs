//! Everything that is evaluated before the body takes the arguments. A function and its handle share it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use crate::cached::expand::cache::cache;
use crate::cached::expand::key::{key, parts, tags_and_label};
use crate::cached::expand::policy;
use crate::cached::expand::purpose::Purpose;
use crate::cached::expand::shape::{borrowed, shape};
use crate::cached::model::Model;

/// Generates everything that is evaluated before the body takes the arguments. Patterns are destructured
/// before the first expression of the attribute, which may use their names. The key is started before
/// that, since it may contain whole arguments. A batch has keys of its elements, see `key::of_key`.
pub(crate) fn setup(model: &Model, purpose: Purpose) -> TokenStream {
    let root = &model.root;
    let cache = cache(model);
    let has_patterns = model.function.arguments.iter().any(|argument| argument.pattern.is_some());
    let (key_before, key_after, tags) = match purpose {
        Purpose::Batch | Purpose::BatchTask => (None, None, None),
        _ if has_patterns => {
            (Some(key(model, purpose)), Some(parts(model)), tags_and_label(model, purpose))
        }
        _ => {
            let (key, parts) = (key(model, purpose), parts(model));
            (None, Some(quote!(#key #parts)), tags_and_label(model, purpose))
        }
    };
    let values = policy::values(model, purpose);
    let conditions = policy::conditions(model, purpose);
    let (borrowed, shape) = (borrowed(model), shape(model, purpose));
    let (any, exclusive) = (root.private("AnyPart"), root.private("ExclusiveKind"));
    quote_spanned! {Span::mixed_site()=>
        use {#any as _, #exclusive as _};
        #key_before
        #conditions
        #cache
        #borrowed
        #shape
        #key_after
        #values
        #tags
    }
}
