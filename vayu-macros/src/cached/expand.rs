//! The expanded function.
//!
//! Generated variables are hygienic and cannot collide with variables of the user. They start with `vayu_`
//! because hygiene does not apply to statics and methods. The body is emitted once, in place, as the
//! closure or async block that the engine calls.

mod batch;
pub(crate) mod body;
mod cache;
mod call;
mod closure;
mod handle;
mod key;
mod own;
mod pattern;
mod policy;
mod purpose;
mod setup;
mod shape;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{AttrStyle, Attribute};

use crate::cached::expand::call::{call, refreshing_call, spawning_call};
use crate::cached::function::Kind;
use crate::cached::model::Model;

/// Returns the function, with `first` at the start of its body.
pub(crate) fn expand(model: &Model, first: &TokenStream) -> TokenStream {
    let item = &model.function.item;
    let (inner, outer): (Vec<&Attribute>, Vec<&Attribute>) =
        item.attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let (visibility, modifiers, signature) = (&item.vis, &item.modifiers.defaultness, &item.sig);
    let handle = model.handle.as_ref().map(|handle| handle::expand(model, handle));
    let own_cache = cache::accessor(model);
    let batch = model.batch.as_ref();
    let signature = batch.map_or_else(|| signature.clone(), |it| batch::signature(model, it));
    let signature = own::signature(model, signature);
    let statements = match (batch, &model.options.spawn) {
        (Some(batch), None) => batch::call(model, batch),
        (Some(batch), Some(spawn)) => batch::spawning_call(model, batch, spawn),
        (None, Some(spawn))
            if model.options.stale.is_none() || model.options.patience.is_some() =>
        {
            spawning_call(model, spawn)
        }
        (None, Some(spawn)) => refreshing_call(model, spawn),
        (None, None) => call(model),
    };
    let block = match model.function.kind {
        Kind::Sync | Kind::Async => statements,
        Kind::Boxed => quote! {
            ::std::boxed::Box::pin(async move { #statements })
        },
    };
    quote! {
        #(#outer)*
        #visibility #modifiers #signature {
            #(#inner)*
            #first
            #block
        }
        #handle
        #own_cache
    }
}
