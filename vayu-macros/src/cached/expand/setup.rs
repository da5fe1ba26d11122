//! Everything that is evaluated before the body takes the arguments. A function and its handle share it.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};

use crate::cached::expand::cache::cache;
use crate::cached::expand::key::{is_of_call, is_string_literal, key, parts, tags_and_label};
use crate::cached::expand::policy;
use crate::cached::expand::purpose::Purpose;
use crate::cached::expand::shape::{borrowed, shape};
use crate::cached::model::Model;
use crate::cached::model::key::Key;

/// Everything that is evaluated before the body takes the arguments.
pub(crate) struct Setup {
    /// What the whole call needs, and what its description borrows.
    pub(crate) of_call: TokenStream,
    /// What only the description of the call needs: its key, the values of its policy, and its tags.
    pub(crate) of_policy: TokenStream,
}

impl ToTokens for Setup {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.of_call.to_tokens(tokens);
        self.of_policy.to_tokens(tokens);
    }
}

/// Generates everything that is evaluated before the body takes the arguments. Patterns are destructured
/// before the first expression of the attribute, which may use their names. The key is started before
/// that, since it may contain whole arguments. A batch has keys of its elements, see `key::of_key`.
pub(crate) fn setup(model: &Model, purpose: Purpose) -> Setup {
    let root = &model.root;
    let cache = cache(model);
    let (key_before, key_after, tags) = match purpose {
        Purpose::Batch | Purpose::BatchTask => (None, None, None),
        _ if model.function.has_patterns() => {
            (Some(key(model, purpose)), Some(parts(model)), tags_and_label(model, purpose))
        }
        _ => {
            let (key, parts) = (key(model, purpose), parts(model));
            (None, Some(quote!(#key #parts)), tags_and_label(model, purpose))
        }
    };
    let (serializer, values) = (policy::serializer(model, purpose), policy::values(model, purpose));
    let conditions = policy::conditions(model, purpose);
    let (borrowed, shape) = (borrowed(model), shape(model, purpose));
    let (any, exclusive) = (root.private("AnyPart"), root.private("ExclusiveKind"));
    let of_call = quote_spanned! {Span::mixed_site()=>
        use {#any as _, #exclusive as _};
        #key_before
        #conditions
        #cache
        #borrowed
        #shape
        #serializer
    };
    let start = start(model, purpose);
    // A panic of a value of the policy leaves the memory of a key that was made before it allocated.
    let of_policy = if is_encoded_alone(model) {
        quote!(#values #start #key_after #tags)
    } else {
        quote!(#values #key_after #tags #start)
    };
    Setup { of_call, of_policy }
}

/// Generates the start of a call, which reads the clock.
fn start(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    let start = model.root.private("start");
    (purpose == Purpose::Call && is_of_call(model, purpose))
        .then(|| quote_spanned!(Span::mixed_site()=> let vayu_start = #start(vayu_cache);))
}

/// Returns whether the key takes no expression of the attribute, which may take any time: the clock is then read before the key is
/// made, so that nothing of it has to be kept meanwhile.
fn is_encoded_alone(model: &Model) -> bool {
    let options = &model.options;
    matches!(model.key, Key::Arguments(_))
        && options.include.is_empty()
        && options.tags.is_empty()
        && options.label.is_none()
        && options.prefix.as_ref().is_none_or(is_string_literal)
}
