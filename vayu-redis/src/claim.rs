//! The right to compute a key for all machines: a key with a token nobody else knows, which is gone
//! after a while whatever happens.

use vayu_core::Claimed;

use crate::backend::Asking;
use crate::command;
use crate::failure::Failure;
use crate::random;

/// Who holds the right.
struct Holder {
    asking: Asking,
    name: String,
    token: [u8; 16],
    is_async: bool,
}

pub(crate) fn token() -> Result<[u8; 16], Failure> {
    Ok(random::bytes()?)
}

pub(crate) fn granted(asking: Asking, name: String, token: [u8; 16], is_async: bool) -> Claimed {
    Claimed::new(Holder { asking, name, token, is_async })
}

impl Drop for Holder {
    /// What cannot be given back now comes to its end by itself.
    fn drop(&mut self) {
        let release = command::release(&self.name, &self.token);
        let asking = self.asking.clone();
        if !self.is_async {
            let _ = asking.ask(&release);
        } else if let Ok(runtime) = crate::runtime::nearest() {
            runtime.spawn(async move { asking.ask_async(&release).await });
        }
    }
}
