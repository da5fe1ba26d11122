//! The connections of async callers, one for each runtime: a connection lives in the runtime that
//! polls it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Id;
use tokio::sync::OnceCell;

use crate::failure::Failure;
use crate::line::Line;
use crate::server::Server;

#[derive(Default)]
pub(crate) struct Cells(RwLock<HashMap<Id, Cell>>);

type Cell = Arc<OnceCell<Line>>;

/// Runtimes whose connections are remembered. Past that all are forgotten: most of them have ended.
const REMEMBERED: usize = 64;

impl Cells {
    /// The connection of a runtime, whether it is open yet or not.
    pub(crate) fn of(&self, runtime: Id) -> Use<'_> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&runtime).cloned();
        let cell = known.unwrap_or_else(|| {
            let mut cells = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if cells.len() >= REMEMBERED {
                cells.clear();
            }
            Arc::clone(cells.entry(runtime).or_default())
        });
        Use { cells: self, runtime, cell, is_over: false }
    }
}

/// A use of a connection for one command. Whoever does not say that it is over leaves the connection
/// to nobody: an answer may still be on its way.
pub(crate) struct Use<'a> {
    cells: &'a Cells,
    runtime: Id,
    cell: Cell,
    is_over: bool,
}

impl Use<'_> {
    /// The connection if it is open.
    pub(crate) fn open_line(&self) -> Option<&Line> {
        self.cell.get()
    }

    /// The connection, opened if that is needed. Of many who ask at once, one opens it.
    pub(crate) async fn line(&self, server: &Server) -> Result<Line, Failure> {
        self.cell.get_or_try_init(|| server.line()).await.cloned()
    }

    /// The connection may be used again.
    pub(crate) fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        // One that is not open has nothing on its way, and others may wait for it.
        if self.is_over || self.cell.get().is_none() {
            return;
        }
        let mut cells = self.cells.0.write().unwrap_or_else(PoisonError::into_inner);
        if cells.get(&self.runtime).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            cells.remove(&self.runtime);
        }
    }
}
