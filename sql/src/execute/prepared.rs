//! A statement read once, with what the fast path made of it under one schema.

use super::point::Point;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::parse::{self, Statement};
use parking_lot::Mutex;
use std::sync::Arc;
use truetime::Timestamp;

/// See the [module](self).
pub(crate) struct Prepared {
    pub(crate) statement: Statement,
    /// The schema's timestamp, and the fast path under it; `None`: there is none.
    point: Mutex<Option<(Timestamp, Option<Arc<Point>>)>>,
}

impl Prepared {
    pub(crate) fn new(sql: &str) -> Result<Prepared> {
        Ok(Prepared { statement: parse::parse(sql)?, point: Mutex::new(None) })
    }

    /// Whether the same text is likely to come again and reading it costs something.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(
            self.statement,
            Statement::Query(_)
                | Statement::Insert(_)
                | Statement::Update(_)
                | Statement::Delete(_)
        )
    }

    /// Whether it is the schema itself that is asked for.
    pub(crate) fn shows_schema(&self) -> bool {
        matches!(
            self.statement,
            Statement::ShowTables | Statement::Describe(_) | Statement::ShowCreateTable(_)
        )
    }

    /// The fast path under a schema. A schema's timestamp names it: no two differ and share one.
    pub(crate) fn point(&self, catalog: &Catalog) -> Option<Arc<Point>> {
        let mut known = self.point.lock();
        match &*known {
            Some((since, point)) if *since == catalog.since => point.clone(),
            _ => {
                let point = Point::compile(&self.statement, catalog).map(Arc::new);
                *known = Some((catalog.since, point.clone()));
                point
            }
        }
    }
}
